import type { Command } from "commander";
import { TrustedKeys } from "../../migrate/mod.ts";
import {
  lockedSnapshot,
  readSigner,
  type Signer,
  type SnapshotReader,
  spoolPipe,
  type VerifyProblem,
  type VerifyResult,
  verifyLocked,
} from "../../migrate/snapshot/mod.ts";
import { FormatError } from "../../src/errors.ts";
import { about, aboutLater } from "../about.ts";
import { parseAddressOf } from "../address.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { addOpeningOptions, type OpeningOptions, openPath } from "../credentials.ts";
import { formatBytes, formatCount, formatDuration } from "../output/format.ts";
import { printable } from "../output/printable.ts";
import { placed } from "../snapshot/problem-text.ts";
import type { VerifiedCopy } from "../snapshot/verify-copies.ts";

const STDIN = 0;
/** As FormatError has it; the damage was listed, so nothing is thrown. */
const DAMAGED_STATUS = 3;

interface VerifyOptions extends OpeningOptions {
  readonly deep?: boolean;
}

export function registerSnapshotVerify(parent: Command): void {
  const command = addCommand(parent, {
    usage: "verify <file>",
    description: `check every byte of a snapshot against its checksums

Names each damaged part, and the guest memory that it hits. With --deep, all memory and device states are
decompressed as well, the index and the page hashes are compared with what the file holds, and copies of disks beside it are
read. FILE may be "-" for stdin. An
encrypted snapshot is checked byte by byte without its key, too.`,
    examples: [
      ["vhu snapshot verify web.vhu", "is every byte what was written?"],
      ["vhu snapshot verify --deep web.vhu", "and does all of it unpack to what was saved?"],
    ],
    exitStatus: {
      0: "the snapshot is whole",
      3: "the file is no snapshot, or is damaged; the places are listed",
      4: "a newer vhu is needed to read it; with --deep, a key or a parent is missing",
    },
  });
  addOpeningOptions(command)
    .option("--deep", "decompress everything as well, in the files that it is based on, too")
    .action(
      action(async (context, file: string, options: VerifyOptions) => {
        const startMs = performance.now();
        const source = parseAddressOf(file, "snapshot", ["file", "stdio"]);
        // Without a key it is read in another way, and a pipe only once.
        using spool = source.kind === "stdio" ? about(file, () => spoolPipe(STDIN)) : undefined;
        const path = source.kind === "stdio" ? (spool?.path ?? "") : source.path;
        if (isLocked(path, options)) return about(file, () => verifyWithoutKey(context, file, path, startMs));
        using reader = await aboutLater(file, () => openPath(path, options));
        const result = verify(context, reader, options.deep ?? false);
        const isBeside = options.deep && source.kind === "file";
        const copies = result.ok && isBeside ? await copiesOf(context, reader, file) : [];
        const signer = result.ok ? about(file, () => readSigner(reader)) : undefined;
        return report(context, {
          signer,
          copies,
          file,
          result,
          reader,
          milliseconds: performance.now() - startMs,
        });
      }),
    );
}

/** Loaded when there are any: what knows QEMU's machines takes longer to load than all the rest. */
async function copiesOf({ signal }: CommandContext, reader: SnapshotReader, file: string) {
  if (reader.manifest.machine?.kind !== "qemu") return [];
  const { verifyCopies } = await import("../snapshot/verify-copies.ts");
  return await verifyCopies(reader, file, signal);
}

/** Encrypted, and nobody gave a key; a damaged one is for others to tell. */
function isLocked(path: string, { identity, passphraseFile, deep }: VerifyOptions): boolean {
  if ((identity ?? passphraseFile) !== undefined || deep) return false;
  try {
    return lockedSnapshot(path) !== undefined;
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}

function verifyWithoutKey({ output }: CommandContext, file: string, path: string, startMs: number): number {
  using progress = output.progress("verify");
  const result = verifyLocked(path, { onProgress: (state) => progress.update(state) });
  const milliseconds = performance.now() - startMs;
  output.summary({ file, isLocked: true, milliseconds, ...result }, () => {
    if (!result.ok) return damagedLines(file, result.problems, [], []);
    const { recordCount, root, sizeBytes } = result;
    const what = `${formatBytes(sizeBytes)} in ${formatCount(recordCount, "record")}, ${formatDuration(milliseconds)}`;
    return [
      `${file} is whole as far as can be seen without its key: ${what}`,
      `root ${root}`,
      "neither opened nor compared with its index, and no signature looked at: give --identity FILE or --passphrase-file FILE",
    ];
  });
  return result.ok ? 0 : DAMAGED_STATUS;
}

function verify({ output }: CommandContext, reader: SnapshotReader, deep: boolean): VerifyResult {
  using progress = output.progress("verify");
  return reader.verify({ deep, onProgress: (state) => progress.update(state) });
}

interface Outcome {
  readonly file: string;
  readonly result: VerifyResult;
  readonly reader: SnapshotReader;
  readonly signer: Signer | undefined;
  readonly copies: readonly VerifiedCopy[];
  readonly milliseconds: number;
}

function report(
  { output }: CommandContext,
  { file, result, reader, signer, copies, milliseconds }: Outcome,
): number {
  const sizeBytes = reader.sizeBytes;
  const ok = result.ok && copies.every((copy) => copy.ok);
  const document = { file, sizeBytes, milliseconds, ...result, ok, ...(signer && { signer }) };
  output.summary({ ...document, ...(copies.length > 0 && { diskCopies: copies }) }, () => {
    if (!result.ok) {
      const { manifest, memoryMap } = reader;
      return damagedLines(file, result.problems, manifest.devices, memoryMap);
    }
    const records = formatCount(result.recordCount, "record");
    const what = `${formatBytes(sizeBytes)} in ${records}, ${formatDuration(milliseconds)}`;
    return [
      `${file} is whole: ${what}`,
      `root ${result.root}`,
      ...signerLines(signer),
      ...copies.map((copy) =>
        printable(
          `the copy of ${copy.device} ${copy.ok ? "is what it was" : "is not to be used"}: ${copy.message ?? copy.path}`,
        ),
      ),
    ];
  });
  return ok ? 0 : DAMAGED_STATUS;
}

function damagedLines(
  file: string,
  problems: readonly VerifyProblem[],
  ...names: [devices: Parameters<typeof placed>[1], regions: Parameters<typeof placed>[2]]
): string[] {
  const places = problems.map((problem) => printable(`  ${placed(problem, ...names)}`));
  const next = "Load an earlier snapshot; of this one, nothing should be run.";
  return [`${file} is damaged in ${formatCount(problems.length, "place")}:`, ...places, next];
}

function signerLines(signer: Signer | undefined): string[] {
  if (signer === undefined) return ["not signed"];
  const name = new TrustedKeys().nameOf(signer.publicKey);
  const who = name === undefined ? "a key that is not trusted here" : name;
  return [printable(`signed by ${who}: ed25519:${signer.publicKey}`)];
}
