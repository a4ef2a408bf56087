import { expect, test } from "bun:test";
import { join } from "node:path";
import { Mapping, signalEvent } from "../../../src/sys/mod.ts";
import { REGION_BYTES } from "../../support/backend-rig.ts";
import { getStuck, Stuck } from "../../support/stuck-worker.ts";

test("a Worker that does not come back keeps the memory it uses, beyond the session; then it is served again", () => {
  using stuck = new Stuck();
  const { rig, ring } = getStuck(stuck);
  using file = rig.regions[0]!.fd.duplicate();
  const room = ring.roomOf(0);
  rig[Symbol.dispose]();
  expect(stuck.device.calls).toEqual(["start 0"]);
  {
    using next = stuck.connect();
    expect(next.refusal(() => next.shareMemory().ring().start())).toContain("does not answer");
  }
  // Now it writes into the memory of a session that has ended.
  stuck.free();
  using mapping = Mapping.ofFd(file, { sizeBytes: REGION_BYTES });
  const echo = new Uint8Array(mapping.window(0, REGION_BYTES)).subarray(room, room + 5);
  expect(new TextDecoder().decode(echo)).toBe("stuck");
  expect(stuck.device.calls).toEqual(["start 0", "stop 0", "suspend"]);
  expect(rig.log.lines.map(({ message }) => message).join()).toMatch(/does not come back.*is back/);
  using last = stuck.connect();
  const again = last.shareMemory().ring().start();
  expect(stuck.device.calls.at(-1)).toBe("start 0");
  again.add(new TextEncoder().encode("again"));
  signalEvent(again.kick);
  stuck.device.waitUntilStuck(2);
  expect(again.stop()).toBe(1);
});

test("a ring that did not stop in time is lost: no base is made up, and a reset begins anew", () => {
  using stuck = new Stuck();
  using rig = getStuck(stuck).rig;
  const refused = () => rig.handler.getVringBase(0);
  expect(refused).toThrow("still busy");
  expect(() => rig.handler.remMemReg(rig.regions[0]!.layout)).toThrow("still busy");
  expect(stuck.device.calls).toEqual(["start 0"]);
  stuck.free();
  expect(refused).toThrow("reset the device, or connect anew");
  expect(stuck.device.calls).toEqual(["start 0", "stop 0"]);
  rig.handler.resetDevice();
  expect(stuck.device.calls).toEqual(["start 0", "stop 0", "suspend", "reset"]);
  expect(rig.handler.getVringBase(0)).toBe(0);
});

test("a process ends although a Worker of its does not come back", async () => {
  const script = join(import.meta.dir, "../../support/end-while-stuck.ts");
  const child = Bun.spawn([process.execPath, script], { stdio: ["ignore", "pipe", "inherit"] });
  expect([await child.exited, await child.stdout.text()]).toEqual([7, "ended\n"]);
});
