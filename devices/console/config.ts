/** The virtio console's config space and feature bits (virtio 1.3, 5.3.3 and 5.3.4). */

/** struct virtio_console_config: u16 cols, u16 rows, u32 max_nr_ports, u32 emerg_wr. */
const CONSOLE_CONFIG_BYTES = 12;

/** Writing here outputs a character without any queue. */
export const EMERGENCY_WRITE_OFFSET = 8;

export const consoleFeature = {
  SIZE: 1n << 0n,
  EMERG_WRITE: 1n << 2n,
} as const;

export const RECEIVE_QUEUE = 0;
export const TRANSMIT_QUEUE = 1;

/** In characters. */
export interface ConsoleSize {
  readonly columns: number;
  readonly rows: number;
}

/** The config space as the driver sees it. */
export function encodeConsoleConfig(size: ConsoleSize): Uint8Array {
  const bytes = new Uint8Array(CONSOLE_CONFIG_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, size.columns, true);
  view.setUint16(2, size.rows, true);
  view.setUint32(4, 1, true);
  return bytes;
}
