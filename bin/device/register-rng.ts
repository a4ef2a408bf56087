import type { Command } from "commander";
import { action, addCommand, type CommandPage } from "../command.ts";
import { wholeNumber } from "../whole-number.ts";
import { addRunOptions } from "./run-options.ts";
import type { RunRngOptions } from "./run-rng.ts";

/** `vhu device run rng`. `serves` is what all types say about how they serve. */
export function registerRng(run: Command, serves: string, exitStatus: CommandPage["exitStatus"]): void {
  const command = addCommand(run, {
    usage: "rng",
    description: `serve random bytes from the kernel's generator, getrandom(2)\n\n${serves}`,
    examples: [
      ["vhu device run rng --socket /run/rng.sock", "listen there, for QEMU to connect:"],
      [
        "qemu-system-x86_64 … -chardev socket,id=c0,path=/run/rng.sock -device vhost-user-rng-pci,chardev=c0",
        "guest memory must be shared: -object memory-backend-memfd,…,share=on",
      ],
      ["vhu device run rng --socket /run/rng.sock --max-bytes 1024", "at most 1 KiB in each second"],
    ],
    ...(exitStatus === undefined ? {} : { exitStatus }),
  });
  addRunOptions(command)
    .option(
      "--max-bytes <count>",
      "give at most so many bytes in a period (default: no limit)",
      wholeNumber(1),
    )
    .option("--period <ms>", "the period (default: 1000)", wholeNumber(1))
    .action(
      action(async (context, options: RunRngOptions) => {
        const { confineDevice } = await import("./confine-device.ts");
        confineDevice(context, options, {});
        const { runRng } = await import("./run-rng.ts");
        return runRng(context, options);
      }),
    );
}
