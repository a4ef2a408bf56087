import type { SnapshotManifest, SnapshotReader, SnapshotWriter } from "./snapshot/mod.ts";

/** Where a driver puts what it saves: the writing side of a snapshot. */
export type VmSink = Pick<
  SnapshotWriter,
  | "writeMemoryMap"
  | "lookUpPages"
  | "writeMemory"
  | "writeHole"
  | "nextMemoryPass"
  | "writeDeviceState"
  | "writeQemuStream"
  | "writeMachineState"
  | "writeManifest"
>;

/** Where a driver takes what it loads from: the reading side of a snapshot, its root verified. */
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
>;

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
  readonly memoryBytes: number;
  readonly devices: readonly { readonly name: string; readonly type: string }[];
}

export interface MoveOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called now and then with the bytes done of the bytes to do. */
  readonly onProgress?:
    | ((progress: { readonly phase: string; readonly done: number; readonly total: number }) => void)
    | undefined;
}

/**
 * One virtual machine, whoever runs it. `save`, `load`, `send` and `receive` know nothing else.
 *
 * Order of a save: describe, preflight, save, then resume or discard. Order of a load: prepareLoad, then resume or discard.
 */
export interface VmDriver extends Disposable {
  describe(): Promise<VmDescription>;
  /** Looks whether it can be saved, touching nothing. */
  preflight(): Promise<readonly PreflightCheck[]>;
  /** Suspends the machine and gives everything to `sink`. It stays suspended. */
  save(sink: VmSink, options?: MoveOptions): Promise<SnapshotManifest>;
  /** Builds the machine from `source` up to the point where only `resume` is missing. */
  prepareLoad(source: VmSource, options?: MoveOptions): Promise<void>;
  /** Lets the machine run (again). After a failed save: as it was before. */
  resume(): Promise<void>;
  /** Leaves a prepared machine as it is, for somebody to resume later. */
  leavePrepared(): Promise<void>;
  /** Ends the machine: the source after `--stop`, or what a failed load has built. */
  discard(): Promise<void>;
}
