import { FormatError } from "../../../src/errors.ts";
import { MAX_SHOWN_NAME_CHARACTERS } from "../../../src/limits.ts";
import { decodeDeviceState, type StateTree } from "../../decode/mod.ts";
import type { VmSource } from "../../driver.ts";
import { readRest } from "../read-rest.ts";
import type { ParsedStream } from "../stream-parser.ts";
import type { BackendStateDecoder } from "./backend-state.ts";
import { outlineTrees } from "./outline-trees.ts";
import { SectionTree } from "./section-tree.ts";

export interface QemuTreeOptions {
  /** Of a vhost-user back-end's own state inside the stream; else those that vhu knows. */
  readonly decodeBackendState?: BackendStateDecoder | undefined;
}

/**
 * What a snapshot of a QEMU machine holds beside memory, by name: "configuration", "commands", "memory blocks", and every device
 * section under the name that QEMU gives it (with "#N" behind it for its instance N, from 1). Names are text from a file:
 * they are compared and shown, and never a path. Undefined where the snapshot has no QEMU stream.
 *
 * @throws FormatError where the stream is none
 */
export function qemuDeviceTrees(
  source: Pick<VmSource, "qemuStream">,
  options: QemuTreeOptions = {},
): Map<string, StateTree> | undefined {
  const stream = source.qemuStream();
  if (stream === undefined) return undefined;
  return streamTrees(readRest(stream), options);
}

/** As `qemuDeviceTrees`, of a stream that was read already. */
export function streamTrees(
  parsed: ParsedStream,
  { decodeBackendState = (state, type) => decodeDeviceState(state, { type }) }: QemuTreeOptions = {},
): Map<string, StateTree> {
  const trees = new Map(outlineTrees(parsed).map((tree) => [tree.name, tree]));
  const keys = new UniqueKeys(trees);
  const sections = new SectionTree(decodeBackendState);
  for (const [index, { name, instanceId, version, offset, sizeBytes }] of parsed.sections.entries()) {
    const cut = name.slice(0, MAX_SHOWN_NAME_CHARACTERS);
    const key = keys.of(instanceId === 0 ? cut : `${cut}#${instanceId}`);
    const content = parsed.rest.subarray(offset, offset + sizeBytes);
    const { table } = parsed.vmdesc.devices[index]!;
    const isDescribed = table.vmsd_name !== undefined;
    const note = `instance ${instanceId}, version ${version}, ${sizeBytes} bytes${isDescribed ? "" : ", not described by the stream"}`;
    trees.set(key, { name: key, note, ...contentOf(sections, table, content) });
  }
  return trees;
}

function contentOf(
  sections: SectionTree,
  table: Readonly<Record<string, unknown>>,
  content: Uint8Array,
): Pick<StateTree, "children"> {
  try {
    return { children: sections.of(table, content) };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return { children: [{ name: "content", bytes: content, note: error.message }] };
  }
}

/** Sections of one name are numbered from 2; a hostile stream may have thousands of them. */
class UniqueKeys {
  readonly #taken: ReadonlyMap<string, unknown>;
  readonly #counts = new Map<string, number>();

  constructor(taken: ReadonlyMap<string, unknown>) {
    this.#taken = taken;
  }

  of(name: string): string {
    let key = name;
    while (this.#taken.has(key)) {
      const number = (this.#counts.get(name) ?? 1) + 1;
      this.#counts.set(name, number);
      key = `${name} (${number})`;
    }
    return key;
  }
}
