import { describe, expect, test } from "bun:test";
import { FormatError, UsageError } from "../../src/errors.ts";
import { Chain, type DriverRingState, RingError } from "../../src/vring/mod.ts";
import { BUFFERS, describeChain, KINDS, popAll, RingFixture } from "./ring-fixture.ts";

const readable = { guestAddress: BUFFERS, sizeBytes: 16, writable: false };
const writable = { guestAddress: BUFFERS + 0x1000, sizeBytes: 64, writable: true };

for (const { name, ...kind } of KINDS) {
  describe(`driver ring, ${name}`, () => {
    test("requests go there and back", () => {
      using fixture = new RingFixture(kind);
      using driver = fixture.driver<string>();
      using device = fixture.device();
      expect(driver.add([readable, writable], "one")).toBe(true);
      expect(driver.add([writable], "two")).toBe(true);
      expect(driver.kickNeeded()).toBe(true);
      expect(driver.freeDescriptors).toBe(kind.indirect ? 6 : 5);
      const [one, two] = popAll(device);
      expect(describeChain(one!)).toEqual([
        { address: BUFFERS, length: 16, writable: false },
        { address: BUFFERS + 0x1000, length: 64, writable: true },
      ]);
      expect(driver.popUsed()).toBeUndefined();
      device.complete(two!, 64);
      device.complete(one!, 3);
      device.publish();
      expect(driver.popUsed()).toEqual({ token: "two", writtenBytes: 64 });
      expect(driver.popUsed()).toEqual({ token: "one", writtenBytes: 3 });
      expect(driver.popUsed()).toBeUndefined();
      expect([driver.freeDescriptors, driver.outstanding]).toEqual([8, 0]);
    });

    test("a full ring takes no more, and changes nothing", () => {
      using fixture = new RingFixture(kind);
      using driver = fixture.driver();
      using device = fixture.device();
      for (let i = 0; i < 7; i++) expect(driver.add([writable], i)).toBe(true);
      if (!kind.indirect) expect(driver.add([readable, writable], 7)).toBe(false);
      expect(driver.add([writable], 7)).toBe(true);
      expect(driver.add([writable], 8)).toBe(false);
      expect(popAll(device)).toHaveLength(8);
    });

    test("kicks are asked for exactly when the device waits for one", () => {
      using fixture = new RingFixture(kind);
      using driver = fixture.driver();
      using device = fixture.device();
      device.enableNotifications();
      driver.add([writable], 0);
      expect(driver.kickNeeded()).toBe(true);
      expect(driver.kickNeeded(), "nothing new").toBe(false);
      device.disableNotifications();
      driver.add([writable], 1);
      expect(driver.kickNeeded()).toBe(false);
      popAll(device);
      device.enableNotifications();
      driver.add([writable], 2);
      expect(driver.kickNeeded()).toBe(true);
    });

    test("interrupts are given exactly when the driver waits for one", () => {
      using fixture = new RingFixture(kind);
      using driver = fixture.driver();
      using device = fixture.device();
      const serve = () => {
        driver.add([writable], 0);
        for (const chain of popAll(device)) device.complete(chain, 0);
        return device.publish();
      };
      expect(serve(), "the first").toBe(true);
      driver.popUsed();
      driver.disableInterrupts();
      expect(serve()).toBe(false);
      expect(driver.enableInterrupts(), "one came meanwhile").toBe(true);
      driver.popUsed();
      expect(driver.enableInterrupts()).toBe(false);
      expect(serve()).toBe(true);
    });

    test("goes on from an exported state, which is plain data", () => {
      using fixture = new RingFixture(kind);
      using device = fixture.device();
      let state: DriverRingState<number>;
      {
        using driver = fixture.driver();
        for (let i = 0; i < 3; i++) driver.add([readable, writable], i);
        const chain = new Chain();
        device.pop(chain);
        device.complete(chain, 1);
        device.publish();
        driver.popUsed();
        device.pop(chain);
        device.complete(chain, 2);
        device.publish();
        state = JSON.parse(JSON.stringify(driver.exportState()));
      }
      using driver = fixture.driver(state);
      expect(driver.popUsed()).toEqual({ token: 1, writtenBytes: 2 });
      expect(driver.outstanding).toBe(1);
      driver.add([writable], 3);
      for (const chain of popAll(device)) device.complete(chain, 0);
      device.publish();
      expect([driver.popUsed()?.token, driver.popUsed()?.token]).toEqual([2, 3]);
      expect(driver.freeDescriptors).toBe(8);
    });

    test("a state that does not fit is refused", () => {
      using fixture = new RingFixture(kind);
      using driver = fixture.driver();
      driver.add([writable], 1);
      const state = driver.exportState();
      const bad: Partial<DriverRingState<number>>[] = [
        { size: 4 },
        { packed: !kind.packed },
        { availableIndex: 70000 },
        { usedIndex: -1 },
        { free: [...state.free, 99] },
        { free: [...state.free.slice(1), state.free[1]!] },
        { free: state.free.slice(1) },
        { outstanding: [] },
      ];
      for (const change of bad) expect(() => fixture.driver({ ...state, ...change })).toThrow(FormatError);
    });

    test("an impossible chain is refused", () => {
      using fixture = new RingFixture(kind);
      using driver = fixture.driver();
      expect(() => driver.add([], 0)).toThrow(UsageError);
      expect(() => driver.add([writable, readable], 0)).toThrow("before the writable");
      expect(() => driver.add([{ ...writable, sizeBytes: 0 }], 0)).toThrow("0 bytes");
      expect(() => driver.add([{ ...writable, sizeBytes: 2 ** 32 }], 0)).toThrow("bytes");
      expect(driver.freeDescriptors).toBe(8);
    });
  });
}

test("a device that gives back what it never got is refused", () => {
  using fixture = new RingFixture();
  using driver = fixture.driver();
  driver.add([writable], 0);
  fixture.setHalf(fixture.usedAddress + 4, 5);
  fixture.setHalf(fixture.usedAddress + 2, 1);
  expect(() => driver.popUsed()).toThrow("does not have");
  fixture.setHalf(fixture.usedAddress + 2, 2);
  expect(() => driver.popUsed()).toThrow(RingError);
  using other = new RingFixture({ packed: true });
  using packed = other.driver();
  packed.add([writable], 0);
  other.setPacked(0, 0, 0, 7, 0x8080);
  expect(() => packed.popUsed()).toThrow("does not have");
});
