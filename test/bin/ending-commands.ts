/** Commands that end in every way, for command.test.ts: `bun test/bin/ending-commands.ts wait|throw|answer …`. */

import type { CatalogueEntry } from "../../bin/catalogue.ts";
import { action, addCommand } from "../../bin/command.ts";
import { main } from "../../bin/program.ts";
import {
  CompatibilityError,
  FormatError,
  PeerError,
  StateError,
  SyscallError,
  UsageError,
} from "../../src/errors.ts";

const ERRORS: Readonly<Record<string, () => unknown>> = {
  usage: () => new UsageError("wrong words"),
  format: () => new FormatError("bad bytes", "header", 7),
  compatibility: () => new CompatibilityError("does not fit"),
  peer: () => new PeerError("gone", { cause: new Error("it hung up") }),
  state: () => new StateError("not now"),
  syscall: () => new SyscallError("open", "ENOSPC", "/full"),
  bug: () => new TypeError("x is not a function"),
};

const page = { description: "for a test", examples: [] };

const commands: readonly CatalogueEntry[] = [
  {
    words: "wait",
    summary: page.description,
    load: async () => (parent) => {
      addCommand(parent, { ...page, usage: "wait <how>" }).action(
        action(async ({ output, signal }, how: string) => {
          signal.throwIfAborted();
          output.log.info("ready", { how });
          await new Promise<void>((resolve) => {
            const keepAlive = setInterval(() => {}, 1_000);
            signal.addEventListener("abort", () => {
              if (how === "stubborn") return output.log.info("noticed");
              clearInterval(keepAlive);
              resolve();
            });
          });
          if (how === "throws") throw signal.reason;
          return how === "ends-well" ? 0 : undefined;
        }),
      );
    },
  },
  {
    words: "deaf",
    summary: page.description,
    load: async () => (parent) => {
      addCommand(parent, { ...page, usage: "deaf" }).action(
        action(async ({ output }) => {
          output.log.info("ready");
          await Bun.sleep(60_000);
        }),
      );
    },
  },
  {
    words: "throw",
    summary: page.description,
    load: async () => (parent) => {
      addCommand(parent, { ...page, usage: "throw <error>" }).action(
        action((_, name: string) => {
          throw ERRORS[name]?.();
        }),
      );
    },
  },
  {
    words: "answer",
    summary: page.description,
    load: async () => (parent) => {
      addCommand(parent, { ...page, usage: "answer <status>" }).action(
        action(({ output }, status: string) => {
          output.status("working", { step: 1 });
          using progress = output.progress("copy");
          progress.update({ doneBytes: 512, totalBytes: 1024 });
          output.reserveStdout();
          output.summary({ answer: Number(status) }, () => [`the answer is ${status}`]);
          return Number(status);
        }),
      );
    },
  },
];

process.exit(await main(process.argv.slice(2), commands));
