import { appendFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { readOwnFile } from "./read-own-file.ts";
import { stateFolder } from "./state-folder.ts";

const ROOT_DIGITS = 64;

/** The snapshots that this user wrote on this host, by their roots: a root names a file's whole content. */
export class OwnSnapshots {
  readonly #file: string;

  /** @param folder where the list is kept; default $XDG_STATE_HOME/vhu, else ~/.local/state/vhu */
  constructor(readonly folder = stateFolder()) {
    this.#file = join(folder, "own-snapshots");
  }

  /** Notes a snapshot that was just written. Returns false where the list cannot be kept: loading then needs `--trust`. */
  add(root: string): boolean {
    try {
      mkdirSync(this.folder, { recursive: true, mode: 0o700 });
      appendFileSync(this.#file, `${root}\n`, { mode: 0o600 });
      return true;
    } catch {
      return false;
    }
  }

  /** @throws StateError when others can write the list */
  has(root: string): boolean {
    if (root.length !== ROOT_DIGITS) return false;
    const text = readOwnFile(this.#file, "set XDG_STATE_HOME to a folder of your own") ?? "";
    return text.split("\n").includes(root);
  }
}
