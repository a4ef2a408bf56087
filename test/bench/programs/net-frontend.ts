/**
 * A network driver that keeps both its queues full and polls them: `net-frontend.ts SOCKET FRAME_BYTES WARM_UP_S SECONDS`.
 * Prints how many frames came back in a second.
 */
import { netFeature } from "../../../devices/net/mod.ts";
import { connectUnix } from "../../../src/sys/mod.ts";
import { virtioFeature } from "../../../src/wire/mod.ts";
import { Driver, DriverMemory } from "../../support/driver/mod.ts";

const QUEUE_SIZE = 256;
const HEADER_BYTES = 12;
/** The largest frame, header and all, in whole pages. */
const BUFFER_BYTES = 69632;
const MEMORY_BYTES = 2 * QUEUE_SIZE * BUFFER_BYTES + (1 << 20);
const MTU_FRAME_BYTES = 1514;
/** virtio 1.3, 5.1.6: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers. */
const FLAG_NEEDS_CSUM = 1;
const GSO_TCPV4 = 1;
const TURNS_PER_LOOK = 256;

const [socket = "", frameBytes = "64", warmUpS = "1", seconds = "1"] = process.argv.slice(2);
const sizeBytes = Number(frameBytes) + HEADER_BYTES;
using memory = new DriverMemory(MEMORY_BYTES);
using driver = new Driver(connectUnix(socket), memory, {
  type: { name: "net", id: 1, minQueues: 2 },
  queueCount: 2,
  queueSize: QUEUE_SIZE,
  deviceFeatures: netFeature.CSUM | netFeature.GUEST_CSUM | netFeature.GUEST_TSO4 | netFeature.HOST_TSO4,
  ringFeatures: virtioFeature.VERSION_1 | virtioFeature.RING_EVENT_IDX,
});
const [receive, transmit] = [driver.queues[0]!, driver.queues[1]!];
const buffers = (bytes: number, writable: boolean) =>
  Array.from({ length: QUEUE_SIZE }, () => [
    { guestAddress: memory.allocate(BUFFER_BYTES, 4096), sizeBytes: bytes, writable },
  ]);
const received = buffers(BUFFER_BYTES, true);
const sent = buffers(sizeBytes, false);
const header = new Uint8Array(HEADER_BYTES);
if (sizeBytes > MTU_FRAME_BYTES + HEADER_BYTES) header.set([FLAG_NEEDS_CSUM, GSO_TCPV4]);
for (const [token, pieces] of received.entries()) receive.add(pieces, token);
for (const [token, pieces] of sent.entries()) {
  memory.write(pieces[0]!.guestAddress, header);
  transmit.add(pieces, token);
}
driver.start();
for (const { ring } of driver.queues) ring.disableInterrupts();
receive.notify();
transmit.notify();

/** Takes what has come back and offers it again. Returns how many frames were received. */
function turn(): number {
  let frames = 0;
  for (let used = receive.ring.popUsed(); used !== undefined; used = receive.ring.popUsed()) {
    if (used.writtenBytes !== sizeBytes) throw new Error(`a frame came back with ${used.writtenBytes} bytes`);
    receive.add(received[used.token]!, used.token);
    frames++;
  }
  if (frames > 0) receive.notify();
  let completed = 0;
  for (let used = transmit.ring.popUsed(); used !== undefined; used = transmit.ring.popUsed()) {
    transmit.add(sent[used.token]!, used.token);
    completed++;
  }
  if (completed > 0) transmit.notify();
  return frames;
}

function framesPerSecond(durationS: number): number {
  const startNs = Bun.nanoseconds();
  let frames = 0;
  let elapsedS = 0;
  while (elapsedS < durationS) {
    for (let i = 0; i < TURNS_PER_LOOK; i++) frames += turn();
    elapsedS = (Bun.nanoseconds() - startNs) / 1e9;
  }
  return frames / elapsedS;
}

framesPerSecond(Number(warmUpS));
console.log(Math.round(framesPerSecond(Number(seconds))));
