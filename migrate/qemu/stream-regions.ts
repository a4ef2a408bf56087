import { FormatError } from "../../src/errors.ts";
import type { VmSource } from "../driver.ts";
import type { RamBlock } from "./stream-format.ts";

/** The memory region of each block of a stream. @throws FormatError where one is missing, or of another size */
export function regionsOf({ memoryMap }: Pick<VmSource, "memoryMap">, blocks: readonly RamBlock[]): number[] {
  return blocks.map(({ name, sizeBytes }) => {
    const region = memoryMap.find((candidate) => candidate.name === name);
    if (region?.sizeBytes === sizeBytes) return region.id;
    throw new FormatError(`the memory of ${JSON.stringify(name)} is not in the snapshot`, "memory map");
  });
}
