import type { StateTree } from "../../decode/mod.ts";
import { COMMAND } from "../stream-format.ts";
import type { ParsedStream } from "../stream-parser.ts";
import { capabilityNames, readOutline } from "./stream-outline.ts";

const COMMAND_NAMES: Readonly<Record<number, string>> = {
  [COMMAND.openReturnPath]: "open the return path",
  [COMMAND.ping]: "ping",
  [COMMAND.switchoverStart]: "the switchover starts",
};

/** What a stream holds beside its devices: configuration, commands, and the blocks of memory. @throws FormatError */
export function outlineTrees(parsed: ParsedStream): StateTree[] {
  const outline = readOutline(parsed.rest);
  const subsections = outline.configuration.flatMap(({ name, content }): StateTree[] => {
    if (name === undefined) return [];
    if (name !== "configuration/capabilities") return [{ name, bytes: content }];
    return [{ name, value: capabilityNames(outline).join(" ") }];
  });
  return [
    {
      name: "configuration",
      children: [{ name: "machine type", value: parsed.machineType }, ...subsections],
    },
    {
      name: "commands",
      children: outline.commands.map(({ command, content }, index) => ({
        name: `[${index}]`,
        value: COMMAND_NAMES[command] ?? `command ${command}`,
        ...(content.length === 0 ? {} : { bytes: content }),
      })),
    },
    {
      name: "memory blocks",
      children: parsed.blocks.map(({ name, sizeBytes }) => ({ name, value: sizeBytes, note: "bytes" })),
    },
  ];
}
