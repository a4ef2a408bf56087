import type { DiskCopies, DiskCopy } from "../disks/mod.ts";
import type { DiskOverlay, MoveOptions } from "../driver.ts";
import { commitOverlay } from "./commit-overlay.ts";
import { type DiskCare, writableDisks } from "./disk-care.ts";
import { fileFacts, machineDisks } from "./machine-disks.ts";
import type { MigrationOverrides } from "./migration-settings.ts";
import type { QemuDisk, QemuMachine } from "./qemu-machine.ts";
import type { QmpClient } from "./qmp-client.ts";
import { qmpNothing } from "./qmp-messages.ts";

/** QEMU stops the VM as soon as it has looked at its memory once; a live save takes as long as it takes. */
const SWITCHOVER_TIMEOUT_MS = 24 * 3600_000;
const SNAPSHOT_TIMEOUT_MS = 60_000;

interface Overlay extends DiskOverlay {
  readonly disk: QemuDisk;
}

export interface DiskKeeperOptions {
  readonly care: DiskCare | undefined;
  readonly copies: DiskCopies | undefined;
}

/** Keeps the disks of a VM as they are at the moment of its save. */
export class DiskKeeper {
  readonly #client: QmpClient;
  readonly #overlays: Overlay[];
  readonly #copied: readonly QemuDisk[];
  readonly #copies: DiskCopies | undefined;
  readonly #made = new Map<QemuDisk, DiskCopy>();
  #isFrozen = false;
  #isDone = false;

  constructor(client: QmpClient, machine: QemuMachine, { care, copies }: DiskKeeperOptions) {
    this.#client = client;
    this.#copies = copies;
    const disks = writableDisks(machine);
    const id = crypto.randomUUID().slice(0, 8);
    const isOverlaid = (disk: QemuDisk) => care === "overlay" && disk.backend === undefined;
    this.#overlays = disks.filter(isOverlaid).map((disk, at) => ({
      disk,
      path: `${disk.path}.vhu-${id}.qcow2`,
      base: disk.path,
      node: `vhu-${id}-${at}`,
      // Without a node of its own a disk does not pass the preflight.
      baseNode: disk.node ?? "",
    }));
    this.#copied = care === "include" || care === "overlay" ? disks.filter((disk) => !isOverlaid(disk)) : [];
  }

  /** QEMU is to wait between stopping the VM and sending its last state: block nodes can be changed only there. */
  get settings(): MigrationOverrides {
    return this.#overlays.length === 0 ? {} : { capabilities: { "pause-before-switchover": true } };
  }

  /** Does `read`, which takes the stream, and meanwhile freezes the disks when the VM has stopped. */
  async beside<T>(
    read: (signal: AbortSignal | undefined) => Promise<T>,
    { signal, onOverlays }: MoveOptions,
  ): Promise<T> {
    if (this.#overlays.length === 0) return read(signal);
    onOverlays?.(this.#overlays.map(({ path, base, node, baseNode }) => ({ path, base, node, baseNode })));
    const [isOver, failed] = [new AbortController(), new AbortController()];
    const frozen = this.#freezeAtSwitchover(isOver.signal).catch((error: unknown) => failed.abort(error));
    try {
      const result = await read(AbortSignal.any([failed.signal, ...(signal === undefined ? [] : [signal])]));
      await frozen;
      failed.signal.throwIfAborted();
      return result;
    } finally {
      isOver.abort();
      await frozen;
    }
  }

  /**
   * Runs beside the stream: when the VM has stopped, all disks get their overlays at once, and the migration goes on. Both
   * are asked for in one go. Should vhu die in between, QEMU may forget the second (it drops what a client that is gone has asked
   * for) and stands still: `reclaim` ends that.
   */
  async #freezeAtSwitchover(signal: AbortSignal): Promise<void> {
    await this.#client.waitForEvent("MIGRATION", SWITCHOVER_TIMEOUT_MS, isPreSwitchover, signal);
    const actions = this.#overlays.map(({ path, node, baseNode }) => ({
      type: "blockdev-snapshot-sync",
      data: {
        "node-name": baseNode,
        "snapshot-file": path,
        "snapshot-node-name": node,
        format: "qcow2",
      },
    }));
    const frozen = this.#client.request("transaction", {
      answer: qmpNothing,
      arguments: { actions },
      timeoutMs: SNAPSHOT_TIMEOUT_MS,
    });
    const goesOn = this.#client.request("migrate-continue", {
      answer: qmpNothing,
      arguments: { state: "pre-switchover" },
      timeoutMs: SNAPSHOT_TIMEOUT_MS,
    });
    const [first, second] = await Promise.allSettled([frozen, goesOn]);
    if (first.status === "rejected") throw first.reason;
    this.#isFrozen = true;
    if (second.status === "rejected") throw second.reason;
  }

  /** The disks as the snapshot names them. The VM stands still. */
  async keep(
    workingFolder: string | undefined,
    backends: QemuMachine["backends"],
    options: MoveOptions = {},
  ): Promise<QemuDisk[]> {
    const kept: QemuDisk[] = [];
    for (const disk of await machineDisks(this.#client, backends ?? [], workingFolder)) {
      const overlay = this.#overlays.find(({ path }) => path === disk.path);
      if (overlay !== undefined) {
        // The VM goes on over the overlay; its file stays as it is.
        kept.push({ ...overlay.disk, ...fileFacts(overlay.disk.path), frozen: true, wentOnAt: overlay.path });
        continue;
      }
      const isCopied = this.#copied.some(({ device, path }) => device === disk.device && path === disk.path);
      kept.push(isCopied ? await this.#copy(disk, options) : disk);
    }
    return kept;
  }

  /** The copies are as they stay: the VM may go on. */
  async digest(disks: readonly QemuDisk[], options: MoveOptions = {}): Promise<QemuDisk[]> {
    const digested: QemuDisk[] = [];
    for (const disk of disks) {
      const made = this.#made.get(disk);
      if (disk.copy === undefined || made === undefined || made.key !== undefined) {
        digested.push(disk);
        continue;
      }
      const total = disk.copy.fileBytes;
      const digest = await (this.#copies as DiskCopies).digest(made, {
        signal: options.signal,
        onProgress: (done) => options.onProgress?.({ phase: "disks", done, total }),
      });
      digested.push({ ...disk, copy: { ...disk.copy, digest } });
    }
    return digested;
  }

  /** The snapshot has what it needs of them. */
  done(): void {
    this.#isDone = true;
  }

  /** Where nothing came of the save, what the VM has written to overlays goes back into its files, and they go away. */
  async undoUnlessKept(): Promise<void> {
    if (!this.#isFrozen || this.#isDone) return;
    this.#isFrozen = false;
    for (const overlay of this.#overlays) await commitOverlay(this.#client, overlay);
  }

  async #copy(disk: QemuDisk, options: MoveOptions): Promise<QemuDisk> {
    const sizeBytes = disk.fileBytes === undefined || disk.fileBytes === 0 ? disk.sizeBytes : disk.fileBytes;
    const onProgress = (done: number) => options.onProgress?.({ phase: "disks", done, total: sizeBytes });
    const copies = this.#copies as DiskCopies;
    const made = await copies.add(disk.backend ?? disk.node ?? disk.device, disk.path, sizeBytes, {
      signal: options.signal,
      onProgress,
    });
    const { file, path, key } = made;
    const { fileBytes = 0, modifiedNs = "" } = fileFacts(path);
    const copied = {
      ...disk,
      copy: { file, fileBytes, modifiedNs, ...(key === undefined ? {} : { key }) },
    };
    this.#made.set(copied, made);
    return copied;
  }
}

function isPreSwitchover(data: unknown): boolean {
  return (data as { status?: unknown } | undefined)?.status === "pre-switchover";
}
