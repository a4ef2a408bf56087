import { describe, expect, test } from "bun:test";
import {
  backendMessages,
  describeFeatures,
  dialects,
  frontendMessages,
  logBaseReply,
  protocolFeature,
  tableFor,
} from "../../src/wire/mod.ts";

const gateMask = (message: { gate: { space: string; mask?: bigint } } | undefined) => message?.gate.mask;

describe("tableFor", () => {
  test("spec: the tables themselves", () => {
    const table = tableFor(dialects.spec);
    expect([...table.frontend.values()]).toEqual(Object.values(frontendMessages));
    expect([...table.backend.values()]).toEqual(Object.values(backendMessages));
    expect(table.byName.frontend.GET_CONFIG).toBe(frontendMessages.GET_CONFIG);
    expect(table.frontend.get(44)?.name).toBe("GET_SHMEM_CONFIG");
    expect(table.protocolFeature).toEqual(protocolFeature);
  });

  test("SHMEM moves with the dialect, and takes its bit from what the spec has there", () => {
    const bits = Object.entries(dialects).map(([name, dialect]) => {
      const table = tableFor(dialect);
      expect(gateMask(table.byName.backend.SHMEM_MAP)).toBe(dialect.shmemFeature);
      expect(describeFeatures(dialect.shmemFeature, table.protocolFeature)).toEqual(["SHMEM"]);
      return [name, dialect.shmemFeature.toString(2).length - 1];
    });
    expect(Object.fromEntries(bits)).toEqual({
      spec: 22,
      "rust-vmm-0.16": 21,
      "libvhost-user-shmem": 20,
      dpdk: 22,
      crosvm: 22,
      "crosvm-2024": 31,
    });
    expect(tableFor(dialects["rust-vmm-0.16"]).protocolFeature.GPA_ADDRESSES).toBeUndefined();
    expect(tableFor(dialects["crosvm-2024"]).protocolFeature.GPA_ADDRESSES).toBe(1n << 21n);
  });

  test("other gates stay where they are", () => {
    for (const dialect of Object.values(dialects)) {
      expect(gateMask(tableFor(dialect).byName.frontend.GET_CONFIG)).toBe(protocolFeature.CONFIG);
    }
  });

  test("crosvm of today adds two messages", () => {
    const { backend, frontend } = tableFor(dialects.crosvm);
    expect([backend.get(1006)?.name, backend.get(1007)?.name]).toEqual(["GPU_MAP", "EXTERNAL_MAP"]);
    expect([backend.get(1006)?.replyRule, backend.get(9)?.replyRule]).toEqual(["always", "ack"]);
    expect(frontend.size).toBe(45);
  });

  test("crosvm of 2024 has its own numbers and layouts under the same names", () => {
    const { backend, frontend, byName } = tableFor(dialects["crosvm-2024"]);
    expect([frontend.get(1004)?.name, frontend.has(44), byName.frontend.GET_SHMEM_CONFIG]).toEqual([
      "GET_SHARED_MEMORY_REGIONS",
      false,
      undefined,
    ]);
    expect([1000, 1001, 1006, 1007].map((number) => backend.get(number)?.name)).toEqual([
      "SHMEM_MAP",
      "SHMEM_UNMAP",
      "GPU_MAP",
      "EXTERNAL_MAP",
    ]);
    expect([backend.has(9), backend.has(10)]).toEqual([false, false]);
    expect(byName.backend.SHMEM_MAP.sizeBytes.max).toBe(32);
    expect(byName.backend.SHMEM_UNMAP.replyRule).toBe("always");
  });

  test("its shared-memory-regions bit is an option of its own", () => {
    for (const bit of [17n, 20n, 31n]) {
      const { byName } = tableFor({ ...dialects["crosvm-2024"], shmemFeature: 1n << bit });
      expect(gateMask(byName.frontend.GET_SHARED_MEMORY_REGIONS)).toBe(1n << bit);
      expect(gateMask(byName.backend.EXTERNAL_MAP)).toBe(1n << bit);
    }
  });

  test("REM_MEM_REG may bring an fd only where the dialect allows it", () => {
    expect(tableFor(dialects.spec).byName.frontend.REM_MEM_REG.fds).toEqual({ min: 0, max: 1 });
    expect(tableFor(dialects["rust-vmm-0.16"]).byName.frontend.REM_MEM_REG.fds).toEqual({ min: 0, max: 0 });
  });
});

test("SET_LOG_BASE is answered as the dialect does, and every answer is one that a front-end takes", () => {
  const request = { sizeBytes: 0x4000, offset: 0 };
  const answers = Object.entries(dialects).map(([name, dialect]) => {
    const reply = logBaseReply(dialect, request, 0n);
    const codec = tableFor(dialect).byName.frontend.SET_LOG_BASE.reply!;
    expect(codec.decode(codec.encode(reply), name)).toEqual(reply);
    return [name, Buffer.from(reply.payload).toString("hex")];
  });
  expect(Object.fromEntries(answers)).toEqual({
    spec: "0000000000000000",
    "rust-vmm-0.16": "00400000000000000000000000000000",
    "libvhost-user-shmem": "0000000000000000",
    dpdk: "",
    crosvm: "0000000000000000",
    "crosvm-2024": "0000000000000000",
  });
});
