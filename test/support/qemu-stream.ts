/** Makes QEMU streams by the grammar, for what no QEMU at hand sends. All integers are big-endian. */
export interface StreamDevice {
  readonly name: string;
  readonly instanceId: number;
  readonly content: Uint8Array;
}

export interface StreamPage {
  readonly block: number;
  readonly offset: number;
  /** Nothing for a page of zeros. */
  readonly bytes?: Uint8Array;
}

export interface StreamModel {
  readonly machineType: string;
  readonly blocks: readonly { readonly name: string; readonly sizeBytes: number }[];
  /** Pages by section: each list is a PART, the last one the END. */
  readonly passes: readonly (readonly StreamPage[])[];
  readonly devices: readonly StreamDevice[];
}

export const u8 = (value: number) => Buffer.of(value);
export const u16 = (value: number) => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
};
export const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
export const u64 = (value: number | bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
};
export const text8 = (value: string) => Buffer.concat([u8(Buffer.byteLength(value)), Buffer.from(value)]);

const RAM_ID = 2;
const EOS = u64(0x10);
const FOOTER = Buffer.concat([u8(0x7e), u32(RAM_ID)]);

/** The parts of a stream in order, so that a test can replace or cut one. */
export function streamParts(model: StreamModel) {
  const header = Buffer.concat([u32(0x5145564d), u32(3)]);
  const configuration = Buffer.concat([u8(7), u32(model.machineType.length), Buffer.from(model.machineType)]);
  const commands = Buffer.concat([u8(8), u16(1), u16(0), u8(8), u16(2), u16(4), u32(1)]);
  const total = model.blocks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const list = model.blocks.map(({ name, sizeBytes }) => Buffer.concat([text8(name), u64(sizeBytes)]));
  const start = Buffer.concat([
    ...[u8(1), u32(RAM_ID), text8("ram"), u32(0), u32(4)],
    ...[u64(total | 4), ...list, EOS, FOOTER],
  ]);
  const pages = model.passes.map((pass, index) => {
    const type = index === model.passes.length - 1 ? 3 : 2;
    return Buffer.concat([u8(type), u32(RAM_ID), ...pageRecords(model, pass), EOS, FOOTER]);
  });
  const devices = model.devices.map(({ name, instanceId, content }, index) =>
    Buffer.concat([
      u8(4),
      u32(index + 3),
      text8(name),
      u32(instanceId),
      u32(1),
      content,
      u8(0x7e),
      u32(index + 3),
    ]),
  );
  const json = Buffer.from(JSON.stringify(descriptionOf(model)));
  const end = Buffer.concat([u8(0), u8(6), u32(json.length), json]);
  return { header, configuration, commands, start, pages, devices, end };
}

export function streamOf(model: StreamModel): Buffer {
  const { header, configuration, commands, start, pages, devices, end } = streamParts(model);
  return Buffer.concat([header, configuration, commands, start, ...pages, ...devices, end]);
}

function pageRecords({ blocks }: StreamModel, pass: readonly StreamPage[]): Buffer[] {
  let last = -1;
  return pass.map(({ block, offset, bytes }) => {
    const same = block === last ? 0x20 : 0;
    last = block;
    const head = [u64(BigInt(offset) | BigInt((bytes === undefined ? 0x02 : 0x08) | same))];
    if (same === 0) head.push(text8(blocks[block]!.name));
    return Buffer.concat([...head, bytes ?? u8(0)]);
  });
}

/** Content is one array and a rest, in a table with a subsection where there is room for one. */
function descriptionOf({ devices }: StreamModel) {
  const described = devices.map(({ name, instanceId, content }) => {
    const subsectionHead = 2 + 3 + 4;
    const inside = content.length > 40 ? 8 : undefined;
    const own = inside === undefined ? content.length : content.length - inside - subsectionHead;
    const times = Math.floor(own / 4);
    return {
      name,
      instance_id: instanceId,
      vmsd_name: name,
      version: 1,
      fields: [
        ...(times > 0 ? [{ name: "array", type: "uint32", array_len: times, size: 4 }] : []),
        { name: "rest", type: "buffer", size: own - 4 * times },
      ],
      ...(inside === undefined
        ? {}
        : {
            subsections: [
              { vmsd_name: "sub", version: 1, fields: [{ name: "x", type: "uint64", size: inside }] },
            ],
          }),
    };
  });
  return { configuration: {}, page_size: 4096, devices: described };
}
