import { Connection, RequestChannel } from "../../src/connection/mod.ts";
import { BackendClient } from "../../src/frontend/mod.ts";
import { createEventFd, disposeAll } from "../../src/sys/mod.ts";
import { dialects, payloads, REPLY_FLAGS, tableFor } from "../../src/wire/mod.ts";

export interface ScriptedAnswer {
  readonly request: number;
  readonly value: bigint;
  /** How many fds come with it. */
  readonly fds?: number;
}

/** A back-end that answers with u64 values from a script, and the client that asks it. */
export function scripted(
  answers: readonly ScriptedAnswer[],
): { readonly client: BackendClient } & Disposable {
  const [ours, peer] = Connection.pair();
  let next = 0;
  const answer = () => {
    const frame = peer.receive(0);
    if (typeof frame === "string") return;
    frame.fds[Symbol.dispose]();
    const { request, value, fds: count = 0 } = answers[next++]!;
    const fds = Array.from({ length: count }, (_, i) => createEventFd(`scripted ${i}`));
    peer.send(request, REPLY_FLAGS, payloads.value64.encode({ value }), fds);
    disposeAll(fds);
  };
  const channel = new RequestChannel(ours, { whileWaiting: answer, requestTimeoutMs: 1_000 });
  const client = new BackendClient(channel, tableFor(dialects.spec));
  return { client, [Symbol.dispose]: () => disposeAll([client, peer]) };
}
