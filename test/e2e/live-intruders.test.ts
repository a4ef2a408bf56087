import { expect, test } from "bun:test";
import { openSession } from "../../migrate/live/open-session.ts";
import { decodeToken } from "../../migrate/live/pairing-token.ts";
import type { SenderSecurity } from "../../migrate/live/security.ts";
import { TestAuthority } from "../support/certificates.ts";
import { dribble, sayNewer, throwAt } from "../support/intruders.ts";
import { type LiveHost, LiveHosts } from "../support/live-hosts.ts";
import { LiveMachine } from "../support/live-machine.ts";
import { NetNamespace } from "../support/net-namespace.ts";
import { TcpRelay } from "../support/tcp-relay.ts";
import type { VhuProcess } from "../support/vhu-process.ts";

const possible = NetNamespace.isPossible;
const LOCAL = "127.0.0.1";
const TEST_TIMEOUT_MS = 120_000;
const LOG_TIMEOUT_MS = 30_000;
const FILL_MIB = 24;

const garbage = () => crypto.getRandomValues(new Uint8Array(60_000));

async function open(port: number, security: SenderSecurity): Promise<void> {
  const address = { host: LOCAL, port };
  using _ = await openSession({ address, security, streams: 1, retryMs: 0, version: "test" });
}

/** The migration that went on meanwhile has not noticed anything. */
async function arrives(sender: VhuProcess, machine: LiveMachine, to: LiveHost): Promise<void> {
  await sender.process.exited;
  expect(sender.stderr()).toBe("");
  expect(sender.process.exitCode).toBe(0);
  const report = JSON.parse(sender.stdout().trim().split("\n").at(-1)!);
  expect(report).toMatchObject({ type: "summary", reconnections: 0 });
  machine.host = to;
  expect((await machine.runners()).map(({ name }) => name)).toEqual([to.name]);
  expect(await machine.verify()).toMatchObject({ lost: 0, torn: 0, repeated: 0, failures: [] });
}

test.skipIf(!possible)(
  "while a machine moves: plain text, garbage, slow talkers, wrong tokens, a newer sender and what was recorded are refused and logged, and it arrives",
  async () => {
    using hosts = new LiveHosts("loopback");
    await using machine = await LiveMachine.start(hosts);
    await machine.fill(FILL_MIB);
    const { receiver, token, port } = await hosts.b.receive();
    await using _ = receiver;
    using relay = await TcpRelay.start({ host: LOCAL, port });
    const recorded: Buffer[] = [];
    relay.onPiece = (bytes) => recorded.push(Buffer.from(bytes));
    // Longer than the ten seconds that a stranger has.
    const words = ["--json", "--bandwidth-max", "5M", "--token", token, machine.address];
    await using sender = hosts.a.vhu("migrate", "send", ...words, `tcp:${LOCAL}:${relay.port}`);
    await receiver.waitForStderr(/a migration begins/, LOG_TIMEOUT_MS);
    const slow = dribble(port);
    const { keyHash } = decodeToken(token);
    const wrong: SenderSecurity = { kind: "token", token: { keyHash, secret: new Uint8Array(16) } };
    await throwAt(port, Buffer.from("GET / HTTP/1.1\r\nHost: b\r\n\r\n"));
    await throwAt(port, garbage());
    await expect(open(port, wrong)).rejects.toThrow("the token is wrong");
    await expect(open(port, { kind: "token", token: decodeToken(token) })).rejects.toThrow("token is");
    await sayNewer(port);
    await throwAt(port, ...recorded.slice(0, 20));
    await slow;
    expect(sender.process.exitCode).toBeNull();
    for (const line of [
      /no TLS 1.3 as it should be/,
      /the token is wrong/,
      /vhu 9.0 speaks version 7 of the migration protocol, this one 1/,
      /did not say who it is in 10000 ms/,
    ]) {
      await receiver.waitForStderr(line, LOG_TIMEOUT_MS);
    }
    await arrives(sender, machine, hosts.b);
    // One migration, whatever else knocked.
    expect(receiver.stderr().match(/a migration begins/g)).toHaveLength(1);
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!possible || !TestAuthority.isPossible)(
  "while a machine moves with certificates: an expired one and none are refused and logged, and it arrives",
  async () => {
    using hosts = new LiveHosts("loopback");
    const authority = new TestAuthority(hosts.folder);
    for (const name of ["a", "b"]) authority.issue(name, 1);
    const old = authority.issue("old", -1);
    await using machine = await LiveMachine.start(hosts);
    await machine.fill(FILL_MIB);
    const certificates = (name: string) => [
      ...["--tls-cert", authority.path(`${name}.pem`), "--tls-key", authority.path(`${name}.key`)],
      ...["--tls-ca", authority.path("ca.pem")],
    ];
    const { receiver, target, port } = await hosts.b.receiveAs(certificates("b"));
    await using _ = receiver;
    const words = ["--json", "--bandwidth-max", "14M", ...certificates("a"), machine.address, target];
    await using sender = hosts.a.vhu("migrate", "send", ...words);
    await receiver.waitForStderr(/a migration begins/, LOG_TIMEOUT_MS);
    await expect(open(port, { kind: "certificates", certificates: old })).rejects.toThrow("hung up");
    await throwAt(port, Buffer.from("hello\n"));
    await sayNewer(port);
    // The command says it, too, and the machine of that command runs on.
    const late = await hosts.a.run("migrate", "check", ...certificates("old"), machine.address, target);
    expect(late.status).toBe(5);
    await receiver.waitForStderr(/certificate has expired/, LOG_TIMEOUT_MS);
    await receiver.waitForStderr(/PEER_DID_NOT_RETURN_A_CERTIFICATE/, LOG_TIMEOUT_MS);
    await arrives(sender, machine, hosts.b);
  },
  TEST_TIMEOUT_MS,
);
