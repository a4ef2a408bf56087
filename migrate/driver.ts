import type { Fd } from "../src/sys/mod.ts";
import type { PageChannels } from "./multifd/mod.ts";
import type { SnapshotManifest, SnapshotReader, SnapshotRegion, SnapshotWriter } from "./snapshot/mod.ts";

/** Where a driver puts what it saves: the writing side of a snapshot. */
export type VmSink = Pick<
  SnapshotWriter,
  | "writeMemoryMap"
  | "lookUpPages"
  | "writeMemory"
  | "writeHole"
  | "writeUnchanged"
  | "baseRoot"
  | "nextMemoryPass"
  | "writeDeviceState"
  | "writeQemuStream"
  | "writeMachineState"
  | "writeManifest"
> & {
  /** Where it takes memory from QEMU's multifd channels by itself, and not by `writeMemory`. */
  readonly channels?: PageChannels | undefined;
};

/** Where a driver takes what it loads from: the reading side of a snapshot or of a live migration, verified. */
export type VmSource = Pick<
  SnapshotReader,
  | "manifest"
  | "memoryMap"
  | "memory"
  | "extents"
  | "loadRegion"
  | "deviceState"
  | "qemuStream"
  | "machineState"
> & {
  /** Where the memory came first (a live migration): the memfd that holds the region, the caller's from now on. */
  readonly takeMemory?: ((regionId: number) => Fd) | undefined;
};

/** What a machine is built from before its memory is known: a snapshot's manifest has it, and a sender's first message. */
export interface MachineOutline {
  readonly machine: Readonly<Record<string, unknown>>;
  readonly memoryMap: readonly SnapshotRegion[];
}

/** One pass over the memory of a machine that runs; passes too short to be seen are in the report of the next one. */
export interface PassReport {
  /** 0 is the pass over all of it. */
  readonly passNumber: number;
  readonly sentBytes: number;
  /** What the machine has changed meanwhile, and the next pass has to bring. */
  readonly dirtyBytes: number;
  readonly milliseconds: number;
  /** How fast the machine changes its memory, where that is known. */
  readonly dirtyBytesPerSecond?: number | undefined;
  /** How much of its time the machine is held up, to let the copying catch up. */
  readonly throttlePercent?: number | undefined;
}

/** A disk of a machine, as a host that does not have it would have to get it. */
export interface MachineDisk {
  /** What the machine calls it. */
  readonly name: string;
  /** Of its file or block device; undefined where vhu does not know where its content is. */
  readonly path: string | undefined;
  readonly format: "raw" | "qcow2";
  /** As the machine sees it, and what of it is in use as far as the host can see. */
  readonly virtualBytes: number;
  readonly usedBytes: number;
  readonly readOnly: boolean;
  /** Why it cannot be copied while the machine runs. */
  readonly obstacle?: string | undefined;
}

/** Where the content of disks goes. Bytes must stay unchanged until the promise is over; no two calls under way may overlap. */
export interface DiskSink {
  /** So many calls under way at once go faster than one. */
  readonly parallel: number;
  write(disk: number, offset: number, bytes: Uint8Array): Promise<void>;
  zero(disk: number, offset: number, sizeBytes: number): Promise<void>;
}

/** Disks that are copied along with their machine: their paths, in the order in which the sink counts them. */
export interface DiskCopying {
  readonly paths: readonly string[];
  readonly sink: DiskSink;
}

/** One thing that was looked at before anything is touched. */
export interface PreflightCheck {
  readonly name: string;
  readonly ok: boolean;
  /** What was found; where it failed, what to do about it. */
  readonly detail: string;
}

/** What a driver is asked to move, in bytes; `undefined` where it is not known before. */
export interface VmDescription {
  readonly name: string;
  readonly runState: "running" | "suspended";
  /** It stands still in the middle of a save, and does not go on by itself should that be broken off: `reclaim` has to. */
  readonly isHeld?: boolean | undefined;
  readonly memoryBytes: number;
  /** The machine's process, where it is known. */
  readonly pid?: number | undefined;
  /** Of those, what is in use as far as the host can see. */
  readonly residentBytes?: number | undefined;
  readonly devices: readonly { readonly name: string; readonly type: string }[];
  /** What it is built from, as a manifest has it; undefined where it is no whole machine. */
  readonly machine?: Readonly<Record<string, unknown>> | undefined;
}

/** A new file that a VM goes on over: its disk's own file, `base`, is not written any more. */
export interface DiskOverlay {
  readonly path: string;
  readonly base: string;
  /** What the VMM calls the two. */
  readonly node: string;
  readonly baseNode: string;
}

export interface MoveOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told how many pages may differ from the sink's base, where a dirty log knows it: the others are not looked at. */
  readonly onChangedPages?: ((count: number) => void) | undefined;
  /** Told before the VM gets overlays, which have to be taken back if nothing comes of the save. */
  readonly onOverlays?: ((overlays: readonly DiskOverlay[]) => void) | undefined;
  /** Called now and then with the bytes done of the bytes to do. */
  readonly onProgress?:
    | ((progress: { readonly phase: string; readonly done: number; readonly total: number }) => void)
    | undefined;
}

/** Milliseconds that a machine may stand still where nobody has said it: as long as QEMU's default is short of it. */
export const DEFAULT_DOWNTIME_MAX_MS = 30;

/** How a machine is copied while it runs. */
export interface PrecopyOptions extends MoveOptions {
  /** The machine is stopped once the rest is expected to take no longer than this. */
  readonly downtimeMaxMs?: number | undefined;
  readonly bandwidthMaxBytes?: number | undefined;
  /** Slow the machine down until it converges: true, or "dirty-limit" where KVM can hold up single CPUs by what they write. */
  readonly throttle?: boolean | "dirty-limit" | undefined;
  /** It is a copy and no move: the machine goes on as soon as its state was taken, while that is on its way to the sink. */
  readonly goesOn?: boolean | undefined;
  readonly onPass?: ((report: PassReport) => void) | undefined;
  /** Copy these disks as well: what is in the sink when the machine stands still is what they are then. */
  readonly copyDisks?: DiskCopying | undefined;
  /** Told when the machine stopped, in milliseconds since the epoch; soon after it did. */
  readonly onStopped?: ((atMs: number) => void) | undefined;
}

/**
 * One virtual machine, whoever runs it. `save`, `load`, `send` and `receive` know nothing else.
 *
 * Order of a save: describe, preflight, save, then resume or discard. Order of a load: prepareLoad, then resume or discard.
 */
export interface VmDriver extends Disposable {
  describe(): Promise<VmDescription>;
  /** How fast it changes its memory, in bytes a second, looked at for so long; undefined where that is not known before. */
  dirtyRate?(milliseconds: number): Promise<number | undefined>;
  /** What its processor has, by QEMU's names; undefined where that is not known. */
  cpuFeatures?(): Promise<readonly string[] | undefined>;
  /** Looks whether it can be saved, touching nothing. */
  preflight(): Promise<readonly PreflightCheck[]>;
  /** Its disks, and whatever else has content outside of the machine that a move would have to bring. */
  disks?(): Promise<readonly MachineDisk[]>;
  /** Recovery's: removes what a copy of disks has left in a machine whose vhu was killed. */
  dropDiskCopies?(): Promise<void>;
  /** Suspends the machine and gives everything to `sink`. It stays suspended. */
  save(sink: VmSink, options?: MoveOptions): Promise<SnapshotManifest>;
  /**
   * The machine, suspended since `save`, is safe in the snapshot with this root: from here on it notes which pages change, so
   * that a save based on that snapshot need not look at the others. Returns why it cannot, where it cannot.
   */
  noteSaved?(root: string): Promise<string | undefined>;
  /**
   * As `save`, but the machine runs while its memory is copied in passes, and stands still for the last one only.
   * @throws NotConvergingError when they lead nowhere; CompatibilityError where this machine cannot be copied so
   */
  startPrecopy(sink: VmSink, options?: PrecopyOptions): Promise<SnapshotManifest>;
  /** As `save`, but the machine runs on from the moment that is saved, where it can: it holds up its own writes. */
  saveInBackground?(sink: VmSink, options?: MoveOptions): Promise<SnapshotManifest>;
  /**
   * After `save` or `startPrecopy`, when it was loaded elsewhere: the machine gives up running here, for good. Until then
   * it goes on by itself, whoever dies.
   */
  release(): Promise<void>;
  /** Builds the machine from `source` up to the point where only `resume` is missing. */
  prepareLoad(source: VmSource, options?: MoveOptions): Promise<void>;
  /** Lets the machine run (again). After a failed save: as it was before. */
  resume(): Promise<void>;
  /**
   * Recovery's: brings a machine back that somebody else has left suspended, held, prepared or given up, so that it runs (unless
   * told otherwise). Nobody calls it while another host may run the machine.
   */
  reclaim(to?: VmDescription["runState"]): Promise<void>;
  /** Recovery's: what was written to overlays of a save that broke off goes back into the disks' files. */
  takeBackOverlays?(overlays: readonly DiskOverlay[]): Promise<void>;
  /** Leaves a prepared machine as it is, for somebody to resume later. */
  leavePrepared(): Promise<void>;
  /** Ends the machine: the source after `--stop`, or what a failed load has built. */
  discard(): Promise<void>;
}
