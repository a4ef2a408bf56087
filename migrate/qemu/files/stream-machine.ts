import type { QemuMachine } from "../qemu-machine.ts";
import type { ParsedStream } from "../stream-parser.ts";
import type { LibvirtImage } from "./libvirt-header.ts";

/** Of the section "globalstate": the size of its text, and the text with zeros behind it. */
const RUN_STATE_SECTION = "globalstate";
const RUN_STATE_BYTES = 32;
const ENTITIES: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

export interface StreamOrigin {
  /** Where there is no better name. */
  readonly name: string;
  readonly layout: string;
  readonly libvirt: LibvirtImage | undefined;
}

/** What a stream tells about its machine; what only a running QEMU would have told is listed as unknown. */
export function machineOfStream(parsed: ParsedStream, { name, layout, libvirt }: StreamOrigin): QemuMachine {
  return {
    kind: "qemu",
    name: libvirt === undefined ? name : (nameIn(libvirt.xml) ?? name),
    machineType: parsed.machineType,
    cpuCount: parsed.sections.filter((section) => section.name === "cpu_common").length,
    runState: libvirt === undefined ? runStateOf(parsed) : libvirt.wasRunning ? "running" : "paused",
    virtioDevices: [],
    sockets: [],
    disks: [],
    sections: parsed.sections.map((section) => ({ name: section.name, sizeBytes: section.sizeBytes })),
    origin: {
      layout,
      unknown: [
        "QEMU's version",
        "CPU model",
        "memory size",
        "command line",
        "disks",
        "vhost-user back-ends",
      ],
    },
    ...(libvirt === undefined ? {} : { libvirt: { ...libvirtImage(libvirt) } }),
  };
}

function libvirtImage({ xml, cookie, wasRunning }: LibvirtImage) {
  return { xml, wasRunning, ...(cookie === undefined ? {} : { cookie }) };
}

/** QEMU stores the state that the VM had before it was stopped for the migration. */
function runStateOf({ sections, rest }: ParsedStream): string {
  const section = sections.find((candidate) => candidate.name === RUN_STATE_SECTION);
  if (section === undefined || section.sizeBytes < 4 + RUN_STATE_BYTES) return "paused";
  const text = Buffer.from(rest.subarray(section.offset + 4, section.offset + 4 + RUN_STATE_BYTES)).toString(
    "latin1",
  );
  const state = text.split("\0")[0] ?? "";
  return /^[a-z-]{1,31}$/.test(state) ? state : "paused";
}

/** Enough of XML for a name. */
function nameIn(xml: string): string | undefined {
  const name = /<name>([^<]{1,255})<\/name>/.exec(xml)?.[1];
  return name?.replace(/&(lt|gt|amp|quot|apos);/g, (whole, entity: string) => ENTITIES[entity] ?? whole);
}
