/** Makes those seeds of the container's corpus that a writer makes: `bun test/fuzz/make-container-seeds.ts`. Made once; the stored files stay. */
import { join } from "node:path";
import {
  newFileKey,
  SnapshotReader,
  SnapshotWriter,
  type WriterOptions,
} from "../../migrate/snapshot/mod.ts";
import { fixture } from "../fixtures/make-snapshot.ts";
import { CONTAINER_CORPUS, CONTAINER_KEY } from "./container.ts";

const { pages, regionBytes, deviceState, machineState } = fixture;
const [lowBytes, highBytes] = regionBytes as [number, number];

/** A machine of the fixture's name and memory, so that the fixture can be its base. */
async function write(name: string, options: WriterOptions): Promise<void> {
  const header = { writer: { name: "vhu", version: "0.1.0" }, machine: { name: "fixture" } };
  using writer = SnapshotWriter.toFile(join(CONTAINER_CORPUS, name), header, options);
  writer.writeMemoryMap([
    { id: 0, guestAddress: 0, sizeBytes: lowBytes, name: "ram" },
    { id: 1, guestAddress: 0x1_0000_0000, sizeBytes: highBytes, name: "high" },
  ]);
  const low = new Uint8Array(lowBytes);
  low.set(Buffer.concat([pages.first, pages.replaced, pages.second]));
  await writer.writeMemory(0, 0, low);
  await writer.writeMemory(1, 0, Buffer.concat([pages.first, pages.second]));
  writer.nextMemoryPass();
  await writer.writeMemory(1, 0, pages.replaced);
  const state = writer.writeDeviceState(0);
  state.write(deviceState);
  state.finish();
  writer.writeMachineState(machineState);
  writer.writeManifest({ devices: [], memory: { totalBytes: lowBytes + highBytes } });
  writer.finish();
}

/** The wrapped key is of another file: the seeds are read with CONTAINER_KEY. */
async function knownKey() {
  const { generateX25519Identity, identityToRecipient } = await import("age-encryption");
  const recipient = await identityToRecipient(await generateX25519Identity());
  return { key: CONTAINER_KEY, wrapped: (await newFileKey({ recipients: [recipient] })).wrapped };
}

if (import.meta.main) {
  await write("ok-page-hashes.vhu", { pageHashes: true });
  await write("ok-encrypted.vhu", { pageHashes: true, fileKey: await knownKey() });
  using base = SnapshotReader.open(fixture.paths[1]!);
  await write("ok-incremental.vhu", { base });
}
