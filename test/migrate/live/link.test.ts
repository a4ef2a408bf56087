import { expect, test } from "bun:test";
import { connect, createServer, type Server, type Socket } from "node:net";
import { connect as connectTls, createServer as createTls } from "node:tls";
import { Link } from "../../../migrate/live/link.ts";
import { ownCertificate } from "../../../migrate/live/own-certificate.ts";
import { MAX_LIVE_UNSENT_BYTES } from "../../../src/limits.ts";
import { LOCAL } from "./live-pair.ts";

const PIECE = new Uint8Array(1 << 20);

async function acceptedBy(server: Server, open: (port: number) => Socket, event: string) {
  const accepted = new Promise<Socket>((resolve) => server.once(event, resolve));
  await new Promise<void>((resolve) => server.listen(0, LOCAL, resolve));
  const peer = open((server.address() as { port: number }).port);
  peer.on("error", () => {});
  peer.pause();
  return { peer, socket: await accepted };
}

test.each(["plain", "TLS"])(
  "a peer that takes nothing is cut off before much waits for it: %s",
  async (kind) => {
    const { certPem: cert, keyPem: key } = ownCertificate(60_000);
    const server = kind === "TLS" ? createTls({ cert, key }) : createServer();
    const { peer, socket } = await acceptedBy(
      server,
      (port) =>
        kind === "TLS"
          ? connectTls({ host: LOCAL, port, rejectUnauthorized: false })
          : connect({ host: LOCAL, port }),
      kind === "TLS" ? "secureConnection" : "connection",
    );
    using link = new Link(socket, 1024);
    let end: Error | undefined;
    link.listen(
      () => {},
      (cause) => {
        end = cause;
      },
    );
    // The kernel takes some megabytes.
    const most = MAX_LIVE_UNSENT_BYTES + (64 << 20);
    for (let sent = 0; sent < most && end === undefined; sent += PIECE.length) {
      link.write(PIECE);
      await Bun.sleep(0);
    }
    expect(end?.message).toContain("takes nothing");
    peer.destroy();
    server.close();
  },
);
