import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { blkFeature } from "../../devices/blk/mod.ts";
import { baseFeatures, deviceTypes } from "../../src/frontend/mod.ts";
import { createMemfd } from "../../src/sys/mod.ts";
import { virtioFeature } from "../../src/wire/mod.ts";
import { requirePeers } from "../peers/mod.ts";
import { BlkDriver, Driver, DriverMemory, type DriverState } from "../support/driver/mod.ts";
import { type PeerBackend, startPeerBackend } from "../support/peer-backend.ts";

const peers = requirePeers(["qemu-storage-daemon"]);
const MiB = 1 << 20;
const IMAGE_BYTES = 64 * MiB;
const MEMORY_BYTES = 64 * MiB;
const TIMEOUT_MS = 120_000;
const { VERSION_1, RING_EVENT_IDX, RING_INDIRECT_DESC } = virtioFeature;

let dir = "";
let image = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-qsd-"));
  image = join(dir, "disk.raw");
  writeFileSync(image, "");
  truncateSync(image, IMAGE_BYTES);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function startDaemon(queueCount: number, name = "qsd"): PeerBackend {
  return startPeerBackend({
    dir,
    name,
    command: (socketPath) => [
      ...peers!["qemu-storage-daemon"].command,
      ...["--blockdev", `driver=file,node-name=d0,filename=${image}`],
      "--export",
      `type=vhost-user-blk,id=e0,node-name=d0,addr.type=unix,addr.path=${socketPath},writable=on,num-queues=${queueCount}`,
    ],
  });
}

async function connectDriver(
  daemon: PeerBackend,
  memory: DriverMemory,
  queueCount: number,
  ringFeatures = baseFeatures,
  state?: DriverState,
) {
  const options = {
    type: deviceTypes.blk,
    queueCount,
    ringFeatures,
    deviceFeatures: blkFeature.FLUSH | blkFeature.SEG_MAX,
  };
  return new Driver(await daemon.connect(), memory, {
    ...options,
    indirectPieces: 64,
    ...(state === undefined ? {} : { state }),
  });
}

/** Bytes that no other seed gives. */
function pattern(sizeBytes: number, seed: number): Uint8Array {
  const words = new Uint32Array(sizeBytes / 4);
  let word = (seed * 2654435761) | 1;
  for (let i = 0; i < words.length; i++) {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    words[i] = word;
  }
  return new Uint8Array(words.buffer);
}

function onHost(offset: number, sizeBytes: number): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  const fd = openSync(image, "r");
  try {
    expect(readSync(fd, bytes, 0, sizeBytes, offset)).toBe(sizeBytes);
    return bytes;
  } finally {
    closeSync(fd);
  }
}

function expectSame(got: Uint8Array, wanted: Uint8Array, what: string): void {
  expect(Buffer.compare(got, wanted), what).toBe(0);
}

const CASES = [1, 2].flatMap((queueCount) =>
  [
    { rings: "EVENT_IDX, indirect", ringFeatures: VERSION_1 | RING_EVENT_IDX | RING_INDIRECT_DESC },
    { rings: "EVENT_IDX", ringFeatures: VERSION_1 | RING_EVENT_IDX },
    { rings: "plain", ringFeatures: VERSION_1 },
  ].map((rings) => ({ queueCount, ...rings })),
);

describe.skipIf(!peers)("qemu-storage-daemon's disk", () => {
  test.each(CASES)(
    "$queueCount queues, $rings: 4 KiB to 1 MiB written and read, the same on the host",
    async ({ queueCount, ringFeatures }) => {
      await using daemon = startDaemon(queueCount);
      using memory = new DriverMemory(MEMORY_BYTES);
      using driver = await connectDriver(daemon, memory, queueCount, ringFeatures);
      expect(driver.features & baseFeatures).toBe(ringFeatures);
      driver.start();
      const blk = new BlkDriver(driver, MiB);
      let offset = 0;
      for (const sizeBytes of [4096, 16384, 65536, 262144, MiB]) {
        for (let queue = 0; queue < queueCount; queue++) {
          // Whole, and cut into pieces: those fill an indirect table, or descriptors of the ring.
          for (const pieceBytes of [sizeBytes, Math.max(512, sizeBytes / 32)]) {
            const bytes = pattern(sizeBytes, offset + queue + 1);
            blk.write(queue, offset, bytes, pieceBytes);
            expectSame(onHost(offset, sizeBytes), bytes, `${sizeBytes} bytes at ${offset} in the image`);
            const back = blk.read((queue + 1) % queueCount, offset, sizeBytes, pieceBytes);
            expectSame(back, bytes, `${sizeBytes} bytes at ${offset} read back`);
            offset += sizeBytes;
          }
        }
      }
      for (let queue = 0; queue < queueCount; queue++) blk.flush(queue);
      expect(blk.id(0)).toBe("vhost_user_blk");
      expect(Number(new DataView(driver.frontend.readConfig(0, 8).buffer).getBigUint64(0, true)) * 512).toBe(
        IMAGE_BYTES,
      );
    },
    TIMEOUT_MS,
  );

  test(
    "8192 writes, 64 in flight, over more than one turn of the ring",
    async () => {
      await using daemon = startDaemon(1);
      using memory = new DriverMemory(MEMORY_BYTES);
      using driver = await connectDriver(daemon, memory, 1);
      driver.start();
      const blk = new BlkDriver(driver, 4096, 64);
      const writes = Array.from({ length: 8192 }, (_, i) => ({
        offset: i * 4096,
        bytes: pattern(4096, i + 1),
      }));
      const startMs = performance.now();
      blk.writeBatch(0, writes);
      blk.flush(0);
      const seconds = (performance.now() - startMs) / 1000;
      console.log(`qemu-storage-daemon: ${writes.length} writes of 4 KiB in ${seconds.toFixed(2)} s`);
      expectSame(
        readFileSync(image).subarray(0, 8192 * 4096),
        Buffer.concat(writes.map(({ bytes }) => bytes)),
        "image",
      );
    },
    TIMEOUT_MS,
  );

  test(
    "the driver sleeps, wakes and goes on; a restarted daemon has all that was flushed",
    async () => {
      using memory = new DriverMemory(MEMORY_BYTES);
      const bytes = [1, 2, 3, 4].map((seed) => pattern(65536, seed));
      {
        await using daemon = startDaemon(2, "first");
        using driver = await connectDriver(daemon, memory, 2);
        driver.start();
        const blk = new BlkDriver(driver, MiB);
        blk.write(0, 0, bytes[0]!);
        driver.sleep();
        // One write; queue 1 was never used.
        expect(driver.queues.map(({ base }) => base)).toEqual([1, 0]);
        driver.wake();
        blk.write(1, 65536, bytes[1]!);
        blk.flush(1);
        driver.frontend.reset();
        await daemon.kill();
      }
      await using daemon = startDaemon(2, "second");
      using driver = await connectDriver(daemon, memory, 2);
      driver.start();
      const blk = new BlkDriver(driver, MiB);
      blk.write(0, 131072, bytes[2]!);
      for (const seed of [0, 1, 2])
        expectSame(blk.read(1, seed * 65536, 65536), bytes[seed]!, `write ${seed}`);
      // The same daemon again, as after a crash of the VMM: it takes one front-end after the other.
      driver[Symbol.dispose]();
      using again = await connectDriver(daemon, memory, 1);
      again.start();
      const second = new BlkDriver(again, MiB);
      second.write(0, 196608, bytes[3]!);
      for (const seed of [0, 1, 2, 3])
        expectSame(second.read(0, seed * 65536, 65536), bytes[seed]!, `write ${seed}`);
    },
    TIMEOUT_MS,
  );

  test(
    "it sleeps with requests in flight: what it took is completed before the rings stop, the rest afterwards",
    async () => {
      await using daemon = startDaemon(1);
      using memory = new DriverMemory(MEMORY_BYTES);
      using driver = await connectDriver(daemon, memory, 1);
      driver.start();
      const blk = new BlkDriver(driver, MiB, 16);
      const writes = Array.from({ length: 16 }, (_, i) => ({ offset: i * MiB, bytes: pattern(MiB, i + 1) }));
      const finish = blk.beginWrites(0, writes);
      driver.sleep();
      // The daemon itself does not wait at GET_VRING_BASE; after `sleep` nothing moves any more.
      const [queue] = driver.queues;
      expect(queue!.usedIndex).toBe(queue!.base);
      for (const { offset, bytes } of writes.slice(0, queue!.base)) {
        expectSame(onHost(offset, MiB), bytes, `write at ${offset} before the wake`);
      }
      driver.wake();
      finish();
      for (const { offset, bytes } of writes) expectSame(onHost(offset, MiB), bytes, `write at ${offset}`);
    },
    TIMEOUT_MS,
  );

  test(
    "a request that was never kicked is served by the next daemon, whose driver has new eventfds",
    async () => {
      using fd = createMemfd("guest that outlives both", MEMORY_BYTES);
      const bytes = pattern(65536, 1);
      let state: DriverState;
      {
        await using daemon = startDaemon(1, "first");
        using memory = new DriverMemory(MEMORY_BYTES, fd.duplicate());
        using driver = await connectDriver(daemon, memory, 1);
        driver.start();
        const blk = new BlkDriver(driver, MiB);
        blk.write(0, 65536, bytes);
        blk.submitWrite(0, 0, 0, bytes);
        driver.sleep();
        state = driver.exportState();
        await daemon.kill();
      }
      expect(state.queues[0]!.base).toBe(1);
      await using daemon = startDaemon(1, "second");
      using memory = new DriverMemory(MEMORY_BYTES, fd.duplicate());
      using driver = await connectDriver(daemon, memory, 1, baseFeatures, state);
      driver.start();
      driver.wait(0);
      expectSame(onHost(0, bytes.length), bytes, "the write that waited");
    },
    TIMEOUT_MS,
  );
});
