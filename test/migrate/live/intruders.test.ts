import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectPlain, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { encodeFrame, FrameDecoder, FrameType } from "../../../migrate/live/frame.ts";
import type { Certificates } from "../../../migrate/live/mod.ts";
import { openSession } from "../../../migrate/live/open-session.ts";
import { ownCertificate } from "../../../migrate/live/own-certificate.ts";
import { decodeToken, encodeToken, PairingToken } from "../../../migrate/live/pairing-token.ts";
import type { Session } from "../../../migrate/live/session.ts";
import { UsageError } from "../../../src/errors.ts";
import { MAX_LIVE_STRANGERS } from "../../../src/limits.ts";
import { TestAuthority } from "../../support/certificates.ts";
import { TcpRelay } from "../../support/tcp-relay.ts";
import { LiveRig, LOCAL } from "./live-pair.ts";

/** A migration that is under way must not notice anything: it still says and hears. */
async function goesOn(rig: LiveRig, session: Session): Promise<void> {
  await session.say({ kind: "prepared" });
  const receiver = rig.sessions[0]!;
  expect((await receiver.next(AbortSignal.timeout(5_000))).kind).toBe("prepared");
  await receiver.say({ kind: "prepared" });
  expect((await session.next(AbortSignal.timeout(5_000))).kind).toBe("prepared");
  expect(session.reconnections).toBe(0);
}

function closed(socket: Socket): Promise<void> {
  socket.on("error", () => {});
  socket.resume();
  return new Promise((resolve) => socket.on("close", () => resolve()));
}

async function rawTls(port: number): Promise<Socket> {
  const socket = connectTls({ host: LOCAL, port, rejectUnauthorized: false });
  socket.on("error", () => {});
  await new Promise((resolve) => socket.once("secureConnect", resolve));
  return socket;
}

test("a wrong token is refused, and after five no token is good any more", async () => {
  using rig = await LiveRig.start();
  const { keyHash } = rig.certificate;
  const secret = new Uint8Array(16);
  const wrong = { security: { kind: "token" as const, token: { keyHash, secret } } };
  for (let i = 0; i < 5; i++) await expect(rig.open(wrong)).rejects.toThrow("the token is wrong");
  await expect(rig.open()).rejects.toThrow("closed: there were too many wrong tries");
  expect(rig.sessions).toEqual([]);
  expect(rig.logger.lines.filter((line) => line.includes("the token is wrong")).length).toBe(5);
});

test("a token is good once and for ten minutes", async () => {
  using rig = await LiveRig.start();
  using first = await rig.open();
  await expect(rig.open()).rejects.toThrow("used up");
  let now = 0;
  rig.token = new PairingToken(() => now);
  now = 600_000;
  await expect(rig.open()).rejects.toThrow("too old");
  await goesOn(rig, first);
});

test("a receiver with another key than the token's is not told the secret", async () => {
  using rig = await LiveRig.start();
  using other = await LiveRig.start();
  const token = { keyHash: rig.certificate.keyHash, secret: other.token.secret };
  await expect(other.open({ security: { kind: "token", token } })).rejects.toThrow("another receiver's");
  expect(other.token.isOpen).toBe(true);
  expect(other.sessions).toEqual([]);
});

test("plain text, garbage and other protocols get nowhere, and a migration that runs does not notice", async () => {
  using rig = await LiveRig.start();
  using session = await rig.open();
  for (const bytes of [
    "GET / HTTP/1.1\r\n\r\n",
    Buffer.alloc(200_000, 0x41),
    Buffer.from("16030100020100", "hex"),
  ]) {
    const socket = connectPlain({ host: LOCAL, port: rig.port });
    const end = closed(socket);
    socket.write(bytes);
    socket.end();
    await end;
  }
  const old = connectTls({ host: LOCAL, port: rig.port, rejectUnauthorized: false, maxVersion: "TLSv1.2" });
  await closed(old);
  await rig.logger.waitFor(/no TLS 1.3/);
  const inside = await rawTls(rig.port);
  inside.write(crypto.getRandomValues(new Uint8Array(4096)));
  await closed(inside);
  await rig.logger.waitFor(/ended before it said who it is/);
  await goesOn(rig, session);
});

test("a client of an older TLS is refused", async () => {
  using rig = await LiveRig.start();
  const options = { host: LOCAL, port: rig.port, rejectUnauthorized: false, maxVersion: "TLSv1.2" } as const;
  await closed(connectTls({ ...options, minVersion: "TLSv1.2" }));
  await rig.logger.waitFor(/no TLS 1.3 as it should be/);
  expect(rig.sessions).toEqual([]);
});

test("who says nothing, or very slowly, is closed; and so is one too many", async () => {
  using rig = await LiveRig.start({ strangerTimeoutMs: 400 });
  using session = await rig.open();
  const silent = await rawTls(rig.port);
  const slow = await rawTls(rig.port);
  const dribble = setInterval(() => slow.write(Uint8Array.of(2)), 50);
  await Promise.all([closed(silent), closed(slow)]);
  clearInterval(dribble);
  const raw = Array.from({ length: MAX_LIVE_STRANGERS + 4 }, () =>
    connectPlain({ host: LOCAL, port: rig.port }),
  );
  await Promise.all(raw.map(closed));
  await rig.logger.waitFor(new RegExp(`${MAX_LIVE_STRANGERS} others have not said who they are`));
  await goesOn(rig, session);
  expect(rig.server.strangerCount).toBe(0);
});

test("who says too much before it has said who it is, is closed", async () => {
  using rig = await LiveRig.start();
  const socket = await rawTls(rig.port);
  const end = closed(socket);
  const head = Buffer.alloc(16);
  head[0] = FrameType.hello;
  head.writeUInt32LE(1 << 20, 4);
  socket.write(head);
  await end;
  await rig.logger.waitFor(/a payload of 1048576 bytes is above the limit/);
});

test("what was recorded of one migration does not begin another", async () => {
  const insecure = { security: { kind: "insecure" as const } };
  using rig = await LiveRig.start(insecure);
  using relay = await TcpRelay.start({ host: LOCAL, port: rig.port });
  const recorded: Buffer[] = [];
  relay.onPiece = (bytes) => recorded.push(Buffer.from(bytes));
  using session = await rig.open({ ...insecure, streams: 1, address: { host: LOCAL, port: relay.port } });
  await goesOn(rig, session);
  relay.onPiece = undefined;
  expect(recorded.length).toBeGreaterThan(1);
  const replayed = connectPlain({ host: LOCAL, port: rig.port });
  const end = closed(replayed);
  for (const bytes of recorded) replayed.write(bytes);
  await end;
  await rig.logger.waitFor(/its words are of another connection/);
  expect(rig.sessions.length).toBe(1);
  await goesOn(rig, session);
});

test("nobody joins a migration without its secret", async () => {
  using rig = await LiveRig.start({ security: { kind: "insecure" } });
  using session = await rig.open({ security: { kind: "insecure" } });
  const { id } = session.identity;
  const socket = connectPlain({ host: LOCAL, port: rig.port });
  const end = closed(socket);
  const decoder = new FrameDecoder();
  socket.on("data", (bytes: Uint8Array) => {
    for (const frame of decoder.push(bytes)) {
      if (frame.type !== FrameType.greeting) continue;
      const { nonce } = JSON.parse(new TextDecoder().decode(frame.payload));
      const attach = { session: id, stream: 1, lastReceived: 0, proof: "00".repeat(32) };
      const words = new TextEncoder().encode(JSON.stringify({ vhu: "x", version: 1, nonce, attach }));
      socket.write(encodeFrame({ type: FrameType.hello, flags: 0, stream: 0, sequence: 0, payload: words }));
    }
  });
  await end;
  await rig.logger.waitFor(/does not know the secret/);
  await goesOn(rig, session);
});

test("a newer receiver, and a newer sender, are refused with both versions named", async () => {
  using rig = await LiveRig.start();
  const socket = await rawTls(rig.port);
  const end = closed(socket);
  const decoder = new FrameDecoder();
  socket.on("data", (bytes: Uint8Array) => {
    for (const frame of decoder.push(bytes)) {
      if (frame.type !== FrameType.greeting) continue;
      const { nonce } = JSON.parse(new TextDecoder().decode(frame.payload));
      const words = { vhu: "9.0", version: 7, nonce, open: { streams: 1, retryMs: 0 }, news: true };
      const payload = new TextEncoder().encode(JSON.stringify(words));
      socket.write(encodeFrame({ type: FrameType.hello, flags: 0, stream: 0, sequence: 0, payload }));
    }
  });
  await end;
  await rig.logger.waitFor(/vhu 9.0 speaks version 7 of the migration protocol, this one 1/);
  // A receiver of the future: it greets with versions that we do not speak.
  const future = Bun.listen({
    hostname: LOCAL,
    port: 0,
    socket: {
      open(client) {
        const words = { vhu: "9.0", versions: { from: 3, to: 7 }, nonce: "00".repeat(16), wants: "nothing" };
        const payload = new TextEncoder().encode(JSON.stringify(words));
        client.write(encodeFrame({ type: FrameType.greeting, flags: 0, stream: 0, sequence: 0, payload }));
      },
      data() {},
    },
  });
  try {
    const address = { host: LOCAL, port: future.port };
    const opening = openSession({
      address,
      security: { kind: "insecure" },
      streams: 1,
      retryMs: 0,
      version: "test",
    });
    await expect(opening).rejects.toThrow(
      "(vhu 9.0) speaks versions 3 to 7 of the migration protocol, this vhu 1",
    );
  } finally {
    future.stop(true);
  }
});

test("plain TCP is for loopback only, on both sides", async () => {
  const security = { kind: "insecure" as const };
  await expect(LiveRig.start({ security, address: { host: "0.0.0.0", port: 0 } })).rejects.toThrow(
    UsageError,
  );
  const address = { host: "192.0.2.1", port: 1 };
  await expect(openSession({ address, security, streams: 1, retryMs: 0, version: "t" })).rejects.toThrow(
    UsageError,
  );
});

test.skipIf(!TestAuthority.isPossible)(
  "with certificates: the right ones work; who has none, a foreign or an expired one, is refused on either side",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "vhu-certs-"));
    try {
      const authority = new TestAuthority(folder);
      const [server, client, old] = [
        authority.issue("b", 1),
        authority.issue("a", 1),
        authority.issue("old", -1),
      ];
      const own = ownCertificate(3_600_000);
      const foreign = { cert: own.certPem, key: own.keyPem };
      using rig = await LiveRig.start({ security: { kind: "certificates", certificates: server } });
      const opening = (certificates: Certificates, port = rig.port) =>
        rig.open({ address: { host: LOCAL, port }, security: { kind: "certificates", certificates } });
      using session = await opening(client);
      await goesOn(rig, session);
      await expect(opening(old)).rejects.toThrow("the receiver hung up");
      await rig.logger.waitFor(/certificate has expired/);
      await expect(opening({ ...client, ...foreign })).rejects.toThrow("the receiver hung up");
      await rig.logger.waitFor(/self signed certificate/);
      const none = connectTls({ host: LOCAL, port: rig.port, ca: server.ca });
      await closed(none);
      await rig.logger.waitFor(/PEER_DID_NOT_RETURN_A_CERTIFICATE/);
      // The sender trusts somebody else, or the receiver's has expired.
      await expect(opening({ ...client, ca: own.certPem })).rejects.toThrow("certificate is not accepted");
      using late = await LiveRig.start({ security: { kind: "certificates", certificates: old } });
      await expect(opening(client, late.port)).rejects.toThrow("certificate has expired");
      expect([rig.sessions.length, late.sessions.length]).toEqual([1, 0]);
      await goesOn(rig, session);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
);

test("a token survives spaces and small letters, and nothing else", () => {
  const parts = {
    keyHash: crypto.getRandomValues(new Uint8Array(32)),
    secret: crypto.getRandomValues(new Uint8Array(16)),
  };
  const token = encodeToken(parts);
  expect(token).toMatch(/^[A-Z2-7]{77}$/);
  expect(decodeToken(` ${token.toLowerCase().slice(0, 40)}-${token.slice(40)}\n`)).toEqual(parts);
  for (const bad of [token.slice(1), `${token}A`, token.replace(/^./, "1"), `${token.slice(0, -1)}7`, ""]) {
    expect(() => decodeToken(bad)).toThrow(UsageError);
  }
});
