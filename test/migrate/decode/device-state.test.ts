import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import {
  decodeDeviceState,
  decodeDeviceStateAs,
  deviceStateForms,
  type StateTree,
} from "../../../migrate/decode/mod.ts";
import { FormatError } from "../../../src/errors.ts";
import { ROOT } from "../../support/source-files.ts";
import { crosvmState, passtState, stateOf } from "./states.ts";

const stored = (name: string) => readFileSync(join(ROOT, "test", "fixtures", name));
/** What real programs wrote, and what was put together by their sources. */
const states: Readonly<Record<string, { bytes: Uint8Array; form: (typeof deviceStateForms)[number] }>> = {
  console: { bytes: stored("console-state-v1.bin"), form: "vhu" },
  "find-paths": { bytes: stored("virtiofsd-1.13.2-find-paths.state"), form: "virtiofsd" },
  "file-handles": { bytes: stored("virtiofsd-1.13.2-file-handles.state"), form: "virtiofsd" },
  "verify-handles": { bytes: stored("virtiofsd-1.13.2-verify-handles.state"), form: "virtiofsd" },
  passt: { bytes: passtState(2), form: "passt" },
  "crosvm CBOR": { bytes: crosvmState("CBOR"), form: "crosvm" },
  "crosvm JSON": { bytes: crosvmState("JSON"), form: "crosvm" },
};

/** "inodes.inode 1.location": the leaf's value. */
function at(tree: StateTree, ...path: string[]): unknown {
  let place: StateTree | undefined = tree;
  for (const name of path) place = place?.children?.find((child) => child.name === name);
  return place?.value ?? place?.bytes;
}

describe("what is decoded", () => {
  test("vhu's own: header and sections", () => {
    const tree = stateOf(decodeDeviceState(states.console!.bytes));
    expect(tree.note).toContain("vhu console");
    expect(at(tree, "header", "deviceType")).toBe("console");
    expect(tree.children?.length).toBeGreaterThan(1);
  });

  test("virtiofsd: V2 by paths, as 1.13.2 wrote it; V1 is the same without the last part", () => {
    const { bytes } = states["find-paths"]!;
    const tree = stateOf(decodeDeviceState(bytes, { type: "fs" }));
    expect(tree.note).toBe("virtiofsd, postcard V2");
    expect(at(tree, "inodes", "inode 1", "location")).toBe("root");
    expect(at(tree, "inodes", "inode 2", "filename")).toBe("folder");
    expect(at(tree, "inodes", "inode 3", "parent")).toBe(2n);
    expect(at(tree, "handles", "handle 0", "inode")).toBe(4n);
    expect(at(tree, "negotiatedOptions", "writeback")).toBe(false);
    const first = new Uint8Array(bytes.subarray(0, -1));
    first[0] = 0;
    expect(decodeDeviceStateAs("virtiofsd", first)).toEqual({
      name: "state",
      note: "virtiofsd, postcard V1",
      children: tree.children!.slice(0, -1),
    });
  });

  test("virtiofsd: by file handles, and with handles to compare", () => {
    const byHandles = stateOf(decodeDeviceState(states["file-handles"]!.bytes, { type: "fs" }));
    const inode = byHandles.children?.[0]?.children?.[1];
    expect(at(inode!, "location")).toBe("file handle");
    expect(at(inode!, "handle", "handle")).toHaveLength(8);
    expect(at(byHandles, "mountPaths", "mount 27")).toBe(".");
    const compared = stateOf(
      decodeDeviceState(states["verify-handles"]!.bytes, { executable: "/x/virtiofsd" }),
    );
    expect(at(compared, "inodes", "inode 3", "fileHandle", "mountId")).toBe(27n);
  });

  test("passt: addresses, connections and their queues", () => {
    const tree = stateOf(decodeDeviceState(passtState(2)));
    expect(at(tree, "guestAddresses", "ipv6")).toBe("2001:db8::1");
    expect(at(tree, "guestAddresses", "ipv4")).toBe("10.0.2.15");
    expect(at(tree, "guestAddresses", "mac")).toBe("52:54:00:12:34:56");
    const path = ["connections", "[0]"];
    expect(at(tree, ...path, "initiator", "theirs")).toBe("10.0.2.15");
    expect(at(tree, ...path, "initiator", "theirPort")).toBe(40000);
    expect(at(tree, ...path, "target", "theirs")).toBe("93.184.216.34");
    expect(at(tree, ...path, "seqInitialFromTap")).toBe(0x0a0b0c05);
    expect(Buffer.from(at(tree, ...path, "sendQueue") as Uint8Array).toString()).toBe("to send");
    expect(tree.children?.[2]?.children?.[0]?.children?.find(({ name }) => name === "tcpState")?.note).toBe(
      "ESTABLISHED",
    );
    const other = stateOf(decodeDeviceState(passtState(1)));
    expect(other.children?.[1]).toMatchObject({ name: "rest", note: "only version 2 is known" });
  });

  test.each(["CBOR", "JSON"] as const)("crosvm: %s, with the state inside the state", (encoding) => {
    const tree = stateOf(decodeDeviceState(crosvmState(encoding)));
    expect(tree.note).toBe(`crosvm, ${encoding}`);
    expect(at(tree, "acked_features")).toBe(0x1_4000_0000);
    expect(at(tree, "backend", "avail_features")).toBe(7);
    expect(at(tree, "backend", "queues", "[1]", "next_avail")).toBe(12);
  });

  test("what is of no known form is not guessed at", () => {
    expect(decodeDeviceState(new Uint8Array(10))).toBeUndefined();
    expect(decodeDeviceState(states["find-paths"]!.bytes)).toBeUndefined();
    expect(decodeDeviceState(new Uint8Array(0), { type: "fs" })).toBeUndefined();
  });
});

describe("hostile bytes", () => {
  test.each(Object.keys(states))("%s cut off anywhere is refused", (name) => {
    const { bytes, form } = states[name]!;
    for (let length = 0; length < bytes.length; length += 1) {
      expect(() => decodeDeviceStateAs(form, bytes.subarray(0, length))).toThrow(FormatError);
    }
    expect(() => decodeDeviceStateAs(form, Buffer.concat([bytes, Buffer.of(0)]))).toThrow(FormatError);
  });

  test("changed bytes give a tree or a FormatError", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.values(states)),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        ({ bytes, form }, changes) => {
          const copy = new Uint8Array(bytes);
          for (const [place, value] of changes) copy[place % copy.length] = value;
          expectTreeOrFormatError(form, copy);
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("bytes of chance give a tree or a FormatError", () => {
    fc.assert(
      fc.property(fc.constantFrom(...deviceStateForms), fc.uint8Array({ maxLength: 200 }), (form, bytes) => {
        expectTreeOrFormatError(form, bytes);
      }),
      { numRuns: 2000 },
    );
  });

  test("counts that cannot be, and values in values without end", () => {
    const huge = [0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    expect(() => decodeDeviceStateAs("crosvm", Uint8Array.of(0xa1, 0x61, 0x61, ...huge))).toThrow(
      "announced",
    );
    const nested = new Uint8Array(100_000).fill(0x81);
    nested.set([0xa1, 0x61, 0x61]);
    expect(() => decodeDeviceStateAs("crosvm", nested)).toThrow("levels");
    const list = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    expect(() => decodeDeviceStateAs("virtiofsd", Uint8Array.of(0, ...list))).toThrow("announced");
    const flows = passtState(2).slice();
    new DataView(flows.buffer).setUint32(58, 0xffff_ffff);
    expect(() => decodeDeviceStateAs("passt", flows)).toThrow("do not fit");
    expect(() =>
      decodeDeviceStateAs("crosvm", new TextEncoder().encode(`${'{"a":'.repeat(5000)}1${"}".repeat(5000)}`)),
    ).toThrow("levels");
  });
});

function expectTreeOrFormatError(form: (typeof deviceStateForms)[number], bytes: Uint8Array): void {
  try {
    expect(decodeDeviceStateAs(form, bytes).name).toBe("state");
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
  }
}
