import type { DeviceRestore } from "../../src/backend/mod.ts";
import { FormatError, StateError } from "../../src/errors.ts";
import { type StateHeader, type StateSection, UpgradeRegistry } from "../../src/state/mod.ts";
import { StateFields } from "./state-fields.ts";

/** The one section of a device whose state is a plain object. */
const SECTION = "state";

export interface ObjectStateOptions<T extends object> {
  readonly deviceType: string;
  /** The device's `stateVersion`. */
  readonly version: number;
  /** The state as it is now: null, booleans, numbers, bigints, strings, Uint8Array, arrays and plain objects. */
  readonly capture: () => T;
  /**
   * Reads and checks all fields, and changes nothing. Fields that it leaves unread are refused.
   * @throws FormatError, or CompatibilityError when the state is not one of a device like this one
   */
  readonly check: (fields: StateFields) => T;
  /** Makes a checked state the device's own. Must not throw. */
  readonly apply: (state: T) => void;
  /** How states of older versions become this one's. */
  readonly upgrades?: UpgradeRegistry | undefined;
}

/**
 * Snapshot and restore for a device whose state is a small plain object. A restore is staged: nothing shows before
 * `commit`, and what does not check out in full leaves the device as it was.
 *
 * @example
 * readonly #state = new ObjectState({
 *   deviceType: "counter",
 *   version: 1,
 *   capture: () => ({ count: this.count }),
 *   check: (fields) => ({ count: fields.integer("count", 0, 100) }),
 *   apply: ({ count }) => { this.count = count; },
 * });
 * snapshot() { return this.#state.snapshot(); }
 * beginRestore(header: StateHeader) { return this.#state.beginRestore(header); }
 */
export class ObjectState<T extends object> {
  constructor(readonly options: ObjectStateOptions<T>) {}

  *snapshot(): Generator<StateSection, void> {
    yield { name: SECTION, value: this.options.capture() };
  }

  /** @throws CompatibilityError when the state is another device's, too new, or older without a way to this version */
  beginRestore(header: StateHeader): DeviceRestore {
    const { deviceType, version, upgrades } = this.options;
    (upgrades ?? new UpgradeRegistry()).plan(header, { deviceType, version });
    return new ObjectRestore(this.options, header);
  }
}

class ObjectRestore<T extends object> implements DeviceRestore {
  readonly #sections = new Map<string, unknown>();
  #ended = false;

  constructor(
    readonly options: ObjectStateOptions<T>,
    readonly header: StateHeader,
  ) {}

  value(name: string, value: unknown): void {
    this.#sections.set(name, value);
  }

  bytes(name: string): void {
    const place = `${this.options.deviceType} state`;
    throw new FormatError(`the byte section "${name}" is not known`, place);
  }

  commit(): void {
    if (this.#ended) throw new StateError("this restore was committed or aborted already");
    this.#ended = true;
    const state = this.#checked();
    this.options.apply(state);
  }

  abort(): void {
    this.#ended = true;
    this.#sections.clear();
  }

  #checked(): T {
    const { deviceType, version, check, upgrades = new UpgradeRegistry() } = this.options;
    const place = `${deviceType} state`;
    const { sections } = upgrades.apply(
      { header: this.header, sections: this.#sections },
      { deviceType, version },
    );
    // A newer writer that says this version can read it may have added to it.
    const isNewer = this.header.version > version;
    const extra = [...sections.keys()].find((name) => name !== SECTION);
    if (extra !== undefined && !isNewer) throw new FormatError(`the section "${extra}" is not known`, place);
    if (!sections.has(SECTION)) throw new FormatError(`the section "${SECTION}" is missing`, place);
    const fields = new StateFields(sections.get(SECTION), place);
    const state = check(fields);
    if (!isNewer) fields.end();
    return state;
  }
}
