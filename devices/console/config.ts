/** The virtio console's config space, feature bits and queues (virtio 1.2, 5.3.2 to 5.3.4). */

/** struct virtio_console_config: u16 cols, u16 rows, u32 max_nr_ports, u32 emerg_wr. */
const CONSOLE_CONFIG_BYTES = 12;

/** Writing here outputs a character without any queue. */
export const EMERGENCY_WRITE_OFFSET = 8;

export const consoleFeature = {
  SIZE: 1n << 0n,
  MULTIPORT: 1n << 1n,
  EMERG_WRITE: 1n << 2n,
} as const;

/** What a queue is for. "receive" and "transmit" are the driver's words: it receives what the device gives. */
export interface QueueRole {
  readonly direction: "receive" | "transmit";
  /** A port's number, or the control queues. */
  readonly of: number | "control";
}

/** Queues 0 and 1 are port 0's, 2 and 3 the control queues, 4 and 5 port 1's, and so on. */
export function queueRole(index: number): QueueRole {
  const direction = index % 2 === 0 ? "receive" : "transmit";
  const pair = Math.floor(index / 2);
  if (pair === 1) return { direction, of: "control" };
  return { direction, of: Math.max(0, pair - 1) };
}

/** Queues of a console: without MULTIPORT there is one port and no control. */
export function queueCount(portCount: number, isMultiport: boolean): number {
  return isMultiport ? 2 * portCount + 2 : 2;
}

/** In characters. */
export interface ConsoleSize {
  readonly columns: number;
  readonly rows: number;
}

/** The config space as the driver sees it. The size is port 0's. */
export function encodeConsoleConfig(size: ConsoleSize, portCount: number): Uint8Array {
  const bytes = new Uint8Array(CONSOLE_CONFIG_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, size.columns, true);
  view.setUint16(2, size.rows, true);
  view.setUint32(4, portCount, true);
  return bytes;
}
