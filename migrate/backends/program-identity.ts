import { readFileSync, realpathSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { VhuError } from "../../src/errors.ts";
import { MAX_PROGRAM_BYTES } from "../../src/limits.ts";
import { holdersOfSocket, socketsAt } from "../../src/sys/mod.ts";
import { type BackendRole, type LocalPrograms, recordedRole } from "../policy/mod.ts";
import { type ProcessFacts, processFacts } from "./process-facts.ts";

/** Which program serves a device, as exactly as can be told. */
export interface ProgramIdentity {
  /** What it says itself, e.g. "1.13.2". */
  readonly version?: string | undefined;
  /** "sha256:" and the hash of its file. */
  readonly build?: string | undefined;
}

/** They answer at once; one that does not is not asked any longer. */
const ANSWER_TIMEOUT_MS = 5_000;
const MAX_ANSWER_CHARACTERS = 4_096;

/**
 * Which programs serve, and would serve here. A program is run (`--version`) only if it is one that local policy starts for
 * that role, never because some process happens to run it; its file's hash tells any.
 */
export class ProgramIdentities {
  readonly #programs: LocalPrograms;
  readonly #known = new Map<string, Promise<ProgramIdentity>>();

  constructor(programs: LocalPrograms) {
    this.#programs = programs;
  }

  /** Of a process that serves. */
  of(process: ProcessFacts): Promise<ProgramIdentity> {
    return this.#once(`${process.pid} ${process.executable}`, () => this.#ofProcess(process));
  }

  /** Of whoever listens at a socket; nothing where that is not to be seen. */
  async ofListener(path: string): Promise<ProgramIdentity> {
    const listener = socketsAt(path).find(({ isListening }) => isListening);
    const pid = listener === undefined ? undefined : holdersOfSocket(listener.inode)[0];
    const facts = pid === undefined ? undefined : processFacts(pid);
    return facts === undefined ? {} : await this.of(facts);
  }

  /** Of the program that this host starts for a role; nothing where it has none. */
  ofRole(role: BackendRole): Promise<ProgramIdentity> {
    return this.#once(role, async () => {
      if (role === "vhu") return { version: this.#programs.vhuVersion };
      const command = this.#commandOf(role);
      if (command === undefined) return {};
      const file = command[recordedRole(command)?.at ?? 0] as string;
      return { version: await versionOf(command), build: buildOf(file) };
    });
  }

  async #ofProcess(process: ProcessFacts): Promise<ProgramIdentity> {
    const { commandLine, pid, workingFolder } = process;
    const own = `/proc/${pid}/exe`;
    const found = recordedRole(commandLine);
    if (found === undefined) return { build: buildOf(own) };
    const { role, at } = found;
    const word = resolve(workingFolder, commandLine[at] as string);
    if (role === "vhu") {
      const isOurs = isSameFile(word, this.#programs.vhu.at(-1) ?? "");
      return { version: isOurs ? this.#programs.vhuVersion : undefined };
    }
    const command = this.#commandOf(role);
    // Behind a loader or an interpreter the words before the program are part of what runs.
    const isOurs =
      command?.length === at + 1 &&
      isSameFile(own, command[0] as string) &&
      command.slice(1).every((each, index) => each === commandLine[index + 1]);
    return {
      version: isOurs ? await versionOf(command) : undefined,
      build: buildOf(at === 0 ? own : word),
    };
  }

  #once(key: string, find: () => Promise<ProgramIdentity>): Promise<ProgramIdentity> {
    const known = this.#known.get(key) ?? find();
    this.#known.set(key, known);
    return known;
  }

  #commandOf(role: BackendRole): readonly string[] | undefined {
    try {
      return this.#programs.commandOf(role);
    } catch (error) {
      // Not installed, or the user's list cannot be read: whoever has to start it says so.
      if (error instanceof VhuError) return undefined;
      throw error;
    }
  }
}

/** What is different for somebody who loads; undefined where nothing is, or nothing is known. */
export function identityDifference(saved: ProgramIdentity, here: ProgramIdentity): string | undefined {
  if (saved.version !== undefined && here.version !== undefined) {
    return saved.version === here.version ? undefined : `${here.version} here, ${saved.version} at the save`;
  }
  const isKnown = saved.build !== undefined && here.build !== undefined;
  return isKnown && saved.build !== here.build ? "another build here than at the save" : undefined;
}

async function versionOf(command: readonly string[]): Promise<string | undefined> {
  try {
    const child = Bun.spawn([...command, "--version"], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "ignore",
      timeout: ANSWER_TIMEOUT_MS,
    });
    const answer = (await child.stdout.text()).slice(0, MAX_ANSWER_CHARACTERS);
    return /\d+(?:\.\d+)+/.exec(answer)?.[0];
  } catch {
    // It cannot be started: whoever has to start it says so.
    return undefined;
  }
}

function buildOf(path: string): string | undefined {
  try {
    if (statSync(path).size > MAX_PROGRAM_BYTES) return undefined;
    return `sha256:${Bun.CryptoHasher.hash("sha256", readFileSync(path), "hex")}`;
  } catch {
    return undefined;
  }
}

/** A program that was replaced on disk since it was started is another file. */
function isSameFile(one: string, other: string): boolean {
  try {
    const [a, b] = [statSync(one), statSync(realpathSync(other))];
    return a.dev === b.dev && a.ino === b.ino;
  } catch {
    return false;
  }
}
