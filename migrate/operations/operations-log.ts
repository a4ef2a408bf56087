import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { FormatError, StateError, SyscallError, UsageError } from "../../src/errors.ts";
import { MAX_ENDED_OPERATIONS, MAX_OPERATION_LOG_BYTES } from "../../src/limits.ts";
import { requireOwn, stateFolder } from "../policy/mod.ts";
import { parseEntries } from "./entry-lines.ts";
import { type OperationRecord, recordOf } from "./operation-record.ts";

const SUFFIX = ".log";
const REMEDY = "set XDG_STATE_HOME to a folder of your own";
const UNFINISHED_MS = 60_000;
/** "save-1f3a9c02" */
const NAME = /^(?:save|load|send|receive)-[0-9a-f]{8}\.log$/;

/** How far a running operation is; not durable. */
export interface OperationProgress {
  readonly phase: string;
  readonly done: number;
  readonly total: number;
}

/**
 * The folder with one file for each operation of this user on this host: docs/operations.md has its form.
 *
 * @example new OperationsLog().list().filter(({ outcome }) => outcome === undefined)
 */
export class OperationsLog {
  /** @param folder default: $XDG_STATE_HOME/vhu/operations, else ~/.local/state/vhu/operations */
  constructor(readonly folder = join(stateFolder(), "operations")) {}

  pathOf(id: string): string {
    return join(this.folder, `${id}${SUFFIX}`);
  }

  progressPathOf(id: string): string {
    return join(this.folder, `${id}.progress`);
  }

  /** Of all operations whose log can be read, the newest first. @throws StateError when others can write it */
  list(): OperationRecord[] {
    return this.#ids()
      .flatMap((id) => this.#tryRead(id) ?? [])
      .sort((a, b) => (a.startedAt < b.startedAt ? 1 : -1));
  }

  /**
   * The operation of an id, or of its first letters where no other begins with them.
   * @throws UsageError when there is none, or several; FormatError when its log is damaged; StateError when others can write it
   */
  find(text: string): OperationRecord {
    const ids = this.#ids();
    const found = ids.includes(text) ? [text] : ids.filter((id) => id.startsWith(text));
    const [id, second] = found;
    if (id === undefined || text === "") {
      throw new UsageError(`no operation "${text}" in ${this.folder}; vhu migrate list shows them`);
    }
    if (second !== undefined) throw new UsageError(`"${text}" may be ${found.join(" or ")}: give more of it`);
    return this.read(id);
  }

  /** @throws FormatError, SyscallError */
  read(id: string): OperationRecord {
    this.#requireOwn();
    const path = this.pathOf(id);
    const record = recordOf(id, parseEntries(textOf(path)));
    if (record === undefined) throw new FormatError(`${path} is damaged: its first entry is missing`, "log");
    return record;
  }

  progressOf(id: string): OperationProgress | undefined {
    try {
      const { phase, done, total } = JSON.parse(readFileSync(this.progressPathOf(id), "utf8"));
      return typeof done === "number" && typeof total === "number"
        ? { phase: String(phase), done, total }
        : undefined;
    } catch {
      // Not there, or being written this moment.
      return undefined;
    }
  }

  /** Makes the folder, and forgets the oldest operations that have ended. @throws SyscallError */
  prepare(): void {
    try {
      mkdirSync(this.folder, { recursive: true, mode: 0o700 });
      this.#requireOwn();
      // Where others could only read it, that ends now.
      chmodSync(this.folder, 0o700);
    } catch (error) {
      if (error instanceof StateError) throw error;
      throw new SyscallError(
        "mkdir",
        (error as NodeJS.ErrnoException).code ?? "EIO",
        `${this.folder}, the log of operations; set XDG_STATE_HOME to a folder that can be written`,
      );
    }
    this.#removeUnfinished();
    const ended = this.list().filter(({ outcome }) => outcome !== undefined);
    for (const { id } of ended.slice(MAX_ENDED_OPERATIONS)) {
      rmSync(this.pathOf(id), { force: true });
    }
  }

  /** What a vhu that was killed in the middle of `begin` has left; a living one is done in a moment. */
  #removeUnfinished(): void {
    for (const name of readdirSync(this.folder).filter((each) => each.endsWith(`${SUFFIX}.tmp`))) {
      const path = join(this.folder, name);
      const { mtimeMs = Date.now() } = statSync(path, { throwIfNoEntry: false }) ?? {};
      if (Date.now() - mtimeMs > UNFINISHED_MS) rmSync(path, { force: true });
    }
  }

  /** Whoever could write it could have processes ended, and machines let run. @throws StateError */
  #requireOwn(): void {
    const facts = statSync(this.folder, { throwIfNoEntry: false });
    if (facts !== undefined) requireOwn(`the log ${this.folder}`, facts, REMEDY);
  }

  #ids(): string[] {
    this.#requireOwn();
    try {
      return readdirSync(this.folder)
        .filter((name) => NAME.test(name))
        .map((name) => name.slice(0, -SUFFIX.length));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw new SyscallError("open", (error as NodeJS.ErrnoException).code ?? "EIO", this.folder);
    }
  }

  #tryRead(id: string): OperationRecord | undefined {
    try {
      return this.read(id);
    } catch (error) {
      // Damaged, or forgotten by another vhu meanwhile.
      if (error instanceof FormatError || error instanceof SyscallError) return undefined;
      throw error;
    }
  }
}

function textOf(path: string): string {
  try {
    const facts = statSync(path);
    requireOwn(path, facts, REMEDY);
    if (facts.size > MAX_OPERATION_LOG_BYTES) {
      throw new FormatError(`${path} is larger than any log of an operation`, "log");
    }
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof FormatError || error instanceof StateError) throw error;
    throw new SyscallError("open", (error as NodeJS.ErrnoException).code ?? "EIO", path);
  }
}
