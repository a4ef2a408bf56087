import { expect, test } from "bun:test";
import { WaitingBackends } from "../../../migrate/machine/waiting-backends.ts";
import { type MachineConfig, parseMachineConfig } from "../../../migrate/machine-file/mod.ts";

function machineWith(file: string): MachineConfig {
  const port = { name: "log", file };
  return parseMachineConfig(
    {
      name: "m",
      socket: "/m.sock",
      memory: { "size-mib": 1 },
      device: [{ name: "c", type: "console", port: [port] }],
    },
    "test",
  );
}

test("a back-end that was started for another description is not taken, however deep the difference", () => {
  using backends = new WaitingBackends(machineWith("/srv/a.log"), { vhu: ["true"], version: "test" });
  expect(backends.take(machineWith("/etc/b.log").device[0]!)).toBeUndefined();
  const backend = backends.take(machineWith("/srv/a.log").device[0]!);
  expect(backend?.process).toBeDefined();
  backend?.socket[Symbol.dispose]();
});
