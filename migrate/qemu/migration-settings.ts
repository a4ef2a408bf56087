import { CompatibilityError } from "../../src/errors.ts";
import { DEFAULT_DOWNTIME_MAX_MS, type PrecopyOptions } from "../driver.ts";
import { qmpCapabilities, qmpParameters } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { QmpError } from "./qmp-error.ts";
import { qmpNothing } from "./qmp-messages.ts";

/**
 * What a stream that vhu can take apart needs. With the return path, QEMU goes back to its earlier run state by itself when
 * the stream's socket closes before SHUT (tried with QEMU 10.0.2).
 */
const CAPABILITIES: Readonly<Record<string, boolean>> = {
  "return-path": true,
  events: true,
  xbzrle: false,
  "rdma-pin-all": false,
  "auto-converge": false,
  "postcopy-ram": false,
  "postcopy-blocktime": false,
  "postcopy-preempt": false,
  "x-colo": false,
  "release-ram": false,
  "pause-before-switchover": false,
  multifd: false,
  "dirty-bitmaps": false,
  "late-block-activate": false,
  "x-ignore-shared": false,
  "validate-uuid": false,
  "background-snapshot": false,
  "zero-copy-send": false,
  "switchover-ack": false,
  "dirty-limit": false,
  "mapped-ram": false,
};

/** No machine has it, so nobody but a vhu that was killed has left it there. */
const UNLIMITED_BYTES = 2 ** 40;

/** QEMU stops the VM as soon as it believes the rest fits into the downtime: with these, after its first look at memory. */
const PARAMETERS: Readonly<Record<string, unknown>> = {
  "max-bandwidth": UNLIMITED_BYTES,
  // The most that QEMU takes (MAX_MIGRATE_DOWNTIME).
  "downtime-limit": 2_000_000,
  "tls-creds": "",
  mode: "normal",
};

/** What QEMU starts with (migration/options.c): a vhu that was killed has left others. */
const DEFAULTS: Readonly<Record<string, unknown>> = { "max-bandwidth": 134_217_728, "downtime-limit": 300 };
const DEFAULT_OFF = [
  "return-path",
  "events",
  "auto-converge",
  "dirty-limit",
  "pause-before-switchover",
  "multifd",
];

/** What differs from a save of a VM that stands still. */
export interface MigrationOverrides {
  readonly capabilities?: Readonly<Record<string, boolean>>;
  readonly parameters?: Readonly<Record<string, unknown>>;
}

/** The VM runs until the rest fits into the downtime. */
export function precopySettings({
  downtimeMaxMs = DEFAULT_DOWNTIME_MAX_MS,
  bandwidthMaxBytes = UNLIMITED_BYTES,
  throttle = false,
}: PrecopyOptions): MigrationOverrides {
  return {
    capabilities: { "auto-converge": throttle === true, "dirty-limit": throttle === "dirty-limit" },
    parameters: { "max-bandwidth": bandwidthMaxBytes, "downtime-limit": downtimeMaxMs },
  };
}

/** The monitor's migration settings, as a save or load needs them, until they are put back. */
export class MigrationSettings {
  readonly #client: QmpClient;
  readonly #capabilities: { capability: string; state: boolean }[];
  readonly #parameters: Record<string, unknown>;

  private constructor(
    client: QmpClient,
    capabilities: { capability: string; state: boolean }[],
    parameters: Record<string, unknown>,
  ) {
    this.#client = client;
    this.#capabilities = capabilities;
    this.#parameters = parameters;
  }

  /** @throws CompatibilityError where QEMU cannot do it */
  static async apply(client: QmpClient, overrides: MigrationOverrides = {}): Promise<MigrationSettings> {
    const wanted = { ...CAPABILITIES, ...overrides.capabilities };
    const given = { ...PARAMETERS, ...overrides.parameters };
    const capabilities = await client.request("query-migrate-capabilities", { answer: qmpCapabilities });
    const missing = Object.entries(overrides.capabilities ?? {}).find(
      ([name, state]) => state && !capabilities.some(({ capability }) => capability === name),
    );
    if (missing !== undefined) throw new CompatibilityError(`this QEMU has no ${missing[0]}`);
    const parameters = await client.request("query-migrate-parameters", { answer: qmpParameters });
    const isLeftOver = parameters["max-bandwidth"] === UNLIMITED_BYTES;
    const earlier = isLeftOver
      ? capabilities.map((each) => (DEFAULT_OFF.includes(each.capability) ? { ...each, state: false } : each))
      : capabilities;
    const names = Object.keys(given).filter((name) => name in parameters);
    const pick = (from: Readonly<Record<string, unknown>>) =>
      Object.fromEntries(names.map((name) => [name, from[name]]));
    const settings = new MigrationSettings(
      client,
      earlier.filter(({ capability, state }) => state !== (wanted[capability] ?? state)).map(plain),
      pick(isLeftOver ? { ...parameters, ...DEFAULTS } : parameters),
    );
    const different = capabilities.filter(({ capability, state }) => state !== (wanted[capability] ?? state));
    try {
      await settings.#set(
        different.map(({ capability, state }) => ({ capability, state: !state })),
        pick(given),
      );
      return settings;
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      await settings.restore();
      throw new CompatibilityError(`this VM cannot be copied so: ${error.message}`, { cause: error });
    }
  }

  /** Everything as it was found. No migration may be under way. */
  async restore(): Promise<void> {
    await this.#set(this.#capabilities, this.#parameters);
  }

  async #set(
    capabilities: readonly { capability: string; state: boolean }[],
    parameters: Readonly<Record<string, unknown>>,
  ): Promise<void> {
    if (capabilities.length > 0) {
      const given = { capabilities };
      await this.#client.request("migrate-set-capabilities", { answer: qmpNothing, arguments: given });
    }
    if (Object.keys(parameters).length === 0) return;
    await this.#client.request("migrate-set-parameters", { answer: qmpNothing, arguments: parameters });
  }
}

function plain({ capability, state }: { capability: string; state: boolean }) {
  return { capability, state };
}
