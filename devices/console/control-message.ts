import type { ConsoleSize } from "./config.ts";

/** Events on the control queues (virtio 1.2, 5.3.6.2). */
export const controlEvent = {
  /** From the driver, once: value 1 when it is ready for ports. */
  DEVICE_READY: 0,
  DEVICE_ADD: 1,
  /** From the driver, per port: value 1 when it has taken the port. */
  PORT_READY: 3,
  CONSOLE_PORT: 4,
  RESIZE: 5,
  /** Both ways: somebody opened (1) or closed (0) the port on the sender's side. */
  PORT_OPEN: 6,
  PORT_NAME: 7,
} as const;

/** struct virtio_console_control: u32 id, u16 event, u16 value. */
export interface ControlMessage {
  readonly port: number;
  readonly event: number;
  readonly value: number;
}

export const CONTROL_MESSAGE_BYTES = 8;

/** `tail` is what follows the message in the same buffer: a name or a size. */
export function encodeControlMessage(
  message: ControlMessage,
  tail: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(CONTROL_MESSAGE_BYTES + tail.length));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, message.port, true);
  view.setUint16(4, message.event, true);
  view.setUint16(6, message.value, true);
  bytes.set(tail, CONTROL_MESSAGE_BYTES);
  return bytes;
}

/** `bytes` has at least 8 bytes. */
export function decodeControlMessage(bytes: Uint8Array): ControlMessage {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { port: view.getUint32(0, true), event: view.getUint16(4, true), value: view.getUint16(6, true) };
}

/**
 * What follows RESIZE. Rows come first: virtio 1.2 says columns first, but Linux has read rows first since 2.6.35, and went
 * back to that in 6.17 after a release that followed the text ("virtio_console: fix order of fields cols and rows", reverted).
 */
export function encodeResize(size: ConsoleSize): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(4));
  const view = new DataView(bytes.buffer);
  view.setUint16(0, size.rows, true);
  view.setUint16(2, size.columns, true);
  return bytes;
}
