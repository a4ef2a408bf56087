import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSession } from "../../../migrate/live/open-session.ts";
import { decodeToken } from "../../../migrate/live/pairing-token.ts";
import { runReceiver } from "../../../migrate/live/receiver.ts";
import { OperationsLog } from "../../../migrate/mod.ts";
import { CancelledError } from "../../../src/errors.ts";
import { Lines, LOCAL } from "./live-pair.ts";

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
