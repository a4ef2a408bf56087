import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { CompatibilityError, UsageError } from "../../src/errors.ts";
import type { BackendRole } from "./backend-arguments.ts";
import { readOwnFile } from "./read-own-file.ts";

/** Where packages put what is not in PATH (virtiofsd's own documentation; Debian, Fedora). */
const PLACES: Readonly<Record<string, readonly string[]>> = {
  virtiofsd: ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd"],
};

/**
 * Which program plays a role on this host: the user's own list, else what is installed; never what a file says. The list is
 * TOML, a command for each role: `virtiofsd = ["/opt/virtiofsd/bin/virtiofsd"]`.
 */
export class LocalPrograms {
  /** @param file default $XDG_CONFIG_HOME/vhu/programs.toml, else ~/.config/vhu/programs.toml */
  constructor(
    readonly vhu: readonly string[],
    readonly file = defaultFile(),
    readonly vhuVersion?: string,
  ) {}

  /** The command, without arguments. @throws CompatibilityError when it is not installed, UsageError for a bad list, StateError for one that others can write */
  commandOf(role: BackendRole): readonly string[] {
    if (role === "vhu") return this.vhu;
    const listed = this.#listed(role);
    if (listed !== undefined) return listed;
    const found = Bun.which(role) ?? PLACES[role]?.find((path) => existsSync(path));
    if (found !== undefined) return [found];
    throw new CompatibilityError(
      `${role} is not installed here: install it, or name it in ${this.file}: ${role} = ["/path/to/${role}"]`,
    );
  }

  #listed(role: string): readonly string[] | undefined {
    const text = readOwnFile(this.file, "set XDG_CONFIG_HOME to a folder of your own");
    if (text === undefined) return undefined;
    const command = this.#parse(text)[role];
    if (command === undefined) return undefined;
    const words = Array.isArray(command) ? command : [command];
    if (words.length > 0 && words.every((word) => typeof word === "string") && isAbsolute(words[0] ?? "")) {
      return words;
    }
    throw new UsageError(`${this.file}: ${role} must be a list of words that begins with an absolute path`);
  }

  #parse(text: string): Record<string, unknown> {
    try {
      return Bun.TOML.parse(text) as Record<string, unknown>;
    } catch (cause) {
      throw new UsageError(`${this.file} is not TOML: ${(cause as Error).message}`, { cause });
    }
  }
}

function defaultFile(): string {
  return join(process.env.XDG_CONFIG_HOME || join(homedir(), ".config"), "vhu", "programs.toml");
}
