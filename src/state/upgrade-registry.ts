import assert from "node:assert/strict";
import { CompatibilityError } from "../errors.ts";
import type { DecodedState } from "./decode-state.ts";
import type { StateHeader } from "./frame.ts";

/** Turns the sections of version `from` into those of version `to`. */
export interface UpgradeStep {
  readonly deviceType: string;
  readonly from: number;
  readonly to: number;
  upgrade(sections: Map<string, unknown>): Map<string, unknown>;
}

/** What a reader is. */
export interface StateReaderVersion {
  readonly deviceType: string;
  readonly version: number;
}

/**
 * The registered ways from older device states to newer ones.
 *
 * @example
 * registry.register({ deviceType: "blk", from: 1, to: 2, upgrade: (sections) => sections.set("flags", 0) });
 * const { sections } = registry.apply(decodeState(bytes), { deviceType: "blk", version: 2 });
 */
export class UpgradeRegistry {
  readonly #steps = new Map<string, Map<number, UpgradeStep>>();

  register(step: UpgradeStep): void {
    assert(step.to > step.from, "an upgrade goes upwards");
    const steps = this.#steps.get(step.deviceType) ?? new Map<number, UpgradeStep>();
    assert(!steps.has(step.from), `an upgrade of ${step.deviceType} from ${step.from} is registered already`);
    steps.set(step.from, step);
    this.#steps.set(step.deviceType, steps);
  }

  /**
   * The steps that a state needs for `reader`; none if it can be read as it is. Known as soon as the header is here.
   *
   * @throws CompatibilityError if it is another device's, too new, or older with a step missing.
   */
  plan(header: StateHeader, reader: StateReaderVersion): readonly UpgradeStep[] {
    if (header.deviceType !== reader.deviceType) {
      throw new CompatibilityError(
        `the state is that of a ${header.deviceType} device and this is a ${reader.deviceType} device`,
        { details: { stateDeviceType: header.deviceType, deviceType: reader.deviceType } },
      );
    }
    if (header.oldestCompatibleVersion > reader.version) throw tooNew(header, reader);
    const plan: UpgradeStep[] = [];
    for (let version = header.version; version < reader.version; ) {
      const step = this.#steps.get(header.deviceType)?.get(version);
      if (step === undefined || step.to > reader.version) throw noStep(header, reader, version);
      plan.push(step);
      version = step.to;
    }
    return plan;
  }

  /** The state as `reader` wants it. The sections of `state` may be changed on the way. @throws CompatibilityError */
  apply(state: DecodedState, reader: StateReaderVersion): DecodedState {
    let { sections } = state;
    const plan = this.plan(state.header, reader);
    for (const step of plan) sections = step.upgrade(sections);
    const last = plan.at(-1);
    if (last === undefined) return state;
    return { header: { ...state.header, version: last.to, oldestCompatibleVersion: last.to }, sections };
  }
}

function tooNew(header: StateHeader, reader: StateReaderVersion): CompatibilityError {
  return new CompatibilityError(
    `the ${header.deviceType} state has version ${header.version} and needs a reader of version ` +
      `${header.oldestCompatibleVersion} or newer; this one has ${reader.version}: use a newer vhu`,
    { details: { version: header.version, oldest: header.oldestCompatibleVersion, reader: reader.version } },
  );
}

function noStep(header: StateHeader, reader: StateReaderVersion, version: number): CompatibilityError {
  return new CompatibilityError(
    `the ${header.deviceType} state has version ${header.version} and nothing here upgrades ${version} towards ` +
      `${reader.version}: load it with the vhu that wrote it and save it again`,
    { details: { version: header.version, missingStepFrom: version, reader: reader.version } },
  );
}
