import { CompatibilityError, PeerError } from "../../src/errors.ts";
import { Convergence } from "../convergence.ts";
import type { DiskSink, PrecopyOptions } from "../driver.ts";
import { NbdServer } from "../storage/mod.ts";
import { dropMirrors, MIRROR_PREFIX } from "./drop-mirrors.ts";
import { qmpJobEnd, qmpJobs } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { QmpError } from "./qmp-error.ts";
import { qmpNothing } from "./qmp-messages.ts";

const POLL_MS = 50;
/** The connection is made while QEMU answers. */
const ADD_TIMEOUT_MS = 30_000;
/** A live move takes as long as it takes. */
const SWITCHOVER_TIMEOUT_MS = 24 * 3600_000;
/** What is left of a mirror is what is under way: little; but the way may be slow, or broken for a while. */
const COMPLETE_TIMEOUT_MS = 15 * 60_000;

/** A disk of a VM that is mirrored. */
export interface MirroredDisk {
  /** QEMU's name of its node. */
  readonly node: string;
  readonly sizeBytes: number;
  /** The sink's number of it. */
  readonly disk: number;
}

export interface MirrorOptions {
  /** QEMU's, where it is another user's. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * QEMU's own mirror of disks, into an NBD server of vhu's that gives what is written to a sink. Once a mirror is as its disk,
 * each write of the guest goes to both before it is acknowledged, so that nothing is left over but what is under way.
 */
export class DiskMirrors implements Disposable {
  readonly #client: QmpClient;
  readonly #server: NbdServer;
  readonly #jobs: readonly string[];

  private constructor(client: QmpClient, server: NbdServer, jobs: readonly string[]) {
    this.#client = client;
    this.#server = server;
    this.#jobs = jobs;
  }

  /**
   * Begins all mirrors. What it made in QEMU stays until `drop`, also where it fails.
   * @throws CompatibilityError where QEMU cannot mirror a disk; StateError where somebody else does
   */
  static async start(
    client: QmpClient,
    disks: readonly MirroredDisk[],
    sink: DiskSink,
    { user, signal }: MirrorOptions,
  ): Promise<DiskMirrors> {
    await dropMirrors(client, "left");
    const id = crypto.randomUUID().slice(0, 8);
    const names = disks.map((_, index) => `${MIRROR_PREFIX}${id}-${index}`);
    const exports = new Map(
      disks.map(({ disk, sizeBytes }, index) => [
        names[index] as string,
        {
          sizeBytes,
          write: (offset: number, bytes: Uint8Array) => sink.write(disk, offset, bytes),
          zero: (offset: number, size: number) => sink.zero(disk, offset, size),
        },
      ]),
    );
    using stack = new DisposableStack();
    const server = stack.use(await NbdServer.listen(exports, user));
    const mirrors = new DiskMirrors(client, server, names);
    for (const [index, { node }] of disks.entries()) {
      await mirrors.#begin(names[index] as string, node, signal);
    }
    stack.move();
    return mirrors;
  }

  /** Until each mirror is as its disk, and stays so. @throws PeerError when one breaks off */
  async untilReady(signal: AbortSignal | undefined): Promise<void> {
    const convergence = new Convergence();
    const together = new Set<string>();
    for (;;) {
      const jobs = await this.#own();
      await this.#requireAll(jobs);
      const left = jobs.reduce((sum, { len = 0, offset = 0 }) => sum + len - offset, 0);
      // A guest that writes as fast as is copied has to wait for the copy.
      const isStalled = !convergence.add(left, false);
      for (const { device, ready } of jobs) {
        if ((!ready && !isStalled) || together.has(device)) continue;
        together.add(device);
        await this.#writeTogether(device);
      }
      if (jobs.every(({ ready }) => ready)) return;
      await Bun.sleep(POLL_MS);
      signal?.throwIfAborted();
    }
  }

  /**
   * Does `read`, which takes the VM's stream, and meanwhile ends the mirrors when the VM has stopped: QEMU goes on only when
   * they are as the disks are then.
   */
  async beside<T>(
    read: (signal: AbortSignal | undefined) => Promise<T>,
    { signal, onStopped }: Pick<PrecopyOptions, "signal" | "onStopped">,
  ): Promise<T> {
    const [isOver, failed] = [new AbortController(), new AbortController()];
    const ended = this.#endAtSwitchover(isOver.signal, onStopped).catch((error: unknown) =>
      failed.abort(error),
    );
    try {
      const result = await read(AbortSignal.any([failed.signal, ...(signal === undefined ? [] : [signal])]));
      await ended;
      failed.signal.throwIfAborted();
      return result;
    } finally {
      isOver.abort();
      await ended;
    }
  }

  /** Ends what is left of them in QEMU. */
  async drop(): Promise<void> {
    this[Symbol.dispose]();
    await dropMirrors(this.#client, "all");
  }

  /** No more is taken: mirrors that are left fail, and the VM goes on. */
  [Symbol.dispose](): void {
    this.#server[Symbol.dispose]();
  }

  async #begin(name: string, node: string, signal: AbortSignal | undefined): Promise<void> {
    const target = {
      ...{ driver: "nbd", "node-name": name, export: name, discard: "unmap" },
      server: { type: "unix", path: this.#server.path },
    };
    const mirror = {
      ...{ "job-id": name, device: node, target: name, sync: "full" },
      ...{ "on-source-error": "report", "on-target-error": "report" },
    };
    try {
      const options = { answer: qmpNothing, timeoutMs: ADD_TIMEOUT_MS, signal };
      await this.#client.request("blockdev-add", { ...options, arguments: target });
      await this.#client.request("blockdev-mirror", { ...options, arguments: mirror });
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      throw new CompatibilityError(`QEMU cannot mirror its disk ${node}: ${error.message}`, { cause: error });
    }
  }

  /** From now on a write is acknowledged when both have it. QEMU before 8.2 cannot: there the rest may be more. */
  async #writeTogether(id: string): Promise<void> {
    const change = { id, type: "mirror", "copy-mode": "write-blocking" };
    try {
      await this.#client.request("block-job-change", { answer: qmpNothing, arguments: change });
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
    }
  }

  async #endAtSwitchover(
    signal: AbortSignal,
    onStopped: ((atMs: number) => void) | undefined,
  ): Promise<void> {
    const isPreSwitchover = (data: unknown) =>
      (data as { status?: unknown } | undefined)?.status === "pre-switchover";
    const stopped = await this.#client.waitForEvent(
      "MIGRATION",
      SWITCHOVER_TIMEOUT_MS,
      isPreSwitchover,
      signal,
    );
    onStopped?.(stopped.atMs);
    await this.#complete(signal);
    const goOn = { answer: qmpNothing, arguments: { state: "pre-switchover" } };
    await this.#client.request("migrate-continue", goOn);
  }

  /** Of a mirror that is as its disk, a cancel is the end: what is under way is brought first. */
  async #complete(signal: AbortSignal): Promise<void> {
    await this.#requireAll(await this.#own());
    const ended = new Map<string, string | undefined>();
    for (const device of this.#jobs) {
      await this.#client.request("block-job-cancel", { answer: qmpNothing, arguments: { device } });
    }
    const note = (data: unknown) => {
      const end = qmpJobEnd.safeParse(data);
      if (end.success && this.#jobs.includes(end.data.device)) ended.set(end.data.device, end.data.error);
      return ended.size === this.#jobs.length;
    };
    await this.#client.waitForEvent("BLOCK_JOB_COMPLETED", COMPLETE_TIMEOUT_MS, note, signal);
    const fault = [...ended.values()].find((error) => error !== undefined) ?? this.#server.failure?.message;
    if (fault !== undefined) throw new PeerError(`a mirror of a disk did not come to its end: ${fault}`);
  }

  async #own() {
    const jobs = await this.#client.request("query-block-jobs", { answer: qmpJobs });
    return jobs.filter(({ device }) => this.#jobs.includes(device));
  }

  async #requireAll(jobs: readonly unknown[]): Promise<void> {
    if (jobs.length === this.#jobs.length) return;
    const end = this.#client
      .takeEvents()
      .filter(({ name }) => name === "BLOCK_JOB_COMPLETED")
      .map(({ data }) => qmpJobEnd.safeParse(data).data)
      .find((found) => found !== undefined && this.#jobs.includes(found.device));
    const why = this.#server.failure?.message ?? end?.error ?? "its job is gone";
    throw new PeerError(`the mirror of a disk broke off: ${why}`, { cause: this.#server.failure });
  }
}
