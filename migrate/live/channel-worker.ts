/** The Worker of a channel (channel-pool.ts): reads QEMU's packets, and packs each into the payload of a memory frame. */
import { parentPort, workerData } from "node:worker_threads";
import { FormatError } from "../../src/errors.ts";
import { Fd, UnixSocket } from "../../src/sys/mod.ts";
import { ChannelReader } from "../multifd/mod.ts";
import { MEMORY_PAGE_BYTES } from "../snapshot/mod.ts";
import {
  CHANNEL_SLOTS,
  ChannelBarrier,
  type ChannelSetup,
  ChannelSlots,
  type ChannelStart,
  type ChannelWord,
} from "./channel-slots.ts";
import { PageOwners } from "./page-owners.ts";
import { PagePacker } from "./page-packer.ts";

const setup = workerData as ChannelSetup;
const slots = new ChannelSlots(setup.slots);
const barrier = new ChannelBarrier(setup.barrier, setup.channels);

function say(word: ChannelWord): void {
  parentPort?.postMessage(word);
}

function run({ socket, regions, owners }: ChannelStart): void {
  const reader = new ChannelReader(new UnixSocket(new Fd(socket, "multifd channel")));
  const packer = new PagePacker(setup.cacheBytes, new PageOwners(setup.stream, owners));
  const byName = new Map(regions.map((region) => [region.name, region]));
  let [slot, passNumber, hasPages] = [0, 0, false];
  if (reader.readGreeting() === undefined) return;
  for (let next = reader.next(); next !== undefined; next = reader.next()) {
    const { packet, content } = next;
    const pages = packet.offsets.length + packet.zeros.length;
    // The receiver's memory is zero before the first pass.
    const zeros = passNumber === 0 ? [] : packet.zeros;
    if (packet.offsets.length + zeros.length > 0) {
      const region = byName.get(packet.block);
      if (region === undefined)
        throw new FormatError(`a page is of the unknown block ${packet.block}`, "multifd");
      for (const offset of [...packet.offsets, ...packet.zeros]) {
        if (offset + MEMORY_PAGE_BYTES > region.sizeBytes)
          throw new FormatError("a page lies outside its block", "multifd");
      }
      if (!slots.take(slot)) return;
      const place = { regionId: region.id, passNumber, level: slots.level };
      const packedBytes = packer.pack(
        { bytes: content, offsets: packet.offsets, zeros },
        place,
        slots.room(slot),
      );
      say({ kind: "window", slot, packedBytes, pages });
      slot = (slot + 1) % CHANNEL_SLOTS;
    } else if (pages > 0) say({ kind: "nothing", pages });
    if (pages > 0) hasPages = true;
    if (!packet.isSync) continue;
    if (setup.channels > 1) barrier.wait(() => slots.isStopped);
    say({ kind: "sync" });
    if (hasPages) passNumber += 1;
  }
}

parentPort?.once("message", (start: ChannelStart) => {
  try {
    run(start);
    say({ kind: "end" });
  } catch (error) {
    say({ kind: "end", fault: (error as Error).message });
  }
});
