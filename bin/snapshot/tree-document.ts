import type { StateTree } from "../../migrate/decode/mod.ts";

/** A tree for JSON: bytes are hexadecimal digits, bigints decimal ones. */
export interface TreeDocument {
  readonly name: string;
  readonly value?: string | number | boolean;
  readonly bytes?: string;
  readonly note?: string;
  readonly children?: readonly TreeDocument[];
}

export function treeDocument({ name, value, bytes, note, children }: StateTree): TreeDocument {
  return {
    name,
    ...(value === undefined ? {} : { value: typeof value === "bigint" ? value.toString() : value }),
    ...(bytes === undefined ? {} : { bytes: bytes.toHex() }),
    ...(note === undefined ? {} : { note }),
    ...(children === undefined ? {} : { children: children.map(treeDocument) }),
  };
}
