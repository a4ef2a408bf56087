import { CompatibilityError } from "../src/errors.ts";
import { identityOf } from "../src/sys/mod.ts";
import type { PrecopyOptions, PreflightCheck, VmDriver } from "./driver.ts";
import type { Operation, OperationFacts } from "./operations/mod.ts";
import type { OwnSnapshots } from "./policy/mod.ts";
import {
  type NewFileKey,
  type SnapshotManifest,
  type SnapshotReader,
  type SnapshotSummary,
  SnapshotWriter,
} from "./snapshot/mod.ts";

export interface SaveOptions extends PrecopyOptions {
  /** "background": it goes on from the very moment that is saved. "live": the machine runs while its memory is copied, and goes on before the snapshot is whole, unless it is to stop. */
  readonly mode?: "stopped" | "live" | "background" | undefined;
  /**
   * What the machine does once the snapshot is safe: "resume" (default), "stop", or "stay" suspended for as long as the
   * driver lives.
   */
  readonly after?: "resume" | "stop" | "stay" | undefined;
  readonly writer: { readonly name: string; readonly version: string };
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** An earlier snapshot of the machine: only what changed since is stored. Stays open during the save. */
  readonly base?: SnapshotReader | undefined;
  /** Prepare for a save that is based on this one: with a hash of each page, and the machine notes what changes where it can. */
  readonly track?: boolean | undefined;
  /** From `newFileKey`: encrypts the snapshot. */
  readonly fileKey?: NewFileKey | undefined;
  /** Where the snapshot is noted as this host's own. */
  readonly own?: OwnSnapshots | undefined;
  /** The log gets each phase before it begins. */
  readonly operation?: Operation | undefined;
}

/** A dirty log knows the pages that may have changed; without one, all are compared: by their hashes, or byte by byte. */
export type ChangesBy =
  | { readonly way: "dirty log"; readonly pageCount: number }
  | { readonly way: "page hashes" | "all bytes" };

export interface SaveResult extends SnapshotSummary {
  readonly manifest: SnapshotManifest;
  /** How it was found what has changed since the base; undefined without one. */
  readonly changesBy?: ChangesBy | undefined;
  /** Why the machine cannot note what changes; undefined where it does, or was not asked to. */
  readonly trackObstacle?: string | undefined;
}

/**
 * Saves a machine into a file (a path) or a pipe (an fd number). Unless something else was asked for and the snapshot is
 * whole, the machine then runs as before; and no half-written file is under the name.
 */
export async function saveMachine(
  driver: VmDriver,
  target: string | number,
  options: SaveOptions,
): Promise<SaveResult> {
  requirePassed(await driver.preflight());
  const { name, runState, pid } = await driver.describe();
  const header = { writer: options.writer, runState, machine: { name }, labels: { ...options.labels } };
  const { base, fileKey, operation, track: pageHashes } = options;
  using writer =
    typeof target === "string"
      ? SnapshotWriter.toFile(target, header, { base, fileKey, pageHashes })
      : SnapshotWriter.toFd(target, header, { base, fileKey, pageHashes });
  let isDone = false;
  operation?.phase("saving", factsOf(name, runState, pid));
  try {
    // What a machine notes as changed has to begin at the moment of the snapshot.
    const goesOn = (options.after === undefined || options.after === "resume") && !options.track;
    let changedPages: number | undefined;
    const manifest = await saveInto(writer, driver, {
      ...options,
      onChangedPages: (count) => {
        changedPages = count;
      },
      goesOn,
      onOverlays: (overlays) => operation?.phase("saving", { overlays: [...overlays] }),
    });
    options.signal?.throwIfAborted();
    const summary = writer.finish();
    isDone = true;
    operation?.phase(options.after === "stop" ? "ending" : "resuming", { root: summary.root });
    options.own?.add(summary.root);
    const trackObstacle = options.track ? await noteSaved(driver, summary.root) : undefined;
    return { ...summary, manifest, trackObstacle, changesBy: changesBy(writer, changedPages) };
  } finally {
    if (!isDone || options.after === undefined || options.after === "resume") await driver.resume();
    else if (options.after === "stop") await driver.discard();
  }
}

async function saveInto(
  writer: SnapshotWriter,
  driver: VmDriver,
  options: SaveOptions,
): Promise<SnapshotManifest> {
  if (options.mode === "live") return driver.startPrecopy(writer, options);
  if (options.mode !== "background") return driver.save(writer, options);
  if (driver.saveInBackground !== undefined) return driver.saveInBackground(writer, options);
  throw new CompatibilityError(
    "only a QEMU machine can be saved in the background: save with --live, or without",
  );
}

function changesBy(writer: SnapshotWriter, changedPages: number | undefined): ChangesBy | undefined {
  if (writer.baseRoot === undefined) return undefined;
  if (changedPages !== undefined) return { way: "dirty log", pageCount: changedPages };
  return { way: writer.hasBaseHashes ? "page hashes" : "all bytes" };
}

function factsOf(
  machine: string,
  earlierRunState: "running" | "suspended",
  pid: number | undefined,
): OperationFacts {
  const vmProcess = pid === undefined ? undefined : identityOf(pid);
  return { machine, earlierRunState, ...(vmProcess === undefined ? {} : { vmProcess }) };
}

async function noteSaved(driver: VmDriver, root: string): Promise<string | undefined> {
  if (driver.noteSaved === undefined) return "this kind of machine has none";
  return await driver.noteSaved(root);
}

/** @throws CompatibilityError that names every check that failed */
export function requirePassed(checks: readonly PreflightCheck[]): void {
  const failed = checks.filter(({ ok }) => !ok);
  if (failed.length === 0) return;
  throw new CompatibilityError(
    failed.map(({ name, detail }) => `${name}: ${detail}`).join("; "),
    {},
    "PREFLIGHT",
  );
}
