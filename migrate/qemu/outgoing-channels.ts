import { randomUUID } from "node:crypto";
import { PeerError } from "../../src/errors.ts";
import { Deadline, disposeAll, POLL, pollNow, UnixListener, type UnixSocket } from "../../src/sys/mod.ts";
import type { MigrationOverrides } from "./migration-settings.ts";
import { waitForMigrationEnd } from "./migration-state.ts";
import { qemuProcess } from "./qemu-process.ts";
import { qmpMigration, qmpParameters } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { qmpNothing } from "./qmp-messages.ts";

const ACCEPT_TIMEOUT_MS = 5_000;
const POLL_MS = 1;
const LOOK_MS = 50;

/** The stream's own connection, and one for each channel. */
export interface ChannelConnections {
  readonly stream: UnixSocket;
  readonly channels: readonly UnixSocket[];
}

/**
 * What a migration through channels needs; undefined where this QEMU (before 9.0) has no channels that find zeros themselves.
 */
export async function channelSettings(
  client: QmpClient,
  count: number,
): Promise<MigrationOverrides | undefined> {
  const parameters = await client.request("query-migrate-parameters", { answer: qmpParameters });
  if (!("zero-page-detection" in parameters)) return undefined;
  return {
    capabilities: { multifd: true },
    parameters: {
      "multifd-channels": count,
      "multifd-compression": "none",
      "zero-page-detection": "multifd",
    },
  };
}

/**
 * Starts the migration: QEMU connects to an abstract socket of ours, which no file stands for. Undefined when it cannot, being in
 * another network namespace: no migration is under way then.
 */
export async function openChannels(
  client: QmpClient,
  count: number,
): Promise<ChannelConnections | undefined> {
  const name = `vhu-${randomUUID()}`;
  using listener = UnixListener.abstract(name);
  const address = { transport: "socket", type: "unix", path: name, abstract: true, tight: true };
  const channels = [{ "channel-type": "main", addr: address }];
  await client.request("migrate", { answer: qmpNothing, arguments: { channels } });
  const sockets: UnixSocket[] = [];
  const deadline = new Deadline(ACCEPT_TIMEOUT_MS);
  try {
    for (let lookedMs = 0; sockets.length < count + 1; ) {
      if (pollNow(listener.fd, POLL.IN) !== 0) {
        const socket = listener.accept();
        if (isOf(client, socket)) sockets.push(socket);
        else socket[Symbol.dispose]();
        continue;
      }
      if (deadline.expired) throw new PeerError("QEMU did not connect its migration channels");
      lookedMs += POLL_MS;
      if (lookedMs % LOOK_MS === 0) {
        const { status } = await client.request("query-migrate", { answer: qmpMigration });
        if (status === "failed") return undefined;
      }
      await Bun.sleep(POLL_MS);
    }
    const [stream, ...rest] = sockets.splice(0) as [UnixSocket, ...UnixSocket[]];
    return { stream, channels: rest };
  } finally {
    if (sockets.length > 0) {
      disposeAll(sockets);
      await waitForMigrationEnd(client, ACCEPT_TIMEOUT_MS);
    }
  }
}

/** Anybody may connect: only QEMU, or whoever may do with it what he likes, is taken. */
function isOf(client: QmpClient, socket: UnixSocket): boolean {
  const { pid, uid } = socket.peerCredentials();
  return pid === qemuProcess(client.socketInode, client.peerPid)?.pid || uid === client.peerUser;
}
