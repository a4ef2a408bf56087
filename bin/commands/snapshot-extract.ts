import { type Command, Option } from "commander";
import {
  extractCore,
  extractDevice,
  extractRegion,
  extractStream,
  RecordType,
  type SnapshotReader,
  type SnapshotRegion,
  type StreamEntry,
} from "../../migrate/snapshot/mod.ts";
import { UsageError } from "../../src/errors.ts";
import { aboutLater } from "../about.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { addOpeningOptions, type OpeningOptions, openWith } from "../credentials.ts";
import type { Progress } from "../output/progress.ts";
import { deviceNamed } from "../snapshot/device-named.ts";
import { signalFor, targetName, targetOf } from "../snapshot/rewrite.ts";

interface ExtractOptions extends OpeningOptions {
  readonly core?: boolean;
  readonly region?: string;
  readonly device?: string;
  readonly stream?: "qemu" | "machine";
}

export function registerSnapshotExtract(parent: Command): void {
  const command = addCommand(parent, {
    usage: "extract <file> <target>",
    description: `write memory or a device's state of a snapshot into a file of its own

Give one of --core, --region, --device and --stream. Memory is checked as it is unpacked; TARGET appears when it is whole,
readable for you only. FILE and TARGET may be "-"; what went into a pipe before damage was found is good. A core file has the
memory by guest-physical addresses; of a QEMU PC it has the processors' registers, in the notes of QEMU's dump-guest-memory, else one thread without.`,
    examples: [
      [
        "vhu snapshot extract --core web.vhu web.core && gdb --core=web.core",
        "all memory, by guest addresses",
      ],
      ["vhu snapshot extract --region ram web.vhu ram.raw", "one region's bytes"],
      ["vhu snapshot extract --device disk web.vhu disk.state", "one device's state, verbatim"],
      ["vhu snapshot extract --stream qemu web.vhu - | xxd | less", "all of QEMU's stream but RAM"],
    ],
    exitStatus: {
      3: "the file is no snapshot, or is damaged; there is no TARGET",
      4: "a parent or a key is missing, or where a QEMU machine has its memory is not known",
    },
  });
  addOpeningOptions(command)
    .option("--core", "all memory as an ELF core file")
    .option("--region <name>", "one memory region, raw")
    .option("--device <name>", "one device's state")
    .addOption(
      new Option("--stream <name>", "what is neither memory nor a device's").choices(["qemu", "machine"]),
    )
    .action(
      action(async (context, file: string, targetText: string, options: ExtractOptions) => {
        const { output } = context;
        const { core, region, device, stream } = options;
        const given = [core, region, device, stream].filter((option) => option !== undefined);
        if (given.length !== 1) throw new UsageError("give one of --core, --region, --device and --stream");
        const target = targetOf(output, targetText);
        using reader = await aboutLater(file, () => openWith(file, options));
        const signal = signalFor(context, target);
        if (core) return await extractWholeCore(context, reader, targetText, target);
        if (device !== undefined)
          await extractDevice(reader, deviceNamed(reader, device).id, target, { signal });
        else if (stream !== undefined)
          await extractStream(reader, streamNamed(reader, stream), target, { signal });
        else {
          const wanted = regionNamed(reader, region ?? "");
          using progress = output.progress("extract");
          await extractRegion(reader, wanted.id, target, { signal, onProgress: counted(progress, [wanted]) });
        }
        output.summary({ file: targetText }, () => [`${targetName(targetText)} is written`]);
        return undefined;
      }),
    );
}

/** What takes a QEMU machine apart is loaded for such a machine only. */
async function extractWholeCore(
  context: CommandContext,
  reader: SnapshotReader,
  targetText: string,
  target: string | number,
): Promise<undefined> {
  const { output } = context;
  using progress = output.progress("extract");
  const options = { signal: signalFor(context, target), onProgress: counted(progress, reader.memoryMap) };
  let hasRegisters = false;
  if (reader.manifest.machine?.kind === "qemu") {
    const { qemuCoreLayout } = await import("../../migrate/qemu/mod.ts");
    const layout = qemuCoreLayout(reader);
    await extractCore(reader, target, { ...options, layout });
    hasRegisters = layout.hasRegisters;
  } else await extractCore(reader, target, options);
  output.summary({ file: targetText, hasRegisters }, () => [
    `${targetName(targetText)} is written, ${hasRegisters ? "with the processors' registers" : "without registers"}`,
  ]);
  return undefined;
}

function counted(progress: Progress, regions: readonly SnapshotRegion[]): (doneBytes: number) => void {
  const totalBytes = regions.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return (doneBytes) => progress.update({ doneBytes, totalBytes });
}

function regionNamed({ memoryMap }: SnapshotReader, name: string): SnapshotRegion {
  const region = memoryMap.find((candidate) => candidate.name === name);
  if (region !== undefined) return region;
  const names = memoryMap.map((candidate) => candidate.name).join(", ");
  throw new UsageError(`there is no region "${name}"; there is ${names === "" ? "none" : names}`);
}

function streamNamed({ streams }: SnapshotReader, name: "qemu" | "machine"): StreamEntry {
  const type = name === "qemu" ? RecordType.qemuStream : RecordType.machineState;
  const stream = streams.find((candidate) => candidate.type === type);
  if (stream !== undefined) return stream;
  throw new UsageError(`the snapshot has no ${name === "qemu" ? "QEMU stream" : "machine state"}`);
}
