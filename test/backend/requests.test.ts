import { describe, expect, test } from "bun:test";
import type { FrontendClient } from "../../src/backend/mod.ts";
import { type BackendRequestHandler, FrontendServer } from "../../src/frontend/mod.ts";
import { createMemfd, type Fd, sizeOf } from "../../src/sys/mod.ts";
import { dialects, type Mmap, type ProtocolFeature, protocolFeature, tableFor } from "../../src/wire/mod.ts";
import { BackendRig } from "../support/backend-rig.ts";
import { TestDevice } from "../support/test-device.ts";

const UUID = Uint8Array.from({ length: 16 }, (_, i) => i);
const ALL: readonly ProtocolFeature[] = [
  "REPLY_ACK",
  "CONFIG",
  "BACKEND_REQ",
  "BACKEND_SEND_FD",
  "HOST_NOTIFIER",
  "SHARED_OBJECT",
  "SHMEM",
];

class RequestDevice extends TestDevice {
  override readonly protocolFeatures =
    protocolFeature.CONFIG |
    protocolFeature.HOST_NOTIFIER |
    protocolFeature.SHARED_OBJECT |
    protocolFeature.SHMEM |
    (1n << 31n);
  exported: Fd | undefined;

  sharedObject(): Fd | undefined {
    return this.exported?.duplicate();
  }
}

/** A rig whose back-end has a channel to a FrontendServer that writes down what it is asked. */
function withChannel(
  handler: Partial<BackendRequestHandler> = {},
  features = ALL,
  table = tableFor(dialects.spec),
) {
  const rig = new BackendRig({ device: new RequestDevice(2), table });
  rig.negotiate(features).shareMemory();
  const seen: unknown[] = [];
  const note =
    (name: string) =>
    (...args: unknown[]) =>
      void seen.push([
        name,
        ...args.map((arg) => (arg instanceof Object && "number" in arg ? sizeOf(arg as Fd) : arg)),
      ]);
  const all = {
    configChange: note("configChange"),
    hostNotifier: (index: number, area?: { fd: Fd; sizeBytes: number; offset: number }) =>
      void seen.push(["hostNotifier", index, area && [sizeOf(area.fd), area.sizeBytes, area.offset]]),
    sharedObjectAdd: note("add"),
    sharedObjectRemove: note("remove"),
    shmemMap: note("map"),
    shmemUnmap: note("unmap"),
    gpuMap: note("gpuMap"),
    externalMap: note("externalMap"),
    ...handler,
  };
  const bits = features.reduce((mask, name) => mask | table.protocolFeature[name]!, 0n);
  const { server, backendEnd } = FrontendServer.create(rig.loop, table, all, bits, rig.log);
  rig.owned.use(server);
  rig.client.setBackendReqFd(backendEnd.fd);
  backendEnd[Symbol.dispose]();
  rig.settle();
  const client = rig.device.frontend as FrontendClient;
  client.channel.whileWaiting = () => void rig.loop.runOnce(0);
  return { rig, seen, client };
}

describe("CONFIG_CHANGE", () => {
  test("is kept back while suspended, comes once at the wake, and at once while a ring runs", () => {
    const { rig, seen, client } = withChannel();
    using _rig = rig;
    client.configChange();
    client.configChange();
    rig.settle();
    expect(seen).toEqual([]);
    const ring = rig.ring().start();
    rig.settle();
    expect(seen).toEqual([["configChange"]]);
    client.configChange();
    rig.settle();
    expect(seen.length).toBe(2);
    ring.stop();
    client.configChange();
    rig.settle();
    expect(seen.length).toBe(2);
  });

  test("without CONFIG there is nobody to tell, and a lost channel is logged, once, and harms nothing", () => {
    const { rig, client } = withChannel({}, ["REPLY_ACK", "BACKEND_REQ"]);
    using _rig = rig;
    const ring = rig.ring().start();
    client.configChange();
    const lost = withChannel();
    using _lost = lost.rig;
    lost.rig.ring().start();
    using theirs = lost.client.channel.connection.socket.fd.duplicate();
    lost.client.channel.connection.socket.shutdown();
    lost.client.configChange();
    lost.client.configChange();
    expect(lost.rig.log.lines.filter(({ message }) => message.includes("could not be sent")).length).toBe(1);
    expect(theirs.isOpen).toBe(true);
    expect(ring.echo("fine")).toBe("fine");
  });
});

test("host notifiers and shared objects, with and without an fd", () => {
  using object = createMemfd("object", 8192);
  const { rig, seen, client } = withChannel({
    sharedObjectLookup: (uuid) => (uuid[0] === 0 ? object.duplicate() : undefined),
  });
  using _rig = rig;
  client.hostNotifier(1, { fd: object, sizeBytes: 4096, offset: 0 });
  client.hostNotifier(1, undefined);
  client.sharedObjectAdd(UUID);
  client.sharedObjectRemove(UUID);
  expect(seen).toEqual([
    ["hostNotifier", 1, [8192, 4096, 0]],
    ["hostNotifier", 1, undefined],
    ["add", UUID],
    ["remove", UUID],
  ]);
  using found = client.sharedObjectLookup(UUID);
  expect(sizeOf(found)).toBe(8192);
  expect(() => client.sharedObjectLookup(new Uint8Array(16).fill(9))).toThrow("knows no shared object");
  expect(() => rig.client.getSharedObject(UUID)).toThrow("exports no shared object");
  (rig.device as RequestDevice).exported = object;
  using own = rig.client.getSharedObject(UUID);
  expect(sizeOf(own)).toBe(8192);
});

test("a front-end that refuses says so, where REPLY_ACK was negotiated", () => {
  const { rig, client } = withChannel({ shmemUnmap: undefined } as never);
  using _rig = rig;
  const mapping: Mmap = { shmid: 3, fdOffset: 0, shmOffset: 0, sizeBytes: 4096, flags: 0 };
  expect(() => client.shmemUnmap(mapping)).toThrow("refused SHMEM_UNMAP");
  expect(rig.end).toBeUndefined();
});

test("a channel that came before SET_PROTOCOL_FEATURES asks for acknowledgements once they are negotiated", () => {
  using rig = new BackendRig({ device: new RequestDevice(1) });
  const [ours, theirs] = rig.pair();
  rig.client.setBackendReqFd(theirs.fd);
  theirs[Symbol.dispose]();
  rig.negotiate(ALL);
  let flags = 0;
  rig.device.frontend!.channel.whileWaiting = () => {
    const frame = ours.receive(0);
    if (typeof frame === "string") return;
    flags = frame.flags;
    ours.send(frame.request, 5, new Uint8Array(8));
  };
  rig.device.frontend!.sharedObjectAdd(UUID);
  expect(flags).toBe(9);
});

describe("shared memory regions", () => {
  test("GET_SHMEM_CONFIG: by shmid, counted", () => {
    const { rig } = withChannel();
    using _rig = rig;
    expect([...rig.client.getShmemConfig()]).toEqual([[3, 1 << 20]]);
  });

  test("a mapper is taken once, knows its mappings, and forgets them at a reset", () => {
    const { rig, seen, client } = withChannel();
    using _rig = rig;
    using file = createMemfd("file", 0x3000);
    const mapper = client.takeSharedMemoryMapper({ id: 3, sizeBytes: 0x8000 });
    expect(() => client.takeSharedMemoryMapper({ id: 3, sizeBytes: 0x8000 })).toThrow("was taken already");
    mapper.addMapping({ kind: "descriptor", fd: file, offset: 0x1000, sizeBytes: 0x2000 }, 0x4000, false);
    expect(seen).toEqual([
      ["map", { shmid: 3, fdOffset: 0x1000, shmOffset: 0x4000, sizeBytes: 0x2000, flags: 0 }, 0x3000],
    ]);
    expect(() =>
      mapper.addMapping({ kind: "sharedMemory", fd: file, sizeBytes: 0x1000 }, 0x5000, true),
    ).toThrow("has a mapping at 16384");
    expect(() =>
      mapper.addMapping({ kind: "sharedMemory", fd: file, sizeBytes: 0x1000 }, 0x7001, true),
    ).toThrow("is outside shared memory region 3");
    expect(() => mapper.removeMapping(0x5000)).toThrow("no mapping begins");
    mapper.removeMapping(0x4000);
    expect(seen[1]).toEqual([
      "unmap",
      { shmid: 3, fdOffset: 0, shmOffset: 0x4000, sizeBytes: 0x2000, flags: 0 },
    ]);
    mapper.addMapping({ kind: "sharedMemory", fd: file, sizeBytes: 0x1000 }, 0, true);
    rig.client.resetDevice();
    expect(mapper.mappings.size).toBe(0);
    mapper.addMapping({ kind: "sharedMemory", fd: file, sizeBytes: 0x1000 }, 0, true);
  });

  test("Vulkan and external memory are not the spec's", () => {
    const { rig, client } = withChannel();
    using _rig = rig;
    const mapper = client.takeSharedMemoryMapper({ id: 3, sizeBytes: 0x8000 });
    expect(() => mapper.addMapping({ kind: "external", pointer: 1n, sizeBytes: 4096 }, 0, true)).toThrow(
      '"spec" has no EXTERNAL_MAP',
    );
    expect(mapper.mappings.size).toBe(0);
  });

  test.each(["crosvm", "crosvm-2024"] as const)(
    "the four sources in the dialect %s, answered without REPLY_ACK too",
    (name) => {
      const features = ["CONFIG", "BACKEND_REQ", "SHMEM"] as const;
      const { rig, seen, client } = withChannel({}, features, tableFor(dialects[name]));
      using _rig = rig;
      expect([...rig.client.getShmemConfig()]).toEqual([[3, 1 << 20]]);
      using file = createMemfd("file", 0x1000);
      const mapper = client.takeSharedMemoryMapper({ id: 3, sizeBytes: 0x8000 });
      const sizeBytes = 0x1000;
      mapper.addMapping({ kind: "descriptor", fd: file, offset: 0, sizeBytes }, 0, true);
      mapper.addMapping({ kind: "sharedMemory", fd: file, sizeBytes }, 0x1000, false);
      const gpu = { handleType: 2, memoryIndex: 7, deviceUuid: UUID, driverUuid: UUID };
      mapper.addMapping({ kind: "vulkan", fd: file, ...gpu, sizeBytes }, 0x2000, true);
      mapper.addMapping({ kind: "external", pointer: 0x7000_0000_0000n, sizeBytes }, 0x3000, true);
      mapper.removeMapping(0x1000);
      rig.settle();
      const base = { shmid: 3, sizeBytes };
      expect(seen).toEqual([
        ["map", { ...base, fdOffset: 0, shmOffset: 0, flags: 1 }, 0x1000],
        ["map", { ...base, fdOffset: 0, shmOffset: 0x1000, flags: 0 }, 0x1000],
        ["gpuMap", { ...base, shmOffset: 0x2000, ...gpu }, 0x1000],
        ["externalMap", { ...base, shmOffset: 0x3000, pointer: 0x7000_0000_0000n }],
        ["unmap", expect.objectContaining({ ...base, shmOffset: 0x1000 })],
      ]);
      expect(rig.end).toBeUndefined();
    },
  );

  test("crosvm-2024: a refused mapping is an error and not remembered", () => {
    const { rig, client } = withChannel(
      { shmemMap: undefined } as never,
      ["BACKEND_REQ", "SHMEM"],
      tableFor(dialects["crosvm-2024"]),
    );
    using _rig = rig;
    using file = createMemfd("file", 0x1000);
    const mapper = client.takeSharedMemoryMapper({ id: 3, sizeBytes: 0x8000 });
    expect(() => mapper.addMapping({ kind: "sharedMemory", fd: file, sizeBytes: 0x1000 }, 0, true)).toThrow(
      "refused SHMEM_MAP",
    );
    expect(mapper.mappings.size).toBe(0);
  });
});
