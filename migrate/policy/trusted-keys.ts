import { homedir } from "node:os";
import { join } from "node:path";
import { readOwnFile } from "./read-own-file.ts";

/** "ed25519:HEX NAME", one in a line; "#" begins a comment. */
const LINE = /^ed25519:([0-9a-f]{64})\s+(\S.*)$/;

/** The keys whose snapshots may start programs here: the user's own list. */
export class TrustedKeys {
  /** @param file default $XDG_CONFIG_HOME/vhu/trusted-keys, else ~/.config/vhu/trusted-keys */
  constructor(readonly file = defaultFile()) {}

  /** Undefined for a key that nobody trusts here. @throws StateError when others can write the list */
  nameOf(publicKey: string): string | undefined {
    const text = readOwnFile(this.file, "set XDG_CONFIG_HOME to a folder of your own") ?? "";
    const found = text.split("\n").map((line) => LINE.exec(line.trim()));
    return found.find((match) => match?.[1] === publicKey)?.[2];
  }
}

function defaultFile(): string {
  return join(process.env.XDG_CONFIG_HOME || join(homedir(), ".config"), "vhu", "trusted-keys");
}
