import { expect, test } from "bun:test";
import { existsSync, statSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { type NbdExport, NbdServer } from "../../../migrate/storage/mod.ts";
import { requirePeers } from "../../peers/mod.ts";
import { NbdClientWords } from "../../support/nbd-client-words.ts";

const peers = requirePeers(["qemu-img"]);
const DISK_BYTES = 4 << 20;

/** A disk in memory. */
class Disk implements NbdExport {
  readonly bytes = new Uint8Array(DISK_BYTES).fill(0xee);
  readonly sizeBytes = DISK_BYTES;
  failure: Error | undefined;
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    this.bytes.set(bytes, offset);
  }
  async zero(offset: number, sizeBytes: number): Promise<void> {
    this.bytes.fill(0, offset, offset + sizeBytes);
  }
}

class Client implements Disposable {
  received = Buffer.alloc(0);
  isClosed = false;
  private constructor(readonly socket: Socket) {
    socket.on("data", (bytes) => {
      this.received = Buffer.concat([this.received, Buffer.from(bytes as Uint8Array)]);
    });
    socket.on("close", () => {
      this.isClosed = true;
    });
  }
  static async connect(path: string): Promise<Client> {
    const socket = connect(path);
    await new Promise<void>((resolve) => socket.once("connect", resolve));
    return new Client(socket);
  }
  async until(isThere: () => boolean): Promise<void> {
    for (let i = 0; i < 1000 && !isThere(); i++) await Bun.sleep(5);
    if (!isThere()) throw new Error("it did not come");
  }
  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

test("its socket is its user's alone, and goes with it", async () => {
  const server = await NbdServer.listen(new Map([["disk", new Disk()]]));
  expect(statSync(server.folder).mode & 0o777).toBe(0o700);
  server[Symbol.dispose]();
  expect(existsSync(server.folder)).toBe(false);
});

test.skipIf(peers === undefined)("QEMU writes a disk through it: data, zeros and all", async () => {
  const disk = new Disk();
  using server = await NbdServer.listen(new Map([["disk", disk]]));
  const content = new Uint8Array(DISK_BYTES);
  for (let at = 1 << 20; at < 2 << 20; at += 65_536)
    crypto.getRandomValues(content.subarray(at, at + 65_536));
  const path = join(server.folder, "content");
  writeFileSync(path, content);
  const source = Bun.spawn({
    cmd: [
      ...peers!["qemu-img"].command,
      ...["convert", "-n", "--image-opts", "--target-image-opts"],
      `driver=raw,file.driver=file,file.filename=${path}`,
      `driver=raw,file.driver=nbd,file.export=disk,file.server.type=unix,file.server.path=${server.path},discard=unmap`,
    ],
    stdio: ["ignore", "pipe", "pipe"],
  });
  const text = await new Response(source.stderr).text();
  expect({ status: await source.exited, text }).toEqual({ status: 0, text: "" });
  expect(Buffer.compare(disk.bytes, content)).toBe(0);
  expect(server.failure).toBeUndefined();
});

test("what goes wrong on the way is an error of the write, and whoever speaks no NBD is hung up on", async () => {
  const disk = new Disk();
  using server = await NbdServer.listen(new Map([["disk", disk]]));
  using client = await Client.connect(server.path);
  const words = new NbdClientWords();
  client.socket.write(words.hello());
  client.socket.write(words.go("nothing"));
  client.socket.write(words.go("disk"));
  client.socket.write(words.write(4096, new Uint8Array(512).fill(7)));
  await client.until(() => words.repliesIn(client.received).length === 1);
  expect(words.repliesIn(client.received)).toEqual([0]);
  expect(disk.bytes.subarray(4096, 4608).every((byte) => byte === 7)).toBe(true);
  disk.failure = new Error("the way is gone");
  client.socket.write(words.write(0, new Uint8Array(512)));
  client.socket.write(words.write(DISK_BYTES, new Uint8Array(512)));
  client.socket.write(words.read(0, 512));
  await client.until(() => words.repliesIn(client.received).length === 4);
  const [, ...errors] = words.repliesIn(client.received).sort((a, b) => a - b);
  expect(errors).toEqual([5, 22, 22]);
  expect(server.failure).toBe(disk.failure);
  using stranger = await Client.connect(server.path);
  stranger.socket.write("GET / HTTP/1.1\r\n\r\n");
  await stranger.until(() => stranger.isClosed);
});
