import { type Command, Option } from "commander";
import { VhuError } from "../../src/errors.ts";
import { type DeviceTypeName, deviceTypes } from "../../src/frontend/mod.ts";
import { type DialectName, describeFeatures, dialects, tableFor } from "../../src/wire/mod.ts";
import { parseAddressOf } from "../address.ts";
import { action, addCommand } from "../command.ts";
import { decodeConfig } from "../device/config-fields.ts";
import { type ProbeResult, probeBackend } from "../device/probe.ts";
import { featureNames } from "../device/type-features.ts";
import { formatBytes, formatCount } from "../output/format.ts";
import { printable } from "../output/printable.ts";
import { formatTable } from "../output/table.ts";
import { wholeNumber } from "../whole-number.ts";

interface Options {
  readonly type?: DeviceTypeName;
  readonly dialect: DialectName;
  readonly timeoutMs: number;
}

const DEFAULT_TIMEOUT_MS = 5_000;
const HEX_ROW_BYTES = 16;

export function registerDeviceProbe(parent: Command): void {
  addCommand(parent, {
    usage: "probe <backend>",
    description: `ask a vhost-user back-end what it is and what it can do

Connects as a front-end, asks, and hangs up: no memory is shared and no queue is started. But a back-end that serves one
front-end in its life (virtiofsd, libvirt's) EXITS AFTERWARDS, and one that serves a VM now does not answer, since it
takes its front-ends one after the other. BACKEND is unix:PATH.`,
    examples: [
      ["vhu device probe unix:/run/disk.sock", "what does it offer?"],
      [
        "vhu device probe unix:/run/disk.sock --type blk",
        "it should be a disk: name its features, read its config space",
      ],
      ["vhu device probe unix:/run/gpu.sock --dialect crosvm-2024 --json", "a peer with messages of its own"],
    ],
    exitStatus: {
      0: "the back-end answered",
      4: "the back-end cannot be of the type that was given",
      5: "nobody listens, or the back-end does not answer or hangs up",
    },
  })
    .addOption(
      new Option("--type <type>", "what it should be: vhost-user does not tell").choices(
        Object.keys(deviceTypes),
      ),
    )
    .addOption(
      new Option("--dialect <dialect>", "which variant of the protocol it speaks")
        .choices(Object.keys(dialects))
        .default("spec"),
    )
    .option("--timeout-ms <ms>", "how long an answer may take", wholeNumber(1), DEFAULT_TIMEOUT_MS)
    .action(
      action(({ output }, backend: string, { type, dialect, timeoutMs }: Options) => {
        const { path } = parseAddressOf(backend, "back-end", ["unix"]);
        const table = tableFor(dialects[dialect]);
        const found = probeBackend(path, { table, timeoutMs, type });
        const named = {
          features: describeFeatures(found.features, featureNames(type)),
          protocolFeatures: describeFeatures(found.protocolFeatures, table.protocolFeature),
        };
        if (output.json) output.document(documentOf(backend, type, dialect, found, named));
        else output.lines(pageOf(backend, type, found, named));
        return 0;
      }),
    );
}

interface Named {
  readonly features: readonly string[];
  readonly protocolFeatures: readonly string[];
}

function documentOf(
  backend: string,
  type: DeviceTypeName | undefined,
  dialect: string,
  found: ProbeResult,
  named: Named,
) {
  const { features, protocolFeatures, config, ...rest } = found;
  return {
    backend,
    type,
    dialect,
    ...rest,
    ...named,
    featureMask: features,
    protocolFeatureMask: protocolFeatures,
    config:
      config instanceof VhuError
        ? { error: config.message }
        : config && {
            sizeBytes: config.length,
            bytes: Buffer.from(config).toString("hex"),
            fields: decodeConfig(type, config),
          },
  };
}

function pageOf(
  backend: string,
  type: DeviceTypeName | undefined,
  found: ProbeResult,
  named: Named,
): string[] {
  const { peer, queues, memorySlots, sharedMemoryRegions, canSaveState, qemuMigration, config } = found;
  const rows = [
    ["back-end", backend],
    ["process", `${peer.pid}${peer.executable === undefined ? "" : `, ${printable(peer.executable)}`}`],
    ["type", type === undefined ? "unknown (vhost-user does not tell; see --type)" : `${type}, as you say`],
    ["queues", queues === undefined ? "not told (no MQ)" : String(queues)],
    ["memory slots", memorySlots === undefined ? "8 regions (no CONFIGURE_MEM_SLOTS)" : String(memorySlots)],
    ["features", `0x${found.features.toString(16)}: ${named.features.join(", ")}`],
    ["protocol", `0x${found.protocolFeatures.toString(16)}: ${named.protocolFeatures.join(", ")}`],
    [
      "state",
      canSaveState
        ? "can be saved and loaded (DEVICE_STATE)"
        : "none to save (no DEVICE_STATE): rings and memory are all of it",
    ],
    ["QEMU", `${qemuMigration.possible ? "can migrate it" : "cannot migrate it"}: ${qemuMigration.reason}`],
    ...(sharedMemoryRegions ?? []).map(({ id, sizeBytes }) => [
      `shared memory ${id}`,
      formatBytes(sizeBytes),
    ]),
    ["config space", configSummary(config)],
  ];
  const bytes = config instanceof Uint8Array ? config : new Uint8Array(0);
  const fields = Object.entries(decodeConfig(type, bytes) ?? {});
  const decoded = fields.map(([name, value]) => [`  ${name}`, printable(String(value))]);
  return [...formatTable([...rows, ...decoded]), ...hexDump(bytes)];
}

function configSummary(config: ProbeResult["config"]): string {
  if (config === undefined) return "the VMM's own (no CONFIG)";
  return config instanceof VhuError
    ? `cannot be read: ${printable(config.message)}`
    : formatCount(config.length, "byte");
}

function hexDump(bytes: Uint8Array): string[] {
  const rows: string[] = [];
  for (let at = 0; at < bytes.length; at += HEX_ROW_BYTES) {
    const row = bytes.subarray(at, at + HEX_ROW_BYTES);
    const cells = Array.from(row, (byte) => byte.toString(16).padStart(2, "0"));
    rows.push(`  ${at.toString(16).padStart(4, "0")}  ${cells.join(" ")}`);
  }
  return rows;
}
