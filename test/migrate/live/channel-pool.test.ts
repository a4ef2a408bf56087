import { expect, test } from "bun:test";
import { ChannelPool } from "../../../migrate/live/channel-pool.ts";
import { PassBarrier } from "../../../migrate/live/pass-barrier.ts";
import { ReceivedMemory } from "../../../migrate/live/received-memory.ts";
import {
  createMemfd,
  type Fd,
  Mapping,
  NativeBuffer,
  POLL,
  pollNow,
  UnixSocket,
} from "../../../src/sys/mod.ts";
import { randomNumbers } from "../../fuzz/mutate.ts";
import { until } from "../../support/loop.ts";
import { multifdGreeting, multifdPacket } from "../../support/multifd-packets.ts";

const PAGE = 4096;
const REGION_BYTES = 4 << 20;
const PAGES = REGION_BYTES / PAGE;
const region = { id: 0, guestAddress: 0, sizeBytes: REGION_BYTES, name: "pc.ram" };
const SYNC = 1;
/** Fits into a socket that can be written to at all. */
const SEND_BYTES = 16 << 10;

/** A QEMU's end of its channels. */
class Channels {
  readonly ours: UnixSocket[] = [];
  readonly theirs: UnixSocket[] = [];

  static async open(count: number): Promise<Channels> {
    const channels = new Channels();
    for (let channel = 0; channel < count; channel += 1) {
      const [ours, theirs] = UnixSocket.pair();
      channels.ours.push(ours);
      channels.theirs.push(theirs);
      await channels.write(channel, multifdGreeting(channel));
    }
    return channels;
  }

  /** Never waits in the system call: the Workers that read need this thread. */
  async write(channel: number, bytes: Uint8Array): Promise<void> {
    const socket = this.ours[channel] as UnixSocket;
    const buffer = new NativeBuffer(bytes.length);
    buffer.bytes.set(bytes);
    for (let sent = 0; sent < bytes.length; ) {
      if (pollNow(socket.fd, POLL.OUT) === 0) await Bun.sleep(1);
      else sent += socket.send(buffer, sent, Math.min(bytes.length - sent, SEND_BYTES));
    }
  }

  async sync(): Promise<void> {
    for (const channel of this.ours.keys()) await this.write(channel, multifdPacket({ flags: SYNC }));
  }

  /** QEMU is done; the pool closes its ends when its Workers have seen that. */
  async close(): Promise<void> {
    for (const socket of this.ours) socket[Symbol.dispose]();
    await until(() => this.theirs.every(({ fd }) => !fd.isOpen));
  }
}

function contentOf(fd: Fd): Uint8Array {
  using mapping = Mapping.ofFd(fd, { sizeBytes: REGION_BYTES, readOnly: true });
  return new Uint8Array(mapping.window(0, REGION_BYTES)).slice();
}

function isZero(page: Uint8Array): boolean {
  return page.every((byte) => byte === 0);
}

/** Changes some pages a little, some wholly, and makes some equal to others or zero. */
function change(memory: Uint8Array, random: (below: number) => number, count: number): number[] {
  const changed = new Set<number>();
  for (let n = 0; n < count; n += 1) {
    const page = random(PAGES);
    const target = memory.subarray(page * PAGE, (page + 1) * PAGE);
    const kind = random(5);
    if (kind === 0) target.fill(0);
    else if (kind === 1) target.set(memory.subarray(random(PAGES) * PAGE).subarray(0, PAGE));
    else if (kind === 2) for (let at = 0; at < PAGE; at += 4) target[at] = random(256);
    else target[random(PAGE)] = 1 + random(255);
    changed.add(page);
  }
  return [...changed];
}

/** The pages in packets, each over any channel, as QEMU does. */
async function sendPages(
  channels: Channels,
  memory: Uint8Array,
  pages: readonly number[],
  random: (below: number) => number,
): Promise<void> {
  for (let at = 0; at < pages.length; at += 100) {
    const some = pages.slice(at, at + 100);
    const bytesOf = (page: number) => memory.subarray(page * PAGE, (page + 1) * PAGE);
    const normal = some.filter((page) => !isZero(bytesOf(page)));
    const zeros = some.filter((page) => isZero(bytesOf(page)));
    const packet = multifdPacket({
      block: region.name,
      offsets: normal.map((page) => page * PAGE),
      zeros: zeros.toReversed().map((page) => page * PAGE),
    });
    await channels.write(random(channels.ours.length), Buffer.concat([packet, ...normal.map(bytesOf)]));
  }
}

test.each([1, 2, 3])(
  "memory that comes through %d channels arrives as it is, pass after pass",
  async (count) => {
    const random = randomNumbers(20261125 + count);
    const channels = await Channels.open(count);
    using fd = createMemfd("test", REGION_BYTES);
    const received = new ReceivedMemory([region], () => fd);
    const barrier = new PassBarrier(count);
    // As a session does it: each stream in its order, what comes behind an end of a pass waits.
    const tails = Array.from({ length: count }, () => Promise.resolve());
    const then = (stream: number, work: () => void | Promise<void>) => {
      tails[stream - 1] = (tails[stream - 1] as Promise<void>).then(work);
    };
    using pool = new ChannelPool({
      count,
      cacheBytes: 64 * PAGE,
      send: async (stream, payload) => {
        const copy = payload.slice();
        then(stream, () => received.apply(copy));
      },
      endPass: async (stream) => then(stream, () => barrier.next(stream)),
      level: () => 1,
    });
    pool.regions = [region];
    pool.begin(channels.theirs);
    const memory = new Uint8Array(REGION_BYTES);
    change(memory, random, 700);
    await channels.sync();
    const all = Array.from({ length: PAGES }, (_, page) => page);
    await sendPages(channels, memory, all, random);
    for (let pass = 1; pass < 6; pass += 1) {
      await channels.sync();
      await sendPages(channels, memory, change(memory, random, 120), random);
    }
    await channels.sync();
    await pool.synchronised(7);
    await Promise.all(tails);
    expect(Buffer.compare(contentOf(fd), memory)).toBe(0);
    expect(pool.doneBytes).toBeGreaterThan(REGION_BYTES);
    await channels.close();
  },
);

test.each([
  ["a page of a block that nobody knows", { block: "other", offsets: [], zeros: [0] }, undefined],
  ["a page outside its block", { block: "pc.ram", offsets: [], zeros: [REGION_BYTES] }, undefined],
  ["a compressed packet", { flags: 6, block: "pc.ram", zeros: [0] }, "flags"],
])("%s ends the move with a typed error", async (_, fields, message) => {
  const channels = await Channels.open(1);
  using pool = new ChannelPool({
    ...{ count: 1, cacheBytes: PAGE, level: () => 1 },
    send: async () => {},
    endPass: async () => {},
  });
  pool.regions = [region];
  pool.begin(channels.theirs);
  await channels.sync();
  // Zeros are of no interest in the first pass.
  await sendPages(channels, new Uint8Array(REGION_BYTES).fill(1), [0], () => 0);
  await channels.sync();
  await channels.write(0, multifdPacket(fields));
  const failed = pool.synchronised(3);
  await expect(failed).rejects.toMatchObject({ code: "PEER" });
  if (message !== undefined) await expect(failed).rejects.toThrow(message);
  await channels.close();
});

test("channels that QEMU closes end what waits for them", async () => {
  const channels = await Channels.open(2);
  using pool = new ChannelPool({
    ...{ count: 2, cacheBytes: PAGE, level: () => undefined },
    send: async () => {},
    endPass: async () => {},
  });
  pool.regions = [region];
  pool.begin(channels.theirs);
  await channels.close();
  await expect(pool.synchronised(1)).rejects.toThrow("QEMU closed a multifd channel");
  expect(pool.signal.aborted).toBe(true);
});
