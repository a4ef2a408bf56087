import { CompatibilityError } from "../../src/errors.ts";
import { readStateStream, writeStateStream } from "../../src/frontend/mod.ts";
import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS } from "../../src/limits.ts";
import { sniffState } from "../../src/state/mod.ts";
import { createPipe, disposeAll, type Fd } from "../../src/sys/mod.ts";
import type { MoveOptions, VmSink, VmSource } from "../driver.ts";
import type { SnapshotDevice } from "../snapshot/mod.ts";
import type { ControlClient } from "./control-client.ts";
import type { ExportedMachine } from "./control-protocol.ts";

type ExportedDevice = ExportedMachine["devices"][number];

/**
 * Gives every device's state to `sink`: all back-ends begin at once, and are read side by side.
 * @throws CompatibilityError where a back-end's state cannot be moved
 */
export async function saveDeviceStates(
  client: ControlClient,
  sink: VmSink,
  devices: readonly ExportedDevice[],
  options: MoveOptions,
): Promise<SnapshotDevice[]> {
  const fixed = devices.find(({ canMoveState }) => !canMoveState);
  if (fixed !== undefined) {
    throw new CompatibilityError(
      `the back-end of ${fixed.name} has no DEVICE_STATE: its state cannot be saved`,
    );
  }
  const saved: SnapshotDevice[] = [];
  const moves = devices.map((device, id) => ({
    device: device.name,
    move: async (fd: Fd) => {
      saved[id] = await saveState(sink, id, device, fd, options);
    },
  }));
  await transfer(client, "save", moves, options);
  return saved;
}

/** Gives every device its state from `source`, side by side. @throws FormatError where one is damaged */
export async function loadDeviceStates(
  client: ControlClient,
  source: VmSource,
  options: MoveOptions,
): Promise<void> {
  const moves = source.manifest.devices.map(({ id, name }) => ({
    device: name,
    move: (fd: Fd) => writeStateStream(fd, source.deviceState(id), { signal: options.signal }),
  }));
  await transfer(client, "load", moves, options);
}

async function saveState(
  sink: VmSink,
  id: number,
  device: ExportedDevice,
  fd: Fd,
  { signal }: MoveOptions,
): Promise<SnapshotDevice> {
  const { canMoveState: _, ...known } = device;
  const stream = sink.writeDeviceState(id);
  let head: Uint8Array | undefined;
  await readStateStream(
    fd,
    (bytes) => {
      head ??= bytes.slice(0, 64);
      stream.write(bytes);
    },
    { signal },
  );
  const { sizeBytes } = stream.finish();
  return { ...known, id, stateFormat: sniffState(head ?? new Uint8Array(0)).format, stateBytes: sizeBytes };
}

interface Move {
  readonly device: string;
  move(fd: Fd): Promise<unknown>;
}

/** Pipes whose far ends go straight to the back-ends: the bytes do not pass through the machine's process. */
async function transfer(
  client: ControlClient,
  direction: "save" | "load",
  moves: readonly Move[],
  { signal }: MoveOptions,
): Promise<void> {
  using stack = new DisposableStack();
  const under: Promise<unknown>[] = [];
  try {
    for (const { device, move } of moves) {
      const { readEnd, writeEnd } = createPipe();
      const [ours, theirs] = direction === "save" ? [readEnd, writeEnd] : [writeEnd, readEnd];
      stack.use(ours);
      using given = theirs;
      const request = { command: "state-begin", device, direction } as const;
      const { fds } = await client.request(request, { fds: [given], signal });
      stack.defer(() => disposeAll(fds));
      const moving = moveAndClose(move, fds.shift(), ours);
      // Its fault is met below.
      moving.catch(() => {});
      under.push(moving);
    }
  } finally {
    await Promise.allSettled(under);
  }
  await Promise.all(under);
  for (const { device } of moves) {
    const request = { command: "state-check", device } as const;
    await client.request(request, { signal, timeoutMs: DEFAULT_TRANSFER_IDLE_TIMEOUT_MS });
  }
}

/** Closed at once: the end of a load is seen by that, and other devices may take longer. */
async function moveAndClose(move: Move["move"], own: Fd | undefined, ours: Fd): Promise<void> {
  using fd = own ?? ours;
  await move(fd);
}
