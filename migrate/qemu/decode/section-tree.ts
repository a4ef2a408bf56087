import { MAX_QEMU_TREE_NODES, MAX_SHOWN_NAME_CHARACTERS, MAX_VMDESC_DEPTH } from "../../../src/limits.ts";
import type { StateTree } from "../../decode/mod.ts";
import { count, type Json, list, object, text } from "../vmdesc-json.ts";
import { type BackendStateDecoder, backendStateTree } from "./backend-state.ts";
import { fieldValue } from "./field-value.ts";
import { virtioTree } from "./virtio-state.ts";

/** Elements of an array that are shown one by one. */
const MAX_SHOWN_ELEMENTS = 4096;

type Shown = Omit<StateTree, "name">;

/**
 * The device sections of a stream as trees: names, types and sizes are the stream's own description, the values are the section's.
 * What the description does not take apart stays bytes with its type as a note.
 */
export class SectionTree {
  readonly #decode: BackendStateDecoder | undefined;
  readonly #sizes = new WeakMap<Json, number>();
  /** Entries that may still be made. */
  #left = MAX_QEMU_TREE_NODES;

  constructor(decode?: BackendStateDecoder) {
    this.#decode = decode;
  }

  /**
   * @param table The device's part of the description, whose sizes add up to the section's.
   * @throws FormatError where the description is none
   */
  of(table: Json, content: Uint8Array): StateTree[] {
    return this.#table(table, content, 0);
  }

  #table(table: Json, content: Uint8Array, depth: number): StateTree[] {
    const children: StateTree[] = [];
    let at = 0;
    for (const field of objects(table, "fields")) {
      const end = at + this.#sizeOfField(field);
      children.push(this.#field(field, content.subarray(at, end), depth));
      at = end;
      if (this.#isFull(children, content.subarray(at))) return children;
    }
    for (const subsection of objects(table, "subsections")) {
      const name = text(subsection.vmsd_name, "vmsd_name");
      const start = at + headBytes(name);
      const end = start + this.#sizeOf(subsection);
      children.push(this.#subsection(name, subsection, content.subarray(start, end), depth));
      at = end;
      if (this.#isFull(children, content.subarray(at))) return children;
    }
    if (at < content.length)
      children.push({ name: "rest", bytes: content.subarray(at), note: "not described" });
    return children;
  }

  #field(field: Json, bytes: Uint8Array, depth: number): StateTree {
    this.#left -= 1;
    const index = field.index === undefined ? "" : `[${count(field.index, "index")}]`;
    const name = shortened(text(field.name, "name")) + index;
    const type = shortened(text(field.type, "type"));
    if (field.array_len === undefined) return { name, ...this.#value(field, type, bytes, depth) };
    const times = count(field.array_len, "array_len");
    const sizeBytes = count(field.size, "size");
    const isWhole = sizeBytes > 0 && times * sizeBytes === bytes.length;
    if (type === "uint8" || !isWhole || times > Math.min(MAX_SHOWN_ELEMENTS, this.#left)) {
      return { name, bytes, note: `${times} of ${type}, ${sizeBytes} bytes each` };
    }
    this.#left -= times;
    const children = Array.from({ length: times }, (_, at) => ({
      name: `[${at}]`,
      ...this.#value(field, type, bytes.subarray(at * sizeBytes, (at + 1) * sizeBytes), depth),
    }));
    return { name, note: `${times} of ${type}`, children };
  }

  #value(field: Json, type: string, bytes: Uint8Array, depth: number): Shown {
    const inner = field.struct === undefined ? field : object(field.struct, "struct");
    // An element of a list comes with marks between that have no description: then the sizes do not add up.
    if (inner.fields !== undefined && depth < MAX_VMDESC_DEPTH && this.#sizeOf(inner) === bytes.length) {
      const note = inner.vmsd_name === undefined ? undefined : shortened(text(inner.vmsd_name, "vmsd_name"));
      return { note, children: this.#table(inner, bytes, depth + 1) };
    }
    if (type === "virtio" && this.#left > 0) {
      this.#left -= bytes.length >>> 3;
      return virtioTree(bytes, this.#decode);
    }
    if (/back-?end state$/.test(type))
      return backendStateTree(bytes, type, this.#decode, type.startsWith("virtio-fs") ? "fs" : "net");
    return fieldValue(type, bytes);
  }

  #subsection(longName: string, table: Json, content: Uint8Array, depth: number): StateTree {
    this.#left -= 1;
    const name = shortened(longName);
    if (depth >= MAX_VMDESC_DEPTH) return { name, bytes: content, note: "nested too deeply to be shown" };
    const version = table.version === undefined ? "" : `, version ${count(table.version, "version")}`;
    return { name, note: `subsection${version}`, children: this.#table(table, content, depth + 1) };
  }

  /** A description may name millions of empty fields: they are not all shown. */
  #isFull(children: StateTree[], rest: Uint8Array): boolean {
    if (this.#left > 0) return false;
    children.push({ name: "rest", bytes: rest, note: "too many fields to be shown" });
    return true;
  }

  #sizeOfField(field: Json): number {
    const times = field.array_len === undefined ? 1 : count(field.array_len, "array_len");
    return times * count(field.size, "size");
  }

  /** Bytes that a table's fields and subsections stand for. */
  #sizeOf(table: Json, depth = 0): number {
    const known = this.#sizes.get(table);
    if (known !== undefined) return known;
    // Deeper ones were refused when the description was read, where they count; a struct's inside may have them.
    if (depth > MAX_VMDESC_DEPTH) return Number.NaN;
    let sum = 0;
    for (const field of objects(table, "fields")) sum += this.#sizeOfField(field);
    for (const subsection of objects(table, "subsections")) {
      sum += headBytes(text(subsection.vmsd_name, "vmsd_name")) + this.#sizeOf(subsection, depth + 1);
    }
    this.#sizes.set(table, sum);
    return sum;
  }
}

function* objects(table: Json, key: string): Generator<Json, void> {
  for (const entry of list(table[key] ?? [], key)) yield object(entry, key);
}

/** Of a subsection: 5, u8 length, name, be32 version. */
function headBytes(name: string): number {
  return 2 + Buffer.byteLength(name) + 4;
}

function shortened(name: string): string {
  return name.length > MAX_SHOWN_NAME_CHARACTERS ? `${name.slice(0, MAX_SHOWN_NAME_CHARACTERS)}…` : name;
}
