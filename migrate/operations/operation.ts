import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { StateError, SyscallError } from "../../src/errors.ts";
import { type Fd, hostIdentity, identityOf, lockBytes, O, openFile, syncFile } from "../../src/sys/mod.ts";
import type { OperationEntry, OperationFacts, OperationKind, OperationOutcome } from "./entry.ts";
import { entryLine } from "./entry-lines.ts";
import { type OperationRecord, recordOf, withEntry } from "./operation-record.ts";
import type { OperationProgress, OperationsLog } from "./operations-log.ts";

export interface OperationStart {
  readonly kind: OperationKind;
  /** Addresses as on the command line. */
  readonly source: string;
  readonly target: string;
  readonly facts?: OperationFacts | undefined;
}

/** Often enough for somebody who looks. */
const PROGRESS_INTERVAL_MS = 500;

/**
 * One operation of this process, in the log. What is about to happen is on disk before `begin` and `phase` return: so call
 * them before the first side effect of what they name. While it is open, it holds a lock on its file; `end` closes it. Disposed
 * of without `end`, or killed, it is "interrupted".
 *
 * @example
 * using operation = Operation.begin(new OperationsLog(), { kind: "save", source: "machine:/run/m", target: "m.vhu" });
 * operation.phase("saving", { earlierRunState: "running" });
 * operation.end({ result: "done", message: "m.vhu is whole" });
 */
export class Operation implements Disposable {
  #record: OperationRecord;
  #progressAt = Number.NEGATIVE_INFINITY;

  private constructor(
    readonly log: OperationsLog,
    readonly fd: Fd,
    record: OperationRecord,
  ) {
    this.#record = record;
  }

  /** @throws SyscallError when the log cannot be written: nothing must happen that is not in it */
  static begin(log: OperationsLog, { kind, source, target, facts = {} }: OperationStart): Operation {
    log.prepare();
    const id = `${kind}-${crypto.randomUUID().slice(0, 8)}`;
    const path = log.pathOf(id);
    const entry: OperationEntry = {
      ...{ entry: "begin", version: 1, kind, source, target, facts },
      ...{ owner: ownIdentity(), host: hostIdentity(), at: now() },
    };
    using stack = new DisposableStack();
    const temporaryPath = `${path}.tmp`;
    const fd = stack.use(openFile(temporaryPath, O.RDWR | O.CREAT | O.EXCL | O.APPEND));
    lock(fd);
    write(fd, entryLine(entry));
    syncFile(fd);
    renameSync(temporaryPath, path);
    syncFolder(log.folder);
    stack.move();
    return new Operation(log, fd, recordOf(id, [entry]) as OperationRecord);
  }

  /**
   * Takes up an operation whose process is gone, to recover it.
   * @throws StateError while its process, or another recovery, holds it
   */
  static takeUp(log: OperationsLog, id: string): Operation {
    using stack = new DisposableStack();
    const fd = stack.use(openFile(log.pathOf(id), O.RDWR | O.APPEND));
    if (!lock(fd)) throw new StateError(`${id} is under way: another vhu holds it`);
    const operation = new Operation(log, fd, log.read(id));
    // What was torn off when the process was killed ends here.
    write(fd, "\n");
    operation.#append({ entry: "taken-up", owner: ownIdentity(), host: hostIdentity(), at: now() });
    stack.move();
    return operation;
  }

  get id(): string {
    return this.#record.id;
  }

  get record(): OperationRecord {
    return this.#record;
  }

  /** What comes next, durably; call it before. */
  phase(phase: string, facts: OperationFacts = {}): void {
    this.#append({ entry: "phase", phase, at: now(), facts });
  }

  /** As `phase`, where recovery does the same without it: durable with the next one. */
  note(phase: string, facts: OperationFacts = {}): void {
    this.#write({ entry: "phase", phase, at: now(), facts });
  }

  /** A process that this operation has started just now. */
  started(role: string, pid: number): void {
    const identity = identityOf(pid);
    if (identity !== undefined) this.phase(this.#record.phase, { started: [{ role, ...identity }] });
  }

  /** For whoever looks meanwhile; written now and then, not durable. */
  progress(progress: OperationProgress): void {
    const nowMs = performance.now();
    if (nowMs - this.#progressAt < PROGRESS_INTERVAL_MS) return;
    this.#progressAt = nowMs;
    writeFileSync(this.log.progressPathOf(this.id), JSON.stringify(progress), { mode: 0o600 });
  }

  end(outcome: OperationOutcome): void {
    this.#append({ entry: "end", at: now(), outcome });
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    if (!this.fd.isOpen) return;
    rmSync(this.log.progressPathOf(this.id), { force: true });
    this.fd[Symbol.dispose]();
  }

  #append(entry: OperationEntry): void {
    this.#write(entry);
    syncFile(this.fd);
  }

  #write(entry: OperationEntry): void {
    write(this.fd, entryLine(entry));
    this.#record = withEntry(this.#record, entry);
  }
}

/** Where the file system has no locks, the owner's process has to tell whether it lives. */
function lock(fd: Fd): boolean {
  try {
    return lockBytes(fd, "write", 0, 1);
  } catch (error) {
    if (error instanceof SyscallError) return true;
    throw error;
  }
}

function ownIdentity() {
  const identity = identityOf(process.pid);
  if (identity !== undefined) return identity;
  throw new SyscallError("open", "ENOENT", "/proc/self/stat: is /proc mounted?");
}

function now(): string {
  return new Date().toISOString();
}

function write(fd: Fd, text: string): void {
  const bytes = Buffer.from(text);
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd.number, bytes, done);
  } catch (error) {
    throw new SyscallError("write", (error as NodeJS.ErrnoException).code ?? "EIO", fd.label);
  }
}

function syncFolder(folder: string): void {
  const fd = openSync(folder, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
