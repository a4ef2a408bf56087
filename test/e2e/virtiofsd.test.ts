import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeDeviceState } from "../../migrate/decode/mod.ts";
import { PeerError } from "../../src/errors.ts";
import { deviceTypes } from "../../src/frontend/mod.ts";
import { createMemfd } from "../../src/sys/mod.ts";
import { runVhu } from "../bin/run-vhu.ts";
import { requirePeers } from "../peers/mod.ts";
import { Driver, DriverMemory, type DriverState } from "../support/driver/mod.ts";
import { FuseClient, type FuseClientState } from "../support/fuse-client.ts";
import { FuseError } from "../support/fuse-wire.ts";
import { type PeerBackend, startPeerBackend } from "../support/peer-backend.ts";

const peers = requirePeers(["virtiofsd"]);
const TIMEOUT_MS = 120_000;
const MEMORY_BYTES = 16 << 20;
const FILES = 1000;
const HELD_OPEN = 10;
const TAG = "shared";
const ENOENT = 2;

let dir = "";
let shared = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-fs-"));
  shared = join(dir, "shared");
  mkdirSync(shared);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function startVirtiofsd(name: string): PeerBackend {
  return startPeerBackend({
    dir,
    name,
    command: (socketPath) => [
      ...peers!.virtiofsd.command,
      ...["--socket-path", socketPath, "--shared-dir", shared, "--sandbox", "none"],
    ],
  });
}

/** struct virtio_fs_config: 36 bytes of tag, u32 number of request queues. virtiofsd has no CONFIG: the VMM's own. */
function fsConfig(tag: string): Uint8Array {
  const config = Buffer.alloc(40);
  config.write(tag);
  config.writeUInt32LE(1, 36);
  return new Uint8Array(config);
}

async function connectDriver(
  daemon: PeerBackend,
  memory: DriverMemory,
  state?: DriverState,
): Promise<Driver> {
  return new Driver(await daemon.connect(), memory, {
    type: deviceTypes.fs,
    queueCount: 2,
    frontend: { localConfig: fsConfig(TAG) },
    ...(state === undefined ? {} : { state }),
  });
}

async function save(driver: Driver): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  await driver.frontend.saveState((bytes) => void pieces.push(bytes.slice()));
  return Buffer.concat(pieces);
}

const fileName = (i: number) => `folder-${i % 10}/file-${i}`;
const contentOf = (i: number) => Buffer.from(`content of file ${i}\n`.repeat(50 + (i % 7)));

function makeFiles(): void {
  for (let i = 0; i < 10; i++) mkdirSync(join(shared, `folder-${i}`));
  for (let i = 0; i < FILES; i++) writeFileSync(join(shared, fileName(i)), contentOf(i));
}

/** What a guest does before it is saved. */
function lookAround(client: FuseClient): void {
  expect(client.init().major).toBe(7);
  for (let i = 0; i < FILES; i++) {
    expect(client.lookup(fileName(i)).attr.sizeBytes).toBe(contentOf(i).length);
  }
  for (let i = 0; i < HELD_OPEN; i++) {
    client.open(fileName(i), i % 2 === 0 ? 0 : 2);
    expect(Buffer.from(client.read(fileName(i), 0, 100))).toEqual(contentOf(i).subarray(0, 100));
  }
  let refusal: unknown;
  try {
    client.lookup("no-such-file");
  } catch (error) {
    refusal = error;
  }
  expect(refusal).toBeInstanceOf(FuseError);
  expect((refusal as FuseError).errno).toBe(ENOENT);
}

/** What the guest finds afterwards: the nodes and handles that it knew, and a file system that still works. */
function goOn(client: FuseClient): void {
  for (let i = 0; i < HELD_OPEN; i++) {
    const wanted = contentOf(i);
    expect(Buffer.from(client.read(fileName(i), 100, 4096))).toEqual(wanted.subarray(100));
  }
  for (let i = 0; i < FILES; i++) expect(client.getattr(fileName(i)).sizeBytes).toBe(contentOf(i).length);
  const [changed, opened] = [fileName(1), fileName(500)];
  expect(client.write(changed, 0, Buffer.from("AFTER"))).toBe(5);
  expect(readFileSync(join(shared, changed)).subarray(0, 5).toString()).toBe("AFTER");
  client.open(opened);
  expect(Buffer.from(client.read(opened, 0, 4096))).toEqual(contentOf(500));
  for (let i = 0; i < HELD_OPEN; i++) client.release(fileName(i));
  client.forget(fileName(999));
  client.lookup(fileName(999));
}

describe.skipIf(!peers)("virtiofsd", () => {
  test(
    "vhu device probe: what it offers; it exits afterwards",
    async () => {
      await using daemon = startVirtiofsd("probed");
      await daemon.listening();
      const ran = await runVhu(["device", "probe", `unix:${daemon.socketPath}`, "--type", "fs", "--json"]);
      expect(ran.stderr).toBe("");
      expect(ran.status).toBe(0);
      const found = JSON.parse(ran.stdout) as Record<string, unknown>;
      expect(found.protocolFeatures).toEqual([
        ...["MQ", "LOG_SHMFD", "REPLY_ACK", "BACKEND_REQ", "BACKEND_SEND_FD", "RESET_DEVICE"],
        ...["CONFIGURE_MEM_SLOTS", "DEVICE_STATE"],
      ]);
      expect(found).toMatchObject({
        queues: 2,
        memorySlots: 509,
        canSaveState: true,
        qemuMigration: { possible: true },
        peer: { pid: daemon.process.pid },
      });
      expect(found.config).toBeUndefined();
      await daemon.process.exited;
    },
    TIMEOUT_MS,
  );

  test(
    "an idle one's state is saved and loaded into a second one",
    async () => {
      await using first = startVirtiofsd("first");
      using memory = new DriverMemory(MEMORY_BYTES);
      using driver = await connectDriver(first, memory);
      const state = await save(driver);
      expect(state.length).toBe(10);
      await using second = startVirtiofsd("second");
      using secondMemory = new DriverMemory(MEMORY_BYTES);
      using secondDriver = await connectDriver(second, secondMemory);
      expect(await secondDriver.frontend.loadState([state])).toBe(10);
      expect(Buffer.from(await save(secondDriver))).toEqual(Buffer.from(state));
    },
    TIMEOUT_MS,
  );

  test(
    "1,000 files looked up and 10 held open move to a second one after SIGKILL, and read on",
    async () => {
      makeFiles();
      let state: Uint8Array;
      let client: FuseClientState;
      let driverState: DriverState;
      using fd = createMemfd("guest that outlives both", MEMORY_BYTES);
      {
        await using first = startVirtiofsd("first");
        using memory = new DriverMemory(MEMORY_BYTES, fd.duplicate());
        using driver = await connectDriver(first, memory);
        expect(Buffer.from(driver.frontend.readConfig(0, 36)).toString()).toStartWith(`${TAG}\0`);
        driver.start();
        const fuse = new FuseClient(driver);
        lookAround(fuse);
        driver.sleep();
        state = await save(driver);
        // A source stays good until it is ended: it wakes, works, and gives the same state again.
        driver.wake();
        expect(fuse.getattr(fileName(7)).sizeBytes).toBe(contentOf(7).length);
        driver.sleep();
        expect(Buffer.from(await save(driver))).toEqual(Buffer.from(state));
        [client, driverState] = [fuse.exportState(), driver.exportState()];
        await first.kill();
      }
      const nodes = Object.keys(client.nodes).length;
      expect(nodes).toBe(FILES + 10);
      console.log(`virtiofsd: ${state.length} bytes of state for ${nodes} nodes, ${HELD_OPEN} of them open`);
      // Its default way to find an inode again is the name below its parent.
      for (let i = 0; i < FILES; i++) expect(Buffer.from(state).includes(`file-${i}`)).toBe(true);
      const [inodes, , handles] = decodeDeviceState(state, { type: "fs" })?.children ?? [];
      expect([inodes?.children?.length, handles?.children?.length]).toEqual([nodes + 1, HELD_OPEN]);

      await using second = startVirtiofsd("second");
      using memory = new DriverMemory(MEMORY_BYTES, fd.duplicate());
      using driver = await connectDriver(second, memory, driverState);
      await driver.frontend.loadState([state]);
      driver.start();
      goOn(new FuseClient(driver, JSON.parse(JSON.stringify(client))));
      driver.sleep();
    },
    TIMEOUT_MS,
  );

  test(
    "a state that names a file which is gone is refused at CHECK, and the source goes on",
    async () => {
      writeFileSync(join(shared, "doomed"), "still readable");
      await using first = startVirtiofsd("first");
      using memory = new DriverMemory(MEMORY_BYTES);
      using driver = await connectDriver(first, memory);
      driver.start();
      const fuse = new FuseClient(driver);
      fuse.init();
      fuse.lookup("doomed");
      fuse.open("doomed");
      rmSync(join(shared, "doomed"));
      driver.sleep();
      const state = await save(driver);
      await using second = startVirtiofsd("second");
      using secondMemory = new DriverMemory(MEMORY_BYTES);
      using secondDriver = await connectDriver(second, secondMemory);
      await expect(secondDriver.frontend.loadState([state])).rejects.toThrow(PeerError);
      driver.wake();
      expect(Buffer.from(fuse.read("doomed", 0, 100)).toString()).toBe("still readable");
    },
    TIMEOUT_MS,
  );
});
