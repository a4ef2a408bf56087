import { expect, test } from "bun:test";
import fc from "fast-check";
import { ChannelReader } from "../../../migrate/multifd/channel-reader.ts";
import { readGreeting, readPacket } from "../../../migrate/multifd/packet.ts";
import { FormatError } from "../../../src/errors.ts";
import { NativeBuffer, UnixSocket } from "../../../src/sys/mod.ts";
import { multifdGreeting, multifdPacket } from "../../support/multifd-packets.ts";

const PAGE = 4096;
const offset = fc.nat(2 ** 34).map((page) => page * PAGE);
const offsets = fc.uniqueArray(offset, { minLength: 1, maxLength: 128 });

test("a packet is read as QEMU has written it, its zeros in their order", () => {
  fc.assert(
    fc.property(offsets, fc.nat(128), fc.stringMatching(/^[a-z./0-9-]{1,100}$/), (list, at, block) => {
      const [normal, zeros] = [list.slice(0, at), list.slice(at)];
      const packet = readPacket(multifdPacket({ block, offsets: normal, zeros }));
      expect(packet).toEqual({
        ...{ isSync: false, block, offsets: normal },
        zeros: zeros.toSorted((a, b) => a - b),
      });
    }),
  );
  expect(readPacket(multifdPacket({ flags: 1 }))).toEqual({
    isSync: true,
    block: "",
    offsets: [],
    zeros: [],
  });
  expect(readGreeting(multifdGreeting(3))).toBe(3);
});

const good = () => multifdPacket({ block: "pc.ram", offsets: [0, PAGE], zeros: [2 * PAGE] });

test.each([
  ["another magic", 0, 0x11223345, "magic"],
  ["another version", 4, 2, "magic"],
  ["a compressed packet", 8, 4, "flags"],
  ["room for other pages", 12, 256, "room"],
  ["too many pages", 16, 129, "pages"],
  ["content of another size", 20, PAGE, "bytes of"],
  ["too many zero pages", 36, 127, "pages"],
  ["no block's name", 64, 0, "names no block"],
  ["a block's name that is no text", 64, 0xff_ff_ff_ff, "no text"],
  ["an offset within a page", 324, 7, "no page's offset"],
  ["an offset beyond all memory", 320, 0xffff_0000, "no page's offset"],
])("%s is refused", (_, at, word, message) => {
  const bytes = good();
  new DataView(bytes.buffer).setUint32(at, word);
  const read = () => readPacket(bytes);
  expect(read).toThrow(FormatError);
  expect(read).toThrow(message);
});

test("a greeting of something else is refused", () => {
  expect(() => readGreeting(new Uint8Array(64))).toThrow(FormatError);
});

test("a channel that ends within a packet is a fault, and between packets the end", () => {
  for (const [count, message] of [
    [0, undefined],
    [100, "cut off"],
    [good().length + PAGE, "cut off"],
  ] as const) {
    const [ours, theirs] = UnixSocket.pair();
    using reading = theirs;
    const whole = Buffer.concat([good(), new Uint8Array(2 * PAGE)]);
    const buffer = new NativeBuffer(whole.length);
    buffer.bytes.set(whole);
    if (count > 0) ours.send(buffer, 0, count);
    ours[Symbol.dispose]();
    const reader = new ChannelReader(reading);
    if (message === undefined) expect(reader.next()).toBeUndefined();
    else expect(() => reader.next()).toThrow(message);
  }
});
