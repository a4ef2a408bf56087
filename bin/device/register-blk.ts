import { type Command, Option } from "commander";
import { action, addCommand, type CommandPage } from "../command.ts";
import { wholeNumber } from "../whole-number.ts";
import type { RunBlkOptions } from "./run-blk.ts";
import { addRunOptions } from "./run-options.ts";

const ABOUT = `The image is locked
against other programs (OFD locks, QEMU's included) while the guest's rings run. vhu device resize tells the guest of another size.`;

/** `vhu device run blk`. `serves` is what all types say about how they serve. */
export function registerBlk(run: Command, serves: string, exitStatus: CommandPage["exitStatus"]): void {
  const command = addCommand(run, {
    usage: "blk",
    description: `serve a disk from a raw image file or a block device\n\n${serves} ${ABOUT}`,
    examples: [
      ["vhu device run blk --socket /run/disk.sock --image disk.raw", "listen there, for QEMU to connect:"],
      [
        "qemu-system-x86_64 … -chardev socket,id=c0,path=/run/disk.sock,reconnect-ms=200 -device vhost-user-blk-pci,chardev=c0",
        "guest memory must be shared: -object memory-backend-memfd,…,share=on",
      ],
      [
        "vhu device run blk --socket /run/cd.sock --image cd.iso --read-only --id CD-1",
        "what the guest cannot write to",
      ],
      [
        "vhu device run blk --socket /run/fast.sock --image /dev/vg/fast --direct --num-queues 4 --workers 2",
        "past the page cache, its queues in two threads",
      ],
    ],
    ...(exitStatus === undefined ? {} : { exitStatus }),
  });
  addRunOptions(command)
    .option("--image <path>", "the disk: a raw image or a block device")
    .option("--blk-file <path>", "the same")
    .option("--read-only", "the guest cannot write")
    .option("--id <serial>", "the disk's serial number, at most 20 bytes")
    .option("--num-queues <count>", "request queues (default: 1)", wholeNumber(1))
    .option("--workers <count>", "threads that the queues are spread over (default: 1)", wholeNumber(1))
    .option(
      "--spin-us <us>",
      "how long a thread looks for work before it sleeps (default: 50)",
      wholeNumber(0),
    )
    .addOption(
      new Option(
        "--io <way>",
        "uring: io_uring; sync: preadv and pwritev; mixed: io_uring, in line what is faster so; auto: mixed where io_uring is allowed, sync for images in memory",
      )
        .choices(["auto", "mixed", "uring", "sync"])
        .default("auto"),
    )
    .option("--direct", "past the page cache (O_DIRECT), but for requests that are not aligned")
    .option("--no-lock", "let other programs use the image at the same time")
    .action(
      action(async (context, options: RunBlkOptions) => {
        const { blkNeeds, confineDevice } = await import("./confine-device.ts");
        confineDevice(context, options, blkNeeds(options));
        const { runBlk } = await import("./run-blk.ts");
        return runBlk(context, options);
      }),
    );
}
