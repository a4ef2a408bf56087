import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { signSnapshot, spoolPipe } from "../../migrate/snapshot/mod.ts";
import { SyscallError } from "../../src/errors.ts";
import { about } from "../about.ts";
import { parseAddressOf } from "../address.ts";
import { action, addCommand } from "../command.ts";
import { targetName, targetOf } from "../snapshot/rewrite.ts";

const STDIN = 0;

export function registerSnapshotSign(parent: Command): void {
  addCommand(parent, {
    usage: "sign <file> <target>",
    description: `write a snapshot with a signature

Signs every byte of FILE with an Ed25519 key, into TARGET; FILE stays. The root stays the same, so snapshots that are based on FILE
go on being based on it, and an encrypted one needs no key for this. "vhu snapshot verify" shows the signer; "vhu migrate load" starts
programs for a snapshot of a key that is in ~/.config/vhu/trusted-keys (lines of "ed25519:HEX NAME"). FILE and TARGET may be "-".`,
    examples: [
      ["openssl genpkey -algorithm ed25519 -out key.pem", "a new key"],
      ["vhu snapshot sign --key key.pem web.vhu web.signed.vhu", "sign web.vhu with it"],
    ],
    exitStatus: { 3: "the file is no snapshot, or is damaged" },
  })
    .requiredOption("--key <file>", "an Ed25519 private key in PEM form")
    .action(
      action(({ output }, file: string, targetText: string, options: { key: string }) => {
        const source = parseAddressOf(file, "snapshot", ["file", "stdio"]);
        using spool = source.kind === "stdio" ? about(file, () => spoolPipe(STDIN)) : undefined;
        const path = source.kind === "stdio" ? (spool?.path ?? "") : source.path;
        const target = targetOf(output, targetText);
        const pem = pemIn(options.key);
        using progress = output.progress("sign");
        const { publicKey } = about(file, () =>
          signSnapshot(path, target, pem, (doneBytes, totalBytes) =>
            progress.update({ doneBytes, totalBytes }),
          ),
        );
        output.summary({ file: targetText, publicKey }, () => [
          `${targetName(targetText)} is signed`,
          `  key ed25519:${publicKey}`,
        ]);
      }),
    );
}

function pemIn(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new SyscallError("open", (error as NodeJS.ErrnoException).code ?? "EIO", path);
  }
}
