import { controlEvent, decodeControlMessage, encodeControlMessage } from "../../devices/console/mod.ts";
import type { MachineDevice } from "./machine-device.ts";
import type { MachineMemory } from "./machine-memory.ts";
import { QueueBuffers } from "./queue-buffers.ts";

/** Queues 2 and 3 are for control (virtio 1.2, 5.3.2). */
const QUEUE = { receive: 2, transmit: 3 } as const;
const RECEIVE_BUFFERS = 8;
/** A message with the longest name. */
const RECEIVE_BYTES = 512;
const TRANSMIT_BYTES = 16;

/** A guest's side of the talk about ports: takes and opens each one that the device adds. */
export class ConsoleControl {
  readonly #receive: QueueBuffers;
  readonly #transmit: QueueBuffers;
  #isGreeted: boolean;
  /** Ports that are open in the guest. */
  readonly openPorts: Set<number>;

  constructor(
    readonly device: MachineDevice,
    memory: MachineMemory,
    portCount: number,
    state: { readonly isGreeted: boolean; readonly openPorts: readonly number[] } | undefined,
  ) {
    const { queues } = device;
    const buffers = Math.min(RECEIVE_BUFFERS, queues[QUEUE.receive]!.size);
    this.#receive = new QueueBuffers(queues[QUEUE.receive]!, memory, buffers, RECEIVE_BYTES);
    // Each port is taken once and opened once, after one greeting: there is always a buffer.
    this.#transmit = new QueueBuffers(queues[QUEUE.transmit]!, memory, 2 * portCount + 1, TRANSMIT_BYTES);
    this.#isGreeted = state?.isGreeted ?? false;
    this.openPorts = new Set(state?.openPorts);
  }

  /** Hears what the device says, and answers. Without `mayTalk` it only hears. */
  pump(mayTalk: boolean): void {
    this.#transmit.drain();
    this.#receive.drain((bytes) => this.#hear(bytes));
    if (!mayTalk) return;
    if (!this.#isGreeted) this.#say(0, controlEvent.DEVICE_READY);
    this.#isGreeted = true;
    while (this.#receive.offer());
    this.#receive.queue.notify();
    this.#transmit.queue.notify();
  }

  exportState() {
    return { isGreeted: this.#isGreeted, openPorts: [...this.openPorts] };
  }

  #hear(bytes: Uint8Array): void {
    if (bytes.length < 8) return;
    const { port, event } = decodeControlMessage(bytes);
    if (event !== controlEvent.DEVICE_ADD || this.openPorts.has(port)) return;
    this.openPorts.add(port);
    this.#say(port, controlEvent.PORT_READY);
    this.#say(port, controlEvent.PORT_OPEN);
  }

  #say(port: number, event: number): void {
    this.#transmit.send(encodeControlMessage({ port, event, value: 1 }));
  }
}
