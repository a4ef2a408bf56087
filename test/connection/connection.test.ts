import { describe, expect, test } from "bun:test";
import { Connection, type Frame, type Received } from "../../src/connection/mod.ts";
import { PeerError, ProtocolError } from "../../src/errors.ts";
import { MAX_PAYLOAD_BYTES } from "../../src/limits.ts";
import {
  createEventFd,
  disposeAll,
  type Fd,
  libc,
  NativeBuffer,
  setBufferSizes,
  UnixSocket,
} from "../../src/sys/mod.ts";
import { encodeHeader, HEADER_BYTES } from "../../src/wire/mod.ts";

/** A connection, and the bare socket of its peer. */
function half(messageTimeoutMs = 1_000): { connection: Connection; peer: UnixSocket } & Disposable {
  const [ours, peer] = UnixSocket.pair();
  const connection = new Connection(ours, { messageTimeoutMs });
  return { connection, peer, [Symbol.dispose]: () => disposeAll([connection, peer]) };
}

function message(request: number, payload: Uint8Array, size = payload.length): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  encodeHeader(new DataView(bytes.buffer), request, 1, size);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

function write(socket: UnixSocket, bytes: Uint8Array, fds: readonly Fd[] = []): void {
  const buffer = new NativeBuffer(bytes.length);
  buffer.bytes.set(bytes);
  expect(socket.send(buffer, 0, bytes.length, fds)).toBe(bytes.length);
}

function frame(connection: Connection, timeoutMs = 1_000): Frame {
  const received = connection.receive(timeoutMs);
  if (typeof received === "string") throw new Error(received);
  return received;
}

/** Runs a writer in another thread: the bytes, each piece after a pause. */
async function beside(
  socket: UnixSocket,
  pieces: readonly Uint8Array[],
  pauseMs: number,
  signalPid?: number,
): Promise<Disposable> {
  const worker = new Worker(new URL("../support/trickle-worker.ts", import.meta.url).href);
  await new Promise<void>((resolve) => {
    worker.onmessage = () => resolve();
    worker.postMessage({ fd: socket.fd.number, pieces, pauseMs, signalPid });
  });
  return { [Symbol.dispose]: () => worker.terminate() };
}

const PAYLOAD = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);

describe("framing", () => {
  test("split at every byte boundary, the message is the same", async () => {
    const whole = message(2, PAYLOAD);
    for (let cut = 1; cut < whole.length; cut++) {
      using pair = half();
      using _worker = await beside(pair.peer, [whole.subarray(0, cut), whole.subarray(cut)], 2);
      const { request, payload, fds } = frame(pair.connection);
      expect([request, [...payload], fds.count]).toEqual([2, [...PAYLOAD], 0]);
    }
  });

  test("header and payload in separate writes, fds with the header (libvhost-user)", () => {
    using pair = half();
    using fd = createEventFd("sent");
    const whole = message(12, PAYLOAD);
    write(pair.peer, whole.subarray(0, HEADER_BYTES), [fd]);
    write(pair.peer, whole.subarray(HEADER_BYTES));
    const received = frame(pair.connection);
    using fds = received.fds;
    expect([received.request, [...received.payload], fds.count]).toEqual([12, [...PAYLOAD], 1]);
  });

  test("two messages in one write are two, and the second one's fds stay with it", () => {
    using pair = half();
    using fd = createEventFd("sent");
    write(pair.peer, Buffer.concat([message(1, new Uint8Array(0)), message(2, PAYLOAD)]));
    expect(frame(pair.connection).request).toBe(1);
    expect(frame(pair.connection).request).toBe(2);
    write(pair.peer, message(3, PAYLOAD));
    write(pair.peer, message(4, PAYLOAD), [fd]);
    const first = frame(pair.connection);
    expect([first.request, first.fds.count]).toEqual([3, 0]);
    const second = frame(pair.connection);
    using fds = second.fds;
    expect([second.request, fds.count]).toEqual([4, 1]);
  });

  test("the largest payload passes, one byte more is refused before it is read, and never sent", () => {
    using pair = half();
    write(pair.peer, message(1, new Uint8Array(MAX_PAYLOAD_BYTES)));
    expect(frame(pair.connection).payload.length).toBe(MAX_PAYLOAD_BYTES);
    write(pair.peer, message(1, new Uint8Array(0), MAX_PAYLOAD_BYTES + 1));
    expect(() => pair.connection.receive(0)).toThrow(ProtocolError);
    expect(() => pair.connection.send(1, 1, new Uint8Array(MAX_PAYLOAD_BYTES + 1))).toThrow(ProtocolError);
  });
});

describe("file descriptors", () => {
  test("more than 32 are cut off by the kernel: the message is refused and none is leaked", () => {
    using pair = half();
    const fds = Array.from({ length: 16 }, (_, i) => createEventFd(`many ${i}`));
    // The kernel joins what is sent before the first read only up to a message with fds, so 33 must come in one.
    using stack = new DisposableStack();
    for (const fd of fds) stack.use(fd);
    sendManyFds(pair.peer, fds, 33);
    expect(() => pair.connection.receive(0)).toThrow("more than 32 fds");
  });

  test("with a message's later bytes are refused", () => {
    // Those that come within the header cannot be told from the header's own: the kernel joins the two.
    for (const cut of [HEADER_BYTES, HEADER_BYTES + 3]) {
      using pair = half();
      using fd = createEventFd("late");
      const whole = message(2, PAYLOAD);
      write(pair.peer, whole.subarray(0, cut));
      write(pair.peer, whole.subarray(cut), [fd]);
      expect(() => pair.connection.receive(0)).toThrow("later bytes");
    }
  });
});

describe("the end", () => {
  test("between two messages it is an end; inside one it is the peer's failure", () => {
    const whole = message(2, PAYLOAD);
    for (const cut of [0, 1, HEADER_BYTES, HEADER_BYTES + 1]) {
      using pair = half();
      if (cut > 0) write(pair.peer, whole.subarray(0, cut));
      pair.peer[Symbol.dispose]();
      if (cut === 0) expect(pair.connection.receive(0)).toBe("closed");
      else
        expect(() => pair.connection.receive(0)).toThrow(new PeerError("the peer hung up inside a message"));
    }
  });

  test("sending to a peer that hung up is a PeerError that says to connect again", () => {
    using pair = half();
    pair.peer[Symbol.dispose]();
    try {
      pair.connection.send(1, 1);
      throw new Error("sent");
    } catch (error) {
      expect(error).toBeInstanceOf(PeerError);
      expect((error as PeerError).reconnect).toBe(true);
    }
  });
});

test("signals end neither a receive nor a message (EINTR)", async () => {
  const onSignal = () => {};
  process.on("SIGUSR2", onSignal);
  using pair = half();
  const pieces = Array.from(message(2, PAYLOAD), (byte) => Uint8Array.of(byte));
  using _worker = await beside(pair.peer, pieces, 2, process.pid);
  expect([...frame(pair.connection).payload]).toEqual([...PAYLOAD]);
  process.off("SIGUSR2", onSignal);
});

describe("deadlines", () => {
  test("nothing within the time is nothing", async () => {
    using pair = half();
    expect(pair.connection.receive(0)).toBe("nothing");
    expect(pair.connection.receive(5)).toBe("nothing");
    expect(await pair.connection.receiveAsync(5)).toBe("nothing");
  });

  test("a message that stops half-way, and one that trickles for ever, end at the message's deadline", async () => {
    using stalled = half(30);
    write(stalled.peer, message(2, PAYLOAD).subarray(0, 15));
    expect(() => stalled.connection.receive(1_000)).toThrow("stopped inside a message for 30 ms");
    using trickled = half(60);
    const bytes = message(2, new Uint8Array(2000));
    using _worker = await beside(
      trickled.peer,
      Array.from(bytes, (byte) => Uint8Array.of(byte)),
      10,
    );
    expect(() => trickled.connection.receive(1_000)).toThrow("stopped inside a message for 60 ms");
  });

  test("nobody has to wait for the rest: what is here is kept, fds too, and the message's time runs on", async () => {
    using pair = half();
    using fd = createEventFd("sent");
    const whole = message(12, PAYLOAD);
    for (let at = 0; at < whole.length; at++) {
      expect(pair.connection.receive(0)).toBe("nothing");
      write(pair.peer, whole.subarray(at, at + 1), at === 0 ? [fd] : []);
    }
    expect(pair.connection.restTimeoutMs).toBeGreaterThan(0);
    const received = frame(pair.connection, 0);
    using fds = received.fds;
    expect([received.request, [...received.payload], fds.count]).toEqual([12, [...PAYLOAD], 1]);
    expect(pair.connection.restTimeoutMs).toBeUndefined();

    using stalled = half(5);
    const receivers = [() => stalled.connection.receiveAsync(1_000), async () => repeat(stalled.connection)];
    for (const receive of receivers) {
      write(stalled.peer, whole.subarray(0, 15), [fd]);
      await expect(receive()).rejects.toThrow("stopped inside a message for 5 ms");
    }
    write(stalled.peer, whole.subarray(0, 15), [fd]);
    expect(stalled.connection.receive(0)).toBe("nothing");
  });

  test("a message that fits as a whole is sent without waiting, or not at all", () => {
    using pair = half();
    setBufferSizes(pair.connection.socket, 4096);
    let sent = 0;
    while (pair.connection.trySend(7, 1, PAYLOAD)) sent++;
    expect(sent).toBeGreaterThan(0);
    using reader = new Connection(pair.peer);
    for (let i = 0; i < sent; i++) expect([...frame(reader).payload]).toEqual([...PAYLOAD]);
    expect(reader.receive(0)).toBe("nothing");
    expect(pair.connection.trySend(7, 1)).toBe(true);
  });

  test("a peer that does not read does not hold the sender for ever", () => {
    using pair = half(30);
    setBufferSizes(pair.connection.socket, 4096);
    const send = () => {
      for (let i = 0; i < 1000; i++) pair.connection.send(1, 1, new Uint8Array(MAX_PAYLOAD_BYTES));
    };
    expect(send).toThrow("took no bytes for 30 ms");
  });
});

function repeat(connection: Connection): Received {
  for (;;) {
    const received = connection.receive(0);
    if (received !== "nothing") return received;
  }
}

/** One message with `count` fds, by hand: UnixSocket itself refuses to send as many. */
function sendManyFds(socket: UnixSocket, fds: readonly Fd[], count: number): void {
  const block = new NativeBuffer(56 + 16 + HEADER_BYTES + 4 + 16 + count * 4 + 8);
  const [vector, bytes, control] = [56, 72, 88];
  block.bytes.set(message(3, new Uint8Array(0)), bytes);
  block.setPointer(16, block.address + vector);
  block.setPointer(24, 1);
  block.setPointer(32, block.address + control);
  block.setPointer(40, 16 + Math.ceil((count * 4) / 8) * 8);
  block.setPointer(vector, block.address + bytes);
  block.setPointer(vector + 8, HEADER_BYTES);
  block.setPointer(control, 16 + count * 4);
  block.view.setInt32(control + 8, 1, true);
  block.view.setInt32(control + 12, 1, true);
  for (let i = 0; i < count; i++)
    block.view.setInt32(control + 16 + i * 4, fds[i % fds.length]!.number, true);
  expect(libc.sendmsg(socket.fd.number, block.address, 0)).toBe(HEADER_BYTES);
}
