import { describe, expect, test } from "bun:test";
import { CompatibilityError } from "../../src/errors.ts";
import { UpgradeRegistry } from "../../src/state/mod.ts";

const registry = new UpgradeRegistry();
for (const [from, to] of [
  [1, 2],
  [2, 4],
] as const) {
  registry.register({
    deviceType: "blk",
    from,
    to,
    upgrade: (sections) => sections.set("path", `${sections.get("path") ?? ""}${from}>${to} `),
  });
}
const state = (version: number, oldestCompatibleVersion = version, deviceType = "blk") => ({
  header: { deviceType, version, oldestCompatibleVersion, features: 0n },
  sections: new Map<string, unknown>(),
});

describe("UpgradeRegistry", () => {
  test("applies the registered steps in order", () => {
    const upgraded = registry.apply(state(1), { deviceType: "blk", version: 4 });
    expect(upgraded.sections.get("path")).toBe("1>2 2>4 ");
    expect(upgraded.header.version).toBe(4);
  });

  test("leaves the same version and a newer one that says so as they are", () => {
    for (const same of [state(4), state(7, 3)]) {
      expect(registry.apply(same, { deviceType: "blk", version: 4 })).toBe(same);
    }
  });

  test.each([
    ["too new", state(7, 5), "newer vhu"],
    ["of another device", state(4, 4, "net"), "net"],
    ["older, with no step", state(0), "nothing here upgrades 0"],
    ["older, with steps that lead past", state(3), "nothing here upgrades 3"],
  ])("refuses a state that is %s", (_name, wrong, message) => {
    const act = () => registry.apply(wrong, { deviceType: "blk", version: 4 });
    expect(act).toThrow(CompatibilityError);
    expect(act).toThrow(message);
  });

  test("a step that leads beyond the reader is not taken", () => {
    expect(() => registry.plan(state(2).header, { deviceType: "blk", version: 3 })).toThrow(
      CompatibilityError,
    );
  });
});
