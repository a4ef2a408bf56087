import { decodeState } from "../../src/state/mod.ts";
import type { StateTree } from "./state-tree.ts";
import { valueTree } from "./value-tree.ts";

/** A state of vhu's own devices (docs/device-state-format.md): its header and its sections. @throws FormatError */
export function decodeVhuState(bytes: Uint8Array): StateTree {
  const { header, sections } = decodeState(bytes, bytes.length);
  const { deviceType, version, oldestCompatibleVersion, features } = header;
  return {
    name: "state",
    note: `vhu ${deviceType}, version ${version}`,
    children: [
      {
        name: "header",
        children: [
          ...Object.entries({ deviceType, version, oldestCompatibleVersion }).map(([name, value]) => ({
            name,
            value,
          })),
          { name: "features", value: features, note: `0x${features.toString(16)}` },
        ],
      },
      ...[...sections].map(([name, value]) => valueTree(name, value)),
    ],
  };
}
