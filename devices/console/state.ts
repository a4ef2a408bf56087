import { CompatibilityError } from "../../src/errors.ts";
import {
  MAX_CONSOLE_CHAIN_BYTES,
  MAX_CONSOLE_NAME_BYTES,
  MAX_CONSOLE_PORTS,
  MAX_CONSOLE_QUEUE_BYTES,
  MAX_CONSOLE_SAVED_INPUT_BYTES,
  MAX_CONSOLE_TAKEN_BACK_BYTES,
} from "../../src/limits.ts";
import { UpgradeRegistry } from "../../src/state/mod.ts";
import type { StateFields } from "../state/mod.ts";
import { ALL_DUE, newTalk, type PortTalk } from "./control-channel.ts";

/** Version of the sections below. 1 had one port and no control queues. */
export const CONSOLE_STATE_VERSION = 2;

/** What a console carries from one process to the next: what the driver knows, and the bytes that are on their way. */
export interface ConsoleState {
  readonly isDriverReady: boolean;
  readonly ports: readonly ConsolePortState[];
}

export interface ConsolePortState extends PortTalk {
  readonly name: string;
  readonly isConsole: boolean;
  readonly columns: number;
  readonly rows: number;
  readonly isOpenInGuest: boolean;
  /** Read from the host's end, not yet given to the guest. */
  readonly toGuest: Uint8Array;
  /** Taken from the guest, not yet taken by the host's end. */
  readonly toHost: Uint8Array;
}

const MAX_TO_HOST_BYTES = MAX_CONSOLE_QUEUE_BYTES + MAX_CONSOLE_CHAIN_BYTES + MAX_CONSOLE_TAKEN_BACK_BYTES;

/** What the device at hand is, port by port. */
export type OwnPorts = readonly { readonly name: string; readonly isConsole: boolean }[];

/** @throws FormatError, CompatibilityError */
export function checkConsoleState(fields: StateFields, own: OwnPorts): ConsoleState {
  const state: ConsoleState = {
    isDriverReady: fields.boolean("isDriverReady"),
    ports: fields.objects("ports", MAX_CONSOLE_PORTS, checkPort),
  };
  const { ports } = state;
  if (ports.length > own.length) {
    throw new CompatibilityError(`the state has ${ports.length} ports, this console has ${own.length}`);
  }
  // A driver that was told of the ports would not ask again; any other has never seen more than port 0.
  const differs = (port: ConsolePortState | undefined, id: number) =>
    port?.name !== own[id]!.name || port.isConsole !== own[id]!.isConsole;
  if (state.isDriverReady && own.some((_, id) => differs(ports[id], id))) {
    throw new CompatibilityError(
      `the state's ports are ${describe(ports)}, this console's are ${describe(own)}: give it the same ones in the same order`,
    );
  }
  return state;
}

function checkPort(fields: StateFields): ConsolePortState {
  return {
    name: fields.string("name", MAX_CONSOLE_NAME_BYTES),
    isConsole: fields.boolean("isConsole"),
    columns: fields.integer("columns", 0, 0xffff),
    rows: fields.integer("rows", 0, 0xffff),
    due: fields.integer("due", 0, ALL_DUE),
    isReady: fields.boolean("isReady"),
    toldOpen: fields.boolean("toldOpen"),
    isOpenInGuest: fields.boolean("isOpenInGuest"),
    toGuest: fields.bytes("toGuest", MAX_CONSOLE_SAVED_INPUT_BYTES),
    toHost: fields.bytes("toHost", MAX_TO_HOST_BYTES),
  };
}

function describe(ports: OwnPorts): string {
  return ports.map(({ name, isConsole }) => `"${name}"${isConsole ? " (console)" : ""}`).join(", ");
}

/** The ways from older states to this version's. */
export function consoleUpgrades(): UpgradeRegistry {
  const registry = new UpgradeRegistry();
  registry.register({
    deviceType: "console",
    from: 1,
    to: 2,
    upgrade: (sections) => {
      const old = sections.get("state");
      // Its size and its bytes were at the top; the port is checked as any other, so nothing is looked at here.
      const port = { name: "", isConsole: true, isOpenInGuest: false, ...newTalk(), ...Object(old) };
      return new Map(sections).set("state", { isDriverReady: false, ports: [port] });
    },
  });
  return registry;
}
