import { describe, expect, test } from "bun:test";
import {
  type Answer,
  Connection,
  PendingReply,
  RequestChannel,
  type RequestHandlers,
  RequestServer,
} from "../../src/connection/mod.ts";
import { PeerError, ProtocolError, StateError } from "../../src/errors.ts";
import { createEventFd, disposeAll } from "../../src/sys/mod.ts";
import {
  dialects,
  frontendMessages,
  headerFlag,
  payloads,
  REPLY_FLAGS,
  tableFor,
} from "../../src/wire/mod.ts";

const { GET_FEATURES, SET_FEATURES, GET_QUEUE_NUM, SET_OWNER } = frontendMessages;

function channel(whileWaiting?: (peer: Connection) => void, timeoutMs = 200) {
  const [ours, peer] = Connection.pair();
  const channel = new RequestChannel(ours, {
    requestTimeoutMs: timeoutMs,
    whileWaiting: whileWaiting && (() => whileWaiting(peer)),
  });
  return { channel, peer, [Symbol.dispose]: () => disposeAll([channel, peer]) };
}

/** A peer that answers every request with these header fields and this payload. */
function answering(request: number | undefined, flags: number, payload: Uint8Array) {
  return (peer: Connection) => {
    const frame = peer.receive(0);
    if (typeof frame === "string") return;
    frame.fds[Symbol.dispose]();
    peer.send(request ?? frame.request, flags, payload);
  };
}

const u64 = (value: bigint) => payloads.value64.encode({ value });

describe("asking", () => {
  test("a reply is taken; an acknowledgement is asked for only where REPLY_ACK was negotiated", () => {
    const seen: number[] = [];
    using pair = channel((peer) => {
      const frame = peer.receive(0);
      if (typeof frame === "string") return;
      seen.push(frame.flags);
      peer.send(frame.request, REPLY_FLAGS, u64(frame.request === SET_FEATURES.number ? 0n : 5n));
    });
    const answer: Answer<{ value: bigint }> = pair.channel.call(GET_FEATURES, {});
    expect(answer.reply.value).toBe(5n);
    pair.channel.send(SET_FEATURES, { value: 1n });
    pair.channel.replyAck = true;
    const frame = pair.peer.receive(0);
    expect(frame).toMatchObject({ flags: headerFlag.VERSION });
    pair.channel.send(SET_FEATURES, { value: 1n });
    expect(seen).toEqual([headerFlag.VERSION, headerFlag.VERSION | headerFlag.NEED_REPLY]);
  });

  test("a non-zero acknowledgement is a refusal, after which the channel goes on", () => {
    using pair = channel(answering(undefined, REPLY_FLAGS, u64(3n)));
    pair.channel.replyAck = true;
    expect(() => pair.channel.send(SET_FEATURES, { value: 1n })).toThrow(
      "refused SET_FEATURES (it answered 3)",
    );
    expect(pair.channel.call(GET_FEATURES, {}).reply.value).toBe(3n);
  });

  test.each([
    ["another request's number", GET_QUEUE_NUM.number, REPLY_FLAGS, u64(0n)],
    ["flags of a request", undefined, headerFlag.VERSION, u64(0n)],
    ["flags with NEED_REPLY", undefined, REPLY_FLAGS | headerFlag.NEED_REPLY, u64(0n)],
    ["another version", undefined, headerFlag.REPLY | 2, u64(0n)],
    ["too short a body", undefined, REPLY_FLAGS, new Uint8Array(4)],
  ] as const)("a reply with %s breaks the channel", (_what, request, flags, payload) => {
    using pair = channel(answering(request, flags, payload));
    expect(() => pair.channel.call(GET_FEATURES, {})).toThrow(ProtocolError);
    expect(pair.channel.isBroken).toBe(true);
    expect(() => pair.channel.call(GET_FEATURES, {})).toThrow(StateError);
  });

  test("surplus fds in a reply are refused and closed", () => {
    using pair = channel((peer) => {
      using fd = createEventFd("surplus");
      const frame = peer.receive(0);
      if (typeof frame !== "string") peer.send(frame.request, REPLY_FLAGS, u64(1n), [fd]);
    });
    expect(() => pair.channel.call(GET_FEATURES, {})).toThrow("1 file descriptors");
  });

  test("no answer in time breaks the channel: a late one would be taken for the next", () => {
    using pair = channel(undefined, 10);
    expect(() => pair.channel.call(GET_FEATURES, {})).toThrow("no answer to GET_FEATURES within 10 ms");
    pair.peer.send(GET_FEATURES.number, REPLY_FLAGS, u64(1n));
    expect(() => pair.channel.call(GET_QUEUE_NUM, {})).toThrow("unusable since an earlier request failed");
  });

  test("a peer that hung up, in line and async", async () => {
    using pair = channel();
    pair.peer[Symbol.dispose]();
    expect(() => pair.channel.call(GET_FEATURES, {})).toThrow(PeerError);
    using other = channel();
    other.peer.socket.shutdown();
    expect(other.channel.callAsync(GET_FEATURES, {})).rejects.toThrow(PeerError);
  });

  test("a message that could only be sent in part breaks the channel", () => {
    const [ours, peer] = Connection.pair({ messageTimeoutMs: 20 });
    using pair = new RequestChannel(ours);
    using _peer = peer;
    const fill = () => {
      for (let i = 0; i < 100_000; i++)
        pair.send(frontendMessages.SET_VRING_ADDR, {
          index: 0,
          flags: 0,
          descriptor: 0,
          used: 0,
          available: 0,
          log: 0,
        });
    };
    expect(fill).toThrow("took no bytes");
    expect(pair.isBroken).toBe(true);
  });

  test("whoever serves the peer meanwhile cannot ask in between, and the answer is not lost", () => {
    let inner: unknown;
    using pair = channel((peer) => {
      try {
        pair.channel.call(GET_QUEUE_NUM, {});
      } catch (error) {
        inner ??= error;
      }
      answering(undefined, REPLY_FLAGS, u64(8n))(peer);
    });
    expect(pair.channel.call(GET_FEATURES, {}).reply.value).toBe(8n);
    expect((inner as Error).message).toBe("cannot send GET_QUEUE_NUM while another answer is awaited");
  });
});

describe("answering", () => {
  function server(handlers: Partial<RequestHandlers>) {
    const [ours, peer] = Connection.pair();
    const all: RequestHandlers = {
      messages: tableFor(dialects.spec).frontend,
      replyAck: true,
      checkLegal: () => {},
      handle: () => undefined,
      failure: () => undefined,
      ...handlers,
    };
    return {
      server: new RequestServer(ours, all),
      peer,
      ours,
      [Symbol.dispose]: () => disposeAll([ours, peer]),
    };
  }
  const ack = headerFlag.VERSION | headerFlag.NEED_REPLY;

  test("an acknowledgement where it is asked for, none where not", () => {
    using pair = server({});
    pair.peer.send(SET_OWNER.number, headerFlag.VERSION);
    expect(pair.server.serveOne()).toBe("handled");
    expect(pair.peer.receive(0)).toBe("nothing");
    pair.peer.send(SET_OWNER.number, ack);
    pair.server.serveOne();
    expect(pair.peer.receive(0)).toMatchObject({ request: SET_OWNER.number, flags: REPLY_FLAGS });
  });

  test("a reply and a version 2 header: the connection cannot go on", () => {
    for (const flags of [REPLY_FLAGS, 2, 0x11]) {
      using pair = server({});
      pair.peer.send(SET_OWNER.number, flags);
      expect(() => pair.server.serveOne()).toThrow(ProtocolError);
    }
  });

  test("a late answer: nothing is read before it, and what its sending meets is told", () => {
    const pending = [new PendingReply(), new PendingReply()];
    let count = 0;
    using pair = server({ handle: () => pending[count++] });
    const ends: unknown[] = [];
    for (let i = 0; i < 2; i++) pair.peer.send(GET_FEATURES.number, headerFlag.VERSION);
    expect(pair.server.serveOne(0, (error) => ends.push(error))).toBe("pending");
    expect(pair.server.serveOne()).toBe("pending");
    pending[0]!.resolve({ body: { value: 4n } });
    expect(ends).toEqual([undefined]);
    expect(pair.peer.receive(0)).toMatchObject({ payload: u64(4n) });
    expect(pair.server.serveOne(0, (error) => ends.push(error))).toBe("pending");
    pair.peer[Symbol.dispose]();
    pending[1]!.resolve({ body: { value: 4n } });
    expect(ends[1]).toBeInstanceOf(PeerError);
  });

  test("when an answer cannot be sent there is no second one", () => {
    let refusals = 0;
    using pair = server({
      handle: () => ({ body: { value: 1n } }),
      failure: () => {
        refusals++;
        return { value: 0n };
      },
    });
    pair.peer.send(GET_FEATURES.number, headerFlag.VERSION);
    pair.peer[Symbol.dispose]();
    expect(() => pair.server.serveOne()).toThrow(PeerError);
    expect(refusals).toBe(0);
  });
});
