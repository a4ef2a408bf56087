import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { SenderSecurity } from "../../../migrate/live/mod.ts";
import { openSession } from "../../../migrate/live/open-session.ts";
import { decodeToken } from "../../../migrate/live/pairing-token.ts";
import { runReceiver } from "../../../migrate/live/receiver.ts";
import { OperationsLog } from "../../../migrate/mod.ts";
import { CancelledError } from "../../../src/errors.ts";
import { MAX_TOKEN_TRIES } from "../../../src/limits.ts";
import { Lines, LOCAL } from "./live-pair.ts";

const secretOf = (token: string) => ({ kind: "token" as const, token: decodeToken(token) });

test("a token that is closed is said to be, whether by wrong tries or by its age, and another one is given out", async () => {
  const folder = mkdtempSync(join(tmpdir(), "vhu-receiver-"));
  const [tokens, reasons]: [string[], (string | undefined)[]] = [[], []];
  let listensAt = 0;
  const end = new AbortController();
  const running = runReceiver({
    ...{ address: { host: LOCAL, port: 0 }, security: { kind: "token" }, version: "test", once: true },
    ...{ log: new OperationsLog(folder), logger: new Lines(), signal: end.signal, tokenLifetimeMs: 1_500 },
    policy: { allow: [], roots: [], socketFolder: folder, vhu: ["vhu"] },
    onReady: ({ port, token = "", why }) => {
      listensAt = port;
      tokens.push(token);
      reasons.push(why);
    },
    onArrival: async () => {},
    onFailure: () => {},
  });
  try {
    while (tokens.length < 1) await Bun.sleep(5);
    const { keyHash } = decodeToken(tokens[0]!);
    const wrong = { kind: "token" as const, token: { keyHash, secret: new Uint8Array(16) } };
    const open = (security: SenderSecurity) =>
      openSession({
        ...{ address: { host: LOCAL, port: listensAt }, streams: 1, retryMs: 0, version: "test" },
        security,
      });
    for (let count = 0; count < MAX_TOKEN_TRIES; count += 1) {
      await expect(open(wrong)).rejects.toThrow("the token is wrong");
    }
    expect(reasons).toEqual([undefined, "the last token is closed: 5 wrong ones were tried"]);
    while (tokens.length < 3) await Bun.sleep(5);
    expect(reasons[2]).toContain("the last token is closed: it was good for");
    await expect(open(secretOf(tokens[1]!))).rejects.toThrow("the token is wrong");
    const session = await open(secretOf(tokens[2]!));
    session.finish();
  } finally {
    end.abort(new CancelledError("over"));
    await running.catch(() => {});
    rmSync(folder, { recursive: true, force: true });
  }
});

test("a receiver of one machine gives out another token after a mere look, which used up the first", async () => {
  const folder = mkdtempSync(join(tmpdir(), "vhu-receiver-"));
  const tokens: string[] = [];
  let listensAt = 0;
  const end = new AbortController();
  const running = runReceiver({
    ...{ address: { host: LOCAL, port: 0 }, security: { kind: "token" }, version: "test", once: true },
    ...{ log: new OperationsLog(folder), logger: new Lines(), signal: end.signal },
    policy: { allow: [], roots: [], socketFolder: folder, vhu: ["vhu"] },
    onReady: ({ port, token = "" }) => {
      listensAt = port;
      tokens.push(token);
    },
    onArrival: async () => {},
    onFailure: () => {},
  });
  try {
    for (const count of [1, 2]) {
      while (tokens.length < count) await Bun.sleep(5);
      const session = await openSession({
        ...{ address: { host: LOCAL, port: listensAt }, streams: 1, retryMs: 0, version: "test" },
        security: { kind: "token", token: decodeToken(tokens[count - 1]!) },
      });
      const words = {
        host: "a",
        name: "m",
        type: "machine",
        architecture: "x",
        cpu: "c",
        machine: {},
      } as const;
      await session.say({
        ...{ kind: "offer", ...words, runState: "running", memoryBytes: 1, disks: [], checkOnly: true },
      });
      expect((await session.expect("checked")).ok).toBe(false);
      session.finish();
    }
  } finally {
    end.abort(new CancelledError("over"));
    await running.catch(() => {});
    rmSync(folder, { recursive: true, force: true });
  }
});
