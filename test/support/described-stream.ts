import { streamParts, text8, u8, u32 } from "./qemu-stream.ts";

type Described = Readonly<Record<string, unknown>>;

/** A device with the description that it is to have, whatever its content is. */
export interface DescribedDevice {
  readonly name: string;
  readonly content: Uint8Array;
  readonly fields: readonly Described[];
  readonly subsections?: readonly Described[];
}

export const field = (name: string, type: string, size: number): Described => ({ name, type, size });

/** A stream without pages, as a snapshot keeps it, whose devices are described by hand. */
export function describedStream(devices: readonly DescribedDevice[]): Buffer {
  const blocks = [{ name: "ram", sizeBytes: 4096 }];
  const { header, configuration, start, pages } = streamParts({
    ...{ machineType: "pc-q35-10.0", blocks, passes: [[]], devices: [] },
  });
  const sections = devices.map(({ name, content }, index) =>
    Buffer.concat([
      ...[u8(4), u32(index + 3), text8(name), u32(0), u32(1), content, u8(0x7e), u32(index + 3)],
    ]),
  );
  const described = devices.map(({ name, fields, subsections }) => ({
    ...{ name, instance_id: 0, vmsd_name: name, version: 1, fields },
    ...(subsections === undefined ? {} : { subsections }),
  }));
  const json = Buffer.from(JSON.stringify({ page_size: 4096, devices: described }));
  return Buffer.concat([
    header,
    configuration,
    start,
    ...pages,
    ...sections,
    u8(0),
    u8(6),
    u32(json.length),
    json,
  ]);
}
