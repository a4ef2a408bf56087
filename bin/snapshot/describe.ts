import { blkFeature } from "../../devices/blk/mod.ts";
import { consoleFeature } from "../../devices/console/mod.ts";
import type { SnapshotDevice, SnapshotReader, SnapshotRegion } from "../../migrate/snapshot/mod.ts";
import { claimedSigner, RecordType } from "../../migrate/snapshot/mod.ts";
import { FormatError } from "../../src/errors.ts";
import { sniffState } from "../../src/state/mod.ts";
import { describeFeatures, protocolFeature, virtioFeature } from "../../src/wire/mod.ts";
import { type MemoryCell, memoryCells } from "./memory-cells.ts";

/** Names of the feature bits below 24, which each device type has for itself. */
const TYPE_FEATURES: Readonly<Record<string, Readonly<Record<string, bigint>>>> = {
  blk: blkFeature,
  console: consoleFeature,
};

/** Cells of a region's map: up to four lines of 64 in a terminal. */
const SMALL_MAP_CELLS = 64;
const LARGE_MAP_CELLS = 256;
const LARGE_REGION_BYTES = 64 * 1024 * 1024;

export type SnapshotDescription = ReturnType<typeof describeSnapshot>;
export type DeviceDescription = ReturnType<typeof describeDevice>;
export type RegionDescription = ReturnType<typeof describeRegion>;

/**
 * What a snapshot holds, as a document. The file was opened, so header, index and root are right.
 *
 * @throws FormatError
 */
export function describeSnapshot(reader: SnapshotReader) {
  const { formatVersion, header, manifest, memoryMap, stats, root, sizeBytes } = reader;
  const records = reader.records();
  const unknown = records.filter(({ typeName }) => typeName.startsWith("type "));
  return {
    formatVersion,
    header,
    parent: reader.parent,
    machine: withoutKeys(manifest.machine),
    devices: manifest.devices.map((device) => describeDevice(reader, device)),
    memory: {
      totalBytes: memoryMap.reduce((sum, region) => sum + region.sizeBytes, 0),
      ...stats,
      regions: memoryMap.map((region) => describeRegion(reader, region)),
    },
    qemuStreamBytes: streamBytes(reader, RecordType.qemuStream),
    machineStateBytes: streamBytes(reader, RecordType.machineState),
    root,
    sizeBytes,
    /** Bytes that the machine had, memory and states, for each byte of the file. */
    ratio: plainBytes(reader) / sizeBytes,
    isEncrypted: reader.isEncrypted,
    /** Who it says has signed it: `verify` finds out whether that is so. */
    signedBy: claimedSigner(reader),
    recordCount: records.length,
    unknownRecordCount: unknown.length,
    checked: "structure",
  };
}

/** The keys of sealed disk copies are for a load, and not for a screen. */
function withoutKeys(machine: SnapshotReader["manifest"]["machine"]): SnapshotReader["manifest"]["machine"] {
  if (machine?.kind !== "qemu" || !Array.isArray(machine.disks)) return machine;
  const disks = machine.disks.map((disk: { readonly copy?: { readonly key?: unknown } }) =>
    disk?.copy?.key === undefined ? disk : { ...disk, copy: { ...disk.copy, key: "(not shown)" } },
  );
  return { ...machine, disks };
}

function describeDevice(reader: SnapshotReader, device: SnapshotDevice) {
  const stored = reader.streams.find(
    ({ type, streamId }) => type === RecordType.deviceState && streamId === device.id,
  );
  const sniffed = stored === undefined ? undefined : sniffFirstChunk(reader, device.id);
  return {
    ...device,
    featureNames: describeFeatures(BigInt(device.features), {
      ...TYPE_FEATURES[device.type],
      ...virtioFeature,
    }),
    protocolFeatureNames: describeFeatures(BigInt(device.protocolFeatures), protocolFeature),
    state: {
      isStored: stored !== undefined,
      format: sniffed === undefined || sniffed.format === "unknown" ? device.stateFormat : sniffed.format,
      sizeBytes: stored?.sizeBytes ?? 0,
      sha256: stored?.sha256,
      damage: sniffed?.damage,
    },
  };
}

/** Damage to a state is a part of the description: the rest is as good as before. */
function sniffFirstChunk(
  reader: SnapshotReader,
  deviceId: number,
): { readonly format: string; readonly damage?: string } {
  try {
    for (const chunk of reader.deviceState(deviceId)) return sniffState(chunk);
    return { format: "unknown" };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return { format: "unknown", damage: error.message };
  }
}

function plainBytes(reader: SnapshotReader): number {
  const memory = reader.memoryMap.reduce((sum, region) => sum + region.sizeBytes, 0);
  return reader.streams.reduce((sum, stream) => sum + stream.sizeBytes, memory);
}

function describeRegion(reader: SnapshotReader, region: SnapshotRegion) {
  const bytes = { zero: 0, duplicate: 0, data: 0, parent: 0 };
  const extents = reader.extents(region.id);
  for (const { kind, sizeBytes } of extents) bytes[kind] += sizeBytes;
  const cellCount = region.sizeBytes < LARGE_REGION_BYTES ? SMALL_MAP_CELLS : LARGE_MAP_CELLS;
  const map: readonly MemoryCell[] = memoryCells(extents, region.sizeBytes, cellCount);
  return {
    ...region,
    zeroBytes: bytes.zero,
    duplicateBytes: bytes.duplicate,
    dataBytes: bytes.data,
    parentBytes: bytes.parent,
    extentCount: extents.length,
    map,
  };
}

function streamBytes(reader: SnapshotReader, type: number): number | undefined {
  return reader.streams.find((stream) => stream.type === type)?.sizeBytes;
}
