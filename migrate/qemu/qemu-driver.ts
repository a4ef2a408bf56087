import { FormatError, PeerError, StateError } from "../../src/errors.ts";
import type { UnixSocket } from "../../src/sys/mod.ts";
import { ProgramIdentities } from "../backends/mod.ts";
import type { DiskCopies } from "../disks/mod.ts";
import type {
  DiskOverlay,
  MachineDisk,
  MachineOutline,
  MoveOptions,
  PrecopyOptions,
  PreflightCheck,
  VmDescription,
  VmDriver,
  VmSink,
  VmSource,
} from "../driver.ts";
import { LocalPrograms } from "../policy/mod.ts";
import { memoryPieces } from "../ram/mod.ts";
import type { SnapshotManifest } from "../snapshot/mod.ts";
import { backgroundSettings, requireBackgroundFit } from "./background-save.ts";
import { bothOf } from "./both-of.ts";
import { commitOverlay, hasNode } from "./commit-overlay.ts";
import { guestCpuFeatures } from "./cpu-features.ts";
import { describeMachine } from "./describe-machine.ts";
import { dirtyRate } from "./dirty-rate.ts";
import type { DiskCare } from "./disk-care.ts";
import { DiskKeeper } from "./disk-keeper.ts";
import type { DiskMirrors } from "./disk-mirrors.ts";
import { dropMirrors } from "./drop-mirrors.ts";
import { freshBlocks } from "./fresh-memory.ts";
import { IncomingStream } from "./incoming-stream.ts";
import { type MigrationOverrides, MigrationSettings, precopySettings } from "./migration-settings.ts";
import { waitForMigrationEnd } from "./migration-state.ts";
import { type MemoryTarget, openOutgoing } from "./open-outgoing.ts";
import { OpenedBlocks } from "./opened-blocks.ts";
import type { MemoryCollector, OutgoingStream } from "./outgoing-stream.ts";
import { PageCollector } from "./page-collector.ts";
import { PrecopyWatch } from "./precopy-watch.ts";
import { requireFit, requireSameDisks } from "./qemu-fit.ts";
import { parseQemuMachine, type QemuMachine } from "./qemu-machine.ts";
import { qemuPreflight } from "./qemu-preflight.ts";
import { qemuProcess } from "./qemu-process.ts";
import { qemuStorage } from "./qemu-storage.ts";
import { qmpStatus } from "./qmp-answers.ts";
import { QmpClient, type QmpConnectOptions } from "./qmp-client.ts";
import { qmpNothing } from "./qmp-messages.ts";
import { quitVm } from "./quit-vm.ts";
import { readRest } from "./read-rest.ts";
import { isHeld, reclaimVm } from "./reclaim-vm.ts";
import { residentMemory } from "./resident-memory.ts";
import { startMirrors } from "./start-mirrors.ts";
import { readStill } from "./still-save.ts";
import type { RamBlock } from "./stream-format.ts";
import type { ParsedStream } from "./stream-parser.ts";
import { regionsOf } from "./stream-regions.ts";
import { type RamPiece, rebuildStream } from "./stream-writer.ts";

export interface QemuDriverOptions extends QmpConnectOptions {
  /** A move, or the caller copies the disks: what the VM writes later does no harm. */
  readonly areDisksCared?: boolean | undefined;
  /** What is done about the disks that the VM can write; and where copies of them go. */
  readonly disks?: DiskCare | undefined;
  readonly copies?: DiskCopies | undefined;
  /** Which programs this host starts as back-ends: those may be asked for their version. */
  readonly programs?: LocalPrograms | undefined;
  /** Where QEMU reads its incoming stream already: the driver's from now on. Else it waits with -incoming defer. */
  readonly stream?: UnixSocket | undefined;
  /** Load although a disk's file has changed. */
  readonly force?: boolean | undefined;
  /** RAM blocks that QEMU has from vhu already (`startQemu`): they are filled beside the stream. */
  readonly sharedBlocks?: ReadonlySet<string> | undefined;
}

/** QEMU is done with its migration long before; this is for a machine that is busy. */
const END_TIMEOUT_MS = 30_000;
const REST_PIECE_BYTES = 1 << 20;

/** A QEMU virtual machine, through its monitor. */
export class QemuDriver implements VmDriver {
  readonly #client: QmpClient;
  readonly #options: QemuDriverOptions;
  readonly #identities: ProgramIdentities;
  #settings: MigrationSettings | undefined;
  #outgoing: OutgoingStream | undefined;
  #incoming: IncomingStream | undefined;
  /** Blocks of a waiting QEMU that are zeros still. */
  #fresh: ReadonlySet<string> = new Set();
  #earlierState: string | undefined;
  #isReleased = false;
  #keeper: DiskKeeper | undefined;
  #mirrors: DiskMirrors | undefined;
  /** QEMU may have mirrors of its disks. */
  #mayMirror = false;
  /** What `prepareLoad` loaded, or tried to. */
  #loaded: { readonly runState: string } | undefined;

  private constructor(client: QmpClient, options: QemuDriverOptions) {
    this.#client = client;
    this.#options = options;
    this.#identities = new ProgramIdentities(options.programs ?? new LocalPrograms([]));
  }

  /** @throws PeerError when nobody listens there, or another client holds the monitor */
  static async connect(path: string, options: QemuDriverOptions = {}): Promise<QemuDriver> {
    return new QemuDriver(await QmpClient.connect(path, options), options);
  }

  async describe(): Promise<VmDescription> {
    const machine = await describeMachine(this.#client, this.#identities);
    const { name, runState, memoryBytes, virtioDevices } = machine;
    const pid = qemuProcess(this.#client.socketInode, this.#client.peerPid)?.pid;
    const residentBytes = pid === undefined ? undefined : residentMemory(pid);
    return {
      name,
      runState: runState === "running" ? "running" : "suspended",
      isHeld: await isHeld(this.#client),
      memoryBytes,
      ...(residentBytes === undefined ? {} : { residentBytes: Math.min(residentBytes, memoryBytes) }),
      pid,
      devices: virtioDevices.map(({ type, path }) => ({ name: path, type })),
      machine,
    };
  }

  async cpuFeatures(): Promise<readonly string[] | undefined> {
    return guestCpuFeatures(this.#client, await describeMachine(this.#client, this.#identities));
  }

  dirtyRate(milliseconds: number): Promise<number | undefined> {
    return dirtyRate(this.#client, milliseconds);
  }

  async preflight(): Promise<readonly PreflightCheck[]> {
    const canCopy = this.#options.copies !== undefined;
    return qemuPreflight(this.#client, await describeMachine(this.#client, this.#identities), {
      care: this.#care,
      canCopy,
    });
  }

  /** The VM stands still from some point in here until `resume`, or until this process ends. */
  async save(sink: VmSink, options: MoveOptions = {}): Promise<SnapshotManifest> {
    const process = qemuProcess(this.#client.socketInode, this.#client.peerPid);
    using opened = await OpenedBlocks.open(this.#client, process?.pid);
    const collector = new PageCollector(sink, opened);
    return await this.#copy({ sink, collector }, options, {}, (outgoing, _collector, signal) =>
      readStill(outgoing, { collector, opened, sink }, { ...options, signal }),
    );
  }

  /**
   * QEMU's own pre-copy: the VM runs until QEMU believes that the rest fits into `downtimeMaxMs` (30 unless told), and
   * then stands still as after `save`; with `goesOn`, only until QEMU has read its own state.
   */
  async startPrecopy(sink: VmSink, options: PrecopyOptions = {}): Promise<SnapshotManifest> {
    return this.#copy({ sink }, options, precopySettings(options), async (outgoing, collector, outer) => {
      const watch = new PrecopyWatch(this.#client, options);
      const parsed = await watch.beside((signal) => outgoing.read(collector, { ...options, signal }), outer);
      if (options.onStopped !== undefined && this.#mirrors === undefined) this.#tellStop(options.onStopped);
      return parsed;
    });
  }

  async disks(): Promise<readonly MachineDisk[]> {
    return qemuStorage(this.#client, await describeMachine(this.#client, this.#identities));
  }

  async dropDiskCopies(): Promise<void> {
    await dropMirrors(this.#client, "all");
  }

  #tellStop(onStopped: (atMs: number) => void): void {
    const stop = this.#client.takeEvents().findLast(({ name }) => name === "STOP");
    if (stop !== undefined) onStopped(stop.atMs);
  }

  /**
   * QEMU's background-snapshot: the VM stands still for an instant, then runs on while its memory, as it was then, is read.
   * @throws CompatibilityError where QEMU or the host cannot, or a back-end writes to memory behind QEMU's back
   */
  async saveInBackground(sink: VmSink, options: MoveOptions = {}): Promise<SnapshotManifest> {
    requireBackgroundFit(await describeMachine(this.#client, this.#identities), this.#care);
    const goesOn = { ...options, goesOn: true };
    return this.#copy({ sink }, goesOn, backgroundSettings, (outgoing, collector, signal) =>
      outgoing.read(collector, { ...options, signal }),
    );
  }

  /** The VM is over here: QEMU hears that its state arrived. It stays paused until `discard`. */
  async release(): Promise<void> {
    if (this.#outgoing === undefined)
      throw new StateError("the VM was not copied: there is nothing to release");
    this.#outgoing.shut();
    const status = await waitForMigrationEnd(this.#client, END_TIMEOUT_MS);
    this.#closeOutgoing();
    if (status !== "completed")
      throw new PeerError(`QEMU took the end of the save for "${status}", and goes on`);
    // The VM stands still and waits for the other host: settings that nobody needs here any more are not put back.
    this.#isReleased = true;
  }

  async #copy(
    to: MemoryTarget,
    options: PrecopyOptions,
    settings: MigrationOverrides,
    read: (
      outgoing: OutgoingStream,
      collector: MemoryCollector,
      signal: AbortSignal | undefined,
    ) => Promise<ParsedStream>,
  ): Promise<SnapshotManifest> {
    const { sink } = to;
    const machine = await describeMachine(this.#client, this.#identities);
    this.#earlierState = machine.runState;
    const keeper = new DiskKeeper(this.#client, machine, { care: this.#care, copies: this.#options.copies });
    this.#keeper = keeper;
    this.#mayMirror = options.copyDisks !== undefined;
    const mirrors = await startMirrors(this.#client, machine, options);
    this.#mirrors = mirrors;
    await mirrors?.untilReady(options.signal);
    const atSwitchover = mirrors === undefined ? {} : { "pause-before-switchover": true };
    const capabilities = { ...settings.capabilities, ...keeper.settings.capabilities, ...atSwitchover };
    const outgoing = await openOutgoing(this.#client, to, { ...settings, capabilities });
    const { collector, stream } = outgoing;
    [this.#settings, this.#outgoing] = [outgoing.settings, stream];
    const parsed = await (mirrors ?? keeper).beside(async (signal) => {
      try {
        const signals = [signal, outgoing.signal].filter((each) => each !== undefined);
        return await read(stream, collector, AbortSignal.any(signals));
      } catch (error) {
        // QEMU may be in the middle of a write to us and answer nothing meanwhile, what the keeper has asked included (seen).
        this.#closeOutgoing();
        throw error;
      }
    }, options);
    // As they are now that the VM stands still and has flushed them.
    const disks = await bothOf(
      async () => {
        const kept = await keeper.keep(machine.workingFolder, machine.backends, options);
        if (options.goesOn) this.#closeOutgoing();
        return keeper.digest(kept, options);
      },
      async () => {
        await collector.finish();
        writeRest(sink, parsed);
      },
    );
    options.onProgress?.({ phase: "memory", done: collector.totalBytes, total: collector.totalBytes });
    const saved: QemuMachine = {
      ...machine,
      machineType: parsed.machineType,
      disks,
      ...(this.#care === undefined ? {} : { diskCare: this.#care }),
      sections: parsed.sections.map(({ name, sizeBytes }) => ({ name, sizeBytes })),
    };
    const manifest = { machine: saved, devices: [], memory: { totalBytes: collector.totalBytes } };
    sink.writeManifest(manifest);
    keeper.done();
    return manifest;
  }

  /**
   * What can be done before a byte of the machine is known: QEMU is looked at, set up, and waits for its stream.
   * `prepareLoad` does it where it was not done.
   * @throws CompatibilityError when this QEMU is another machine
   */
  async prepareIncoming(outline: Pick<MachineOutline, "machine">): Promise<void> {
    const machine = parseQemuMachine(outline.machine);
    await requireFit(this.#client, machine);
    if (!this.#options.force) requireSameDisks(machine);
    this.#settings = await MigrationSettings.apply(this.#client);
    // Without it, QEMU would let the VM run as soon as it has loaded.
    await this.#client.request("stop", { answer: qmpNothing });
    this.#fresh = await freshBlocks(this.#client);
    this.#loaded = { runState: machine.runState };
    const { stream } = this.#options;
    this.#incoming =
      stream === undefined
        ? await IncomingStream.begin(this.#client)
        : IncomingStream.over(this.#client, stream);
  }

  async prepareLoad(source: VmSource, options: MoveOptions = {}): Promise<void> {
    const { runState } = parseQemuMachine(source.manifest.machine);
    const rest = source.qemuStream();
    if (rest === undefined) throw new FormatError("the snapshot has no QEMU stream", "qemuStream");
    const parsed = readRest(rest);
    const regions = regionsOf(source, parsed.blocks);
    if (this.#incoming === undefined) await this.prepareIncoming({ machine: source.manifest.machine ?? {} });
    this.#loaded = { runState };
    const shared = this.#options.sharedBlocks ?? new Set();
    const stream = rebuildStream(parsed, (block) => {
      const { name, sizeBytes } = parsed.blocks[block] as RamBlock;
      if (shared.has(name)) return [];
      const pieces = piecesOf(source, regions[block] as number, sizeBytes);
      return this.#fresh.has(name) ? withoutZeros(pieces) : pieces;
    });
    const { totalBytes } = source.manifest.memory;
    const onProgress = shared.size === 0 ? options.onProgress : undefined;
    await this.#incoming?.send(stream, totalBytes, { ...options, onProgress });
    this.#closeIncoming();
  }

  /** After a save: as it was before. After a load: as it was when it was saved. */
  async resume(): Promise<void> {
    if (this.#loaded !== undefined) {
      // First the VM, which stands still for as long as this takes.
      if (this.#loaded.runState === "running") await this.#client.request("cont", { answer: qmpNothing });
      await this.#restoreSettings();
      return;
    }
    if (this.#isReleased) throw new StateError("the VM was given up here: it runs elsewhere");
    // Without SHUT, QEMU takes the migration for failed and goes back by itself.
    this.#closeOutgoing();
    if (this.#earlierState === undefined) return;
    // No more is taken: what QEMU still mirrors fails, and no longer holds up its disks.
    this.#mirrors?.[Symbol.dispose]();
    if (this.#mayMirror && (await isHeld(this.#client)))
      await this.#client.request("migrate_cancel", { answer: qmpNothing });
    await waitForMigrationEnd(this.#client, END_TIMEOUT_MS);
    if (this.#mayMirror) await dropMirrors(this.#client, "all");
    await this.#restoreSettings();
    await this.#keeper?.undoUnlessKept();
    const { status } = await this.#client.request("query-status", { answer: qmpStatus });
    if (status === this.#earlierState) return;
    throw new StateError(
      `the VM was ${this.#earlierState} and is ${status} now: QEMU did not go back by itself; send it the QMP command "cont"`,
    );
  }

  async reclaim(to: VmDescription["runState"] = "running"): Promise<void> {
    await reclaimVm(this.#client, to);
  }

  async takeBackOverlays(overlays: readonly DiskOverlay[]): Promise<void> {
    for (const overlay of overlays) {
      if (await hasNode(this.#client, overlay.node)) await commitOverlay(this.#client, overlay);
    }
  }

  /** A loaded VM is paused until `resume`; only QEMU's settings are put back. */
  async leavePrepared(): Promise<void> {
    await this.#restoreSettings();
  }

  async discard(): Promise<void> {
    if (this.#outgoing !== undefined) await this.release();
    else if (this.#loaded === undefined && !this.#isReleased) return;
    await quitVm(this.#client);
  }

  [Symbol.dispose](): void {
    this.#mirrors?.[Symbol.dispose]();
    this.#closeOutgoing();
    this.#closeIncoming();
    this.#client[Symbol.dispose]();
  }

  get #care(): DiskCare | undefined {
    return this.#options.disks ?? (this.#options.areDisksCared ? "external" : undefined);
  }

  #closeOutgoing(): void {
    this.#outgoing?.[Symbol.dispose]();
    this.#outgoing = undefined;
  }

  #closeIncoming(): void {
    this.#incoming?.[Symbol.dispose]();
    this.#options.stream?.[Symbol.dispose]();
    this.#incoming = undefined;
  }

  async #restoreSettings(): Promise<void> {
    await this.#settings?.restore();
    this.#settings = undefined;
  }
}

function writeRest(sink: VmSink, { rest }: ParsedStream): void {
  const stream = sink.writeQemuStream();
  for (let at = 0; at < rest.length; at += REST_PIECE_BYTES) {
    stream.write(rest.subarray(at, at + REST_PIECE_BYTES));
  }
  stream.finish();
}

/** Memory that came before the rest is in a memfd, what did not is in the snapshot. */
function* piecesOf(source: VmSource, regionId: number, sizeBytes: number): Generator<RamPiece, void> {
  if (source.takeMemory === undefined) {
    yield* source.memory(regionId);
    return;
  }
  using memory = source.takeMemory(regionId);
  yield* memoryPieces(memory, sizeBytes);
}

function* withoutZeros(pieces: Iterable<RamPiece>): Generator<RamPiece, void> {
  for (const piece of pieces) if ("bytes" in piece) yield piece;
}
