import { CompatibilityError } from "../errors.ts";
import { IoVector, NativeBuffer, readAt, signalEvent, syscallError, type UnixSocket } from "../sys/mod.ts";
import { describeFeatures, virtioFeature } from "../wire/mod.ts";
import type { SharedRegion } from "./backend-client.ts";
import type { Interrupt } from "./interrupt.ts";
import { VhostUserFrontend } from "./vhost-user-frontend.ts";
import type { QueueSetup } from "./virtio-device.ts";

export interface ReconnectOptions {
  /**
   * Go on without an inflight buffer. Only right where the device completes its requests in order: what was in flight is
   * then exactly what lies behind the used index.
   */
  readonly completesInOrder?: boolean | undefined;
}

/**
 * Takes up a device whose back-end died, with a new back-end behind `socket`: negotiates the same features, gives it the
 * inflight buffer, and starts the queues where the driver left them. Every request that the driver has not got back is
 * served once more by the new back-end; none is lost.
 *
 * `old` is disposed of once the new front-end runs; after an error it is as before, and another socket can be tried.
 *
 * @param queues as they were activated; the base of a split ring is read from its used ring, as QEMU does it. A packed
 *   ring's position is in the inflight buffer alone.
 * @throws CompatibilityError when the new back-end lacks what the driver uses, or requests could be lost; PeerError
 */
export function reconnect(
  old: VhostUserFrontend,
  socket: UnixSocket,
  memory: readonly SharedRegion[],
  interrupt: Interrupt,
  queues: readonly QueueSetup[],
  options: ReconnectOptions = {},
): VhostUserFrontend {
  using stack = new DisposableStack();
  stack.use(socket);
  if (queues.length > 0) requireRecoverable(old, options);
  const next = stack.use(new VhostUserFrontend(socket, old.loop, old.options));
  requireSame(old, next);
  next.ackFeatures(old.ackedFeatures & ~virtioFeature.PROTOCOL_FEATURES);
  if (old.inflight !== undefined) {
    next.adoptInflight({ layout: old.inflight.layout, fd: old.inflight.fd.duplicate("inflight buffer") });
  }
  const packed = (old.ackedFeatures & virtioFeature.RING_PACKED) !== 0n;
  const resumed = queues.map((queue) => (packed ? queue : { ...queue, base: usedIndex(memory, queue.used) }));
  if (resumed.length > 0) next.activate(memory, interrupt, resumed);
  for (const { kick, vector } of resumed) {
    // The old back-end may have taken the kick, or died between a completion and its interrupt.
    signalEvent(kick);
    signalEvent(interrupt.callFor(vector));
  }
  stack.move();
  old[Symbol.dispose]();
  return next;
}

function requireRecoverable(old: VhostUserFrontend, options: ReconnectOptions): void {
  const packed = (old.ackedFeatures & virtioFeature.RING_PACKED) !== 0n;
  if (old.inflight !== undefined || (options.completesInOrder && !packed)) return;
  throw new CompatibilityError(
    "the back-end that died kept no inflight buffer (INFLIGHT_SHMFD): which requests it had is unknown; reset the device",
  );
}

function requireSame(old: VhostUserFrontend, next: VhostUserFrontend): void {
  const features = describeFeatures(old.ackedFeatures & ~next.offeredFeatures, virtioFeature);
  const protocol = describeFeatures(old.protocolFeatures & ~next.protocolFeatures, next.protocolFeatureBits);
  const missing = [...features, ...protocol];
  if (missing.length > 0) {
    throw new CompatibilityError(`the new back-end lacks what the driver uses: ${missing.join(", ")}`);
  }
  if (next.queueMaxSizes.length < old.queueMaxSizes.length) {
    throw new CompatibilityError(
      `the new back-end has ${next.queueMaxSizes.length} queues, the old one had ${old.queueMaxSizes.length}`,
    );
  }
}

/** The index of a split ring's used ring, 2 bytes into it. */
function usedIndex(memory: readonly SharedRegion[], usedAddress: number): number {
  for (const { layout, fd } of memory) {
    const offset = usedAddress - layout.guestAddress;
    if (offset < 0 || offset >= layout.sizeBytes) continue;
    const buffer = new NativeBuffer(2);
    const vector = new IoVector(1);
    vector.push(buffer.address, 2);
    if (readAt(fd, vector, layout.mmapOffset + offset + 2) !== 2) throw syscallError("preadv", fd.label);
    return buffer.view.getUint16(0, true);
  }
  throw new CompatibilityError(`the used ring at 0x${usedAddress.toString(16)} is in no memory region`);
}
