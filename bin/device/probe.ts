import { Connection, RequestChannel } from "../../src/connection/mod.ts";
import { CompatibilityError, PeerError, VhuError } from "../../src/errors.ts";
import {
  BackendClient,
  type DeviceTypeName,
  deviceTypes,
  type SharedMemoryRegionInfo,
} from "../../src/frontend/mod.ts";
import { MAX_CONFIG_BYTES } from "../../src/limits.ts";
import { connectUnix, executableOf } from "../../src/sys/mod.ts";
import { type MessageTable, type ProtocolFeature, virtioFeature } from "../../src/wire/mod.ts";
import { configSizes } from "./config-fields.ts";
import { type QemuMigration, qemuMigration } from "./qemu-migration.ts";

export interface ProbeOptions {
  readonly table: MessageTable;
  readonly timeoutMs: number;
  /** What the back-end is expected to be. */
  readonly type?: DeviceTypeName | undefined;
}

/** What a back-end says of itself. What it was not asked, because it lacks the feature for it, is undefined. */
export interface ProbeResult {
  readonly peer: { readonly pid: number; readonly executable: string | undefined };
  readonly features: bigint;
  readonly protocolFeatures: bigint;
  readonly queues: number | undefined;
  readonly memorySlots: number | undefined;
  readonly sharedMemoryRegions: readonly SharedMemoryRegionInfo[] | undefined;
  /** The bytes, or why they cannot be read. */
  readonly config: Uint8Array | VhuError | undefined;
  readonly canSaveState: boolean;
  readonly qemuMigration: QemuMigration;
}

/** Protocol features that only let questions be asked. */
const ASKING: readonly ProtocolFeature[] = ["MQ", "CONFIG", "CONFIGURE_MEM_SLOTS", "SHMEM"];

/**
 * Connects, asks, and hangs up. The session has no owner, no memory and no ring, and only features are negotiated without
 * which a question may not be asked.
 *
 * @throws PeerError when nobody answers, CompatibilityError when it cannot be of the type that it should be of
 */
export function probeBackend(path: string, { table, timeoutMs, type }: ProbeOptions): ProbeResult {
  const socket = connectUnix(path, timeoutMs);
  const connection = new Connection(socket, { messageTimeoutMs: timeoutMs });
  using client = new BackendClient(new RequestChannel(connection, { requestTimeoutMs: timeoutMs }), table);
  const { pid } = socket.peerCredentials();
  const features = client.getFeatures();
  const offered = (features & virtioFeature.PROTOCOL_FEATURES) === 0n ? 0n : client.getProtocolFeatures();
  const bitOf = (name: ProtocolFeature) => table.protocolFeature[name] ?? 0n;
  const has = (name: ProtocolFeature) => (offered & bitOf(name)) !== 0n;
  const asking = ASKING.filter(has).reduce((mask, name) => mask | bitOf(name), 0n);
  if (asking !== 0n) client.setProtocolFeatures(asking);
  const queues = has("MQ") ? client.getQueueNum() : undefined;
  requireQueues(type, queues);
  return {
    peer: { pid, executable: executableOf(pid) },
    features,
    protocolFeatures: offered,
    queues,
    memorySlots: has("CONFIGURE_MEM_SLOTS") ? client.getMaxMemSlots() : undefined,
    sharedMemoryRegions: has("SHMEM") ? sharedMemory(client) : undefined,
    canSaveState: has("DEVICE_STATE"),
    qemuMigration: qemuMigration(type, (features & virtioFeature.LOG_ALL) !== 0n, has),
    // Last: some back-ends hang up at a size that they do not like.
    config: has("CONFIG") ? readConfig(client, type) : undefined,
  };
}

function sharedMemory(client: BackendClient): readonly SharedMemoryRegionInfo[] {
  return [...client.getShmemConfig()].map(([id, sizeBytes]) => ({ id, sizeBytes }));
}

/** Nothing says how large a config space is: what is beyond its end is refused, so the size is what is not. */
function readConfig(client: BackendClient, type: DeviceTypeName | undefined): Uint8Array | VhuError {
  const sizes = configSizes(type);
  try {
    const whole = tryConfig(client, sizes?.mostBytes ?? MAX_CONFIG_BYTES);
    const bytes = whole ?? searchConfig(client, sizes?.mostBytes ?? MAX_CONFIG_BYTES);
    if (sizes !== undefined && bytes.length < sizes.leastBytes) {
      throw new CompatibilityError(
        `this is no ${type} device: its config space has ${bytes.length} bytes, at least ${sizes.leastBytes} are needed`,
      );
    }
    return bytes;
  } catch (error) {
    if (error instanceof VhuError && client.channel.isBroken) return error;
    throw error;
  }
}

/** The largest size below `refused` that is answered. */
function searchConfig(client: BackendClient, refused: number): Uint8Array {
  let best: Uint8Array = new Uint8Array(0);
  for (let over = refused; over - best.length > 1; ) {
    const sizeBytes = best.length + Math.floor((over - best.length) / 2);
    const bytes = tryConfig(client, sizeBytes);
    if (bytes === undefined) over = sizeBytes;
    else best = bytes;
  }
  return best;
}

function tryConfig(client: BackendClient, sizeBytes: number): Uint8Array | undefined {
  try {
    return client.getConfig(0, sizeBytes);
  } catch (error) {
    if (error instanceof PeerError && !client.channel.isBroken) return undefined;
    throw error;
  }
}

function requireQueues(type: DeviceTypeName | undefined, queues: number | undefined): void {
  if (type === undefined || queues === undefined || queues >= deviceTypes[type].minQueues) return;
  throw new CompatibilityError(
    `this is no ${type} device: it has ${queues} queues, at least ${deviceTypes[type].minQueues} are needed; leave out --type`,
  );
}
