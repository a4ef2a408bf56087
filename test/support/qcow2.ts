/** A qcow2 image's first cluster, as far as names are concerned. */
export interface Qcow2Names {
  readonly version?: 2 | 3;
  readonly backing?: string;
  readonly format?: string;
  readonly dataFile?: string;
}

const CLUSTER_BYTES = 65536;

export function qcow2Head({ version = 3, backing, format, dataFile }: Qcow2Names = {}): Buffer {
  const bytes = Buffer.alloc(CLUSTER_BYTES);
  bytes.write("QFI\xfb", 0, "latin1");
  bytes.writeUInt32BE(version, 4);
  bytes.writeUInt32BE(16, 20);
  if (version === 3) bytes.writeUInt32BE(104, 100);
  let at = version === 3 ? 104 : 72;
  for (const [type, text] of [
    [0xe2792aca, format],
    [0x44415441, dataFile],
  ] as const) {
    if (text === undefined) continue;
    bytes.writeUInt32BE(type, at);
    bytes.writeUInt32BE(Buffer.byteLength(text), at + 4);
    bytes.write(text, at + 8);
    at += 8 + Math.ceil(Buffer.byteLength(text) / 8) * 8;
  }
  at += 8;
  if (backing !== undefined) {
    bytes.writeBigUInt64BE(BigInt(at), 8);
    bytes.writeUInt32BE(Buffer.byteLength(backing), 16);
    bytes.write(backing, at);
  }
  return bytes;
}
