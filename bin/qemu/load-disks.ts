import { mkdirSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { checkDiskCopy, copyImage, type StoredDiskCopy, unsealDiskCopy } from "../../migrate/disks/mod.ts";
import type { MoveOptions } from "../../migrate/driver.ts";
import { requireAllowedChain, requireAllowedFile } from "../../migrate/policy/mod.ts";
import { diskSource, type QemuMachine, requireSameSources } from "../../migrate/qemu/mod.ts";
import { CompatibilityError, PeerError } from "../../src/errors.ts";
import { O, openFile } from "../../src/sys/mod.ts";
import { changeOf, type GivenDisk, givenDisks } from "./load-changes.ts";

type QemuDisk = QemuMachine["disks"][number];

/** A file that is made before the machine starts, and goes away again if that fails. */
export type DiskStep =
  | { readonly kind: "overlay"; readonly path: string; readonly base: string; readonly format: string }
  | { readonly kind: "copy"; readonly path: string; readonly from: string; readonly sizeBytes: number }
  | {
      readonly kind: "unseal";
      readonly path: string;
      readonly from: string;
      readonly key: string;
      readonly format: string;
    };

export interface DiskPlan {
  readonly changes: readonly GivenDisk[];
  readonly steps: readonly DiskStep[];
  readonly notes: readonly string[];
  /** Copies whose content has to be looked at before anything is started. */
  readonly copies: readonly { readonly path: string; readonly copy: StoredDiskCopy }[];
}

export interface LoadDisksOptions {
  readonly disk?: readonly string[] | undefined;
  readonly overlay?: string | undefined;
  readonly runtimeDir?: string | undefined;
  readonly force?: boolean | undefined;
}

/**
 * Which files the disks of a machine have here. What was frozen or copied at the save is never written: the machine goes on
 * over overlays.
 *
 * @param roots Folders that the files which the snapshot names may lie in; a copy beside the snapshot lies where the user has put it.
 * @throws CompatibilityError when a disk has changed since, or is not where it may be; UsageError
 */
export function planDisks(
  machine: QemuMachine,
  snapshot: string | undefined,
  roots: readonly string[],
  options: LoadDisksOptions,
): DiskPlan {
  const given = givenDisks(options.disk ?? [], machine);
  const sources = machine.disks
    .filter((disk) => !given.some((each) => each.disk === disk))
    .map((disk) => diskSource(disk, snapshot));
  if (!options.force) requireSameSources(sources);
  const id = crypto.randomUUID().slice(0, 8);
  const steps = sources.flatMap(({ disk, path }) => {
    const isKept = options.overlay !== undefined || disk.frozen === true || disk.copy !== undefined;
    if (disk.readOnly || !isKept) return [];
    const step = stepFor(disk, path, id, options);
    requireAllowedStep(disk, step, roots, options);
    return [{ disk, step }];
  });
  const changes = steps.map(({ disk, step }) =>
    changeOf(disk, step.path, step.kind === "overlay" ? "qcow2" : disk.format),
  );
  return {
    changes: [...given, ...changes],
    steps: steps.map(({ step }) => step),
    notes: steps.map(({ disk, step }) => `what the VM writes to ${disk.device} is in ${step.path}`),
    copies: options.force
      ? []
      : sources.flatMap(({ disk: { copy }, path }) => (copy === undefined ? [] : [{ path, copy }])),
  };
}

/** @throws CompatibilityError, FormatError when a copy is not what it was */
export async function checkCopies(
  { copies, steps }: DiskPlan,
  options: MoveOptions,
  isDry: boolean | undefined,
): Promise<void> {
  for (const { path, copy } of copies) {
    // What is unsealed is checked on the way.
    if (!isDry && steps.some((step) => step.kind === "unseal" && step.from === resolve(path))) continue;
    const total = statSync(path).size;
    await checkDiskCopy(path, copy, {
      signal: options.signal,
      onProgress: (done) => options.onProgress?.({ phase: "disks", done, total }),
    });
  }
}

/** A back-end of vhu's own knows raw images only: it gets a copy. */
function stepFor(disk: QemuDisk, source: string, id: string, options: LoadDisksOptions): DiskStep {
  const folder = resolve(options.overlay ?? options.runtimeDir ?? dirname(disk.path));
  const name = basename(disk.path).replace(/(?:\.vhu-[0-9a-f]{8}\.(?:qcow2|raw))+$/, "");
  const base = join(folder, `${name}.vhu-${id}`);
  const key = disk.copy?.key;
  if (key !== undefined) {
    return {
      kind: "unseal",
      path: `${base}.${disk.format}`,
      from: resolve(source),
      key,
      format: disk.format,
    };
  }
  if (disk.backend === undefined) {
    return { kind: "overlay", path: `${base}.qcow2`, base: resolve(source), format: disk.format };
  }
  return {
    kind: "copy",
    path: `${base}.raw`,
    from: resolve(source),
    sizeBytes: disk.fileBytes ?? disk.sizeBytes,
  };
}

/** Before anything is made: qemu-img opens all that an image stands on, and a copy is read as it is. */
function requireAllowedStep(
  disk: QemuDisk,
  step: DiskStep,
  roots: readonly string[],
  { overlay, runtimeDir }: LoadDisksOptions,
): void {
  const source = step.kind === "overlay" ? step.base : step.from;
  if (disk.copy === undefined) requireAllowedFile(source, { roots });
  if (overlay === undefined && runtimeDir === undefined) requireAllowedFile(step.path, { roots });
  if (step.kind === "overlay") requireAllowedChain({ path: source, format: step.format }, { roots });
  if (step.kind === "copy") requireAllowedChain({ path: source, format: disk.format }, { roots });
}

/** As a person would do it. */
export function stepCommand(step: DiskStep): string[] {
  if (step.kind === "copy") return ["cp", "--sparse=always", "--reflink=auto", step.from, step.path];
  // Nobody can but a load.
  if (step.kind === "unseal") return ["(decrypt)", step.from, step.path];
  return ["qemu-img", "create", "-q", "-f", "qcow2", "-b", step.base, "-F", step.format, step.path];
}

/** The files that were made. Until `keep` they go away when this is disposed of. */
export class MadeDisks implements Disposable {
  readonly #made: string[] = [];
  #isKept = false;

  private constructor(readonly roots: readonly string[]) {}

  /** @throws CompatibilityError without qemu-img, PeerError when it fails, SyscallError */
  static async make(
    steps: readonly DiskStep[],
    roots: readonly string[],
    signal: AbortSignal,
  ): Promise<MadeDisks> {
    using stack = new DisposableStack();
    const made = stack.use(new MadeDisks(roots));
    for (const step of steps) {
      mkdirSync(dirname(step.path), { recursive: true, mode: 0o700 });
      await made.#make(step, signal);
    }
    stack.move();
    return made;
  }

  keep(): void {
    this.#isKept = true;
  }

  [Symbol.dispose](): void {
    if (this.#isKept) return;
    for (const path of this.#made) rmSync(path, { force: true });
  }

  async #make(step: DiskStep, signal: AbortSignal): Promise<void> {
    this.#made.push(step.path);
    if (step.kind === "unseal") {
      await unsealDiskCopy(step.from, step.key, step.path, { signal });
      // Only now it is to be seen what it stands on.
      requireAllowedChain(step, { roots: this.roots });
      return;
    }
    if (step.kind === "copy") {
      using source = openFile(step.from, O.RDONLY);
      using target = openFile(step.path, O.RDWR | O.CREAT | O.EXCL, 0o600);
      await copyImage(source, step.sizeBytes, target, { signal });
      return;
    }
    const [name = "", ...words] = stepCommand(step);
    const program = Bun.which(name);
    if (program === null) {
      throw new CompatibilityError(
        "qemu-img, which makes overlays, is not installed here: install qemu-utils",
      );
    }
    const child = Bun.spawn([program, ...words], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
      signal,
    });
    const [status, text] = await Promise.all([child.exited, child.stderr.text()]);
    signal.throwIfAborted();
    if (status !== 0) throw new PeerError(`no overlay over ${step.base}: ${text.trim()}`);
  }
}
