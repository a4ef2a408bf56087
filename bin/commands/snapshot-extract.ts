import type { Command } from "commander";
import { extractCore, extractDevice, extractRegion } from "../../migrate/snapshot/mod.ts";
import { UsageError } from "../../src/errors.ts";
import { aboutLater } from "../about.ts";
import { parseAddressOf } from "../address.ts";
import { action, addCommand } from "../command.ts";
import { addOpeningOptions, type OpeningOptions, openWith } from "../credentials.ts";
import { deviceNamed } from "../snapshot/device-named.ts";

interface ExtractOptions extends OpeningOptions {
  readonly core?: boolean;
  readonly region?: string;
  readonly device?: string;
}

export function registerSnapshotExtract(parent: Command): void {
  const command = addCommand(parent, {
    usage: "extract <file> <target>",
    description: `write memory or a device's state of a snapshot into a file of its own

Give one of --core, --region and --device. Memory is checked as it is unpacked; TARGET appears when it is whole, readable for
you only.`,
    examples: [
      [
        "vhu snapshot extract --core web.vhu web.core && gdb --core=web.core",
        "all memory, by guest addresses",
      ],
      ["vhu snapshot extract --region ram web.vhu ram.raw", "one region's bytes"],
      ["vhu snapshot extract --device disk web.vhu disk.state", "one device's state, verbatim"],
    ],
    exitStatus: {
      3: "the file is no snapshot, or is damaged; there is no TARGET",
      4: "a parent or a key is missing",
    },
  });
  addOpeningOptions(command)
    .option("--core", "all memory as an ELF core file")
    .option("--region <name>", "one memory region, raw")
    .option("--device <name>", "one device's state")
    .action(
      action(async ({ output, signal }, file: string, targetText: string, options: ExtractOptions) => {
        const { path } = parseAddressOf(targetText, "target", ["file"]);
        const given = [options.core, options.region, options.device].filter((option) => option !== undefined);
        if (given.length !== 1) throw new UsageError("give one of --core, --region and --device");
        using reader = await aboutLater(file, () => openWith(file, options));
        if (options.core) await extractCore(reader, path, { signal });
        else if (options.device !== undefined)
          extractDevice(reader, deviceNamed(reader, options.device).id, path);
        else {
          const region = reader.memoryMap.find(({ name }) => name === options.region);
          const names = reader.memoryMap.map(({ name }) => name).join(", ");
          if (region === undefined)
            throw new UsageError(`there is no region "${options.region}"; there is ${names}`);
          await extractRegion(reader, region.id, path, { signal });
        }
        output.summary({ file: path }, () => [`${path} is written`]);
        return undefined;
      }),
    );
}
