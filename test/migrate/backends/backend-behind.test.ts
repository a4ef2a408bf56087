import { expect, test } from "bun:test";
import { readlinkSync } from "node:fs";
import { backendBehind } from "../../../migrate/backends/mod.ts";
import { SpawnedBackend } from "../../support/spawn-backend.ts";

const self = { pid: process.pid, workingFolder: process.cwd() };

test("the daemon behind a connection is found without a connection of our own", async () => {
  using backend = await SpawnedBackend.start();
  expect(backendBehind(self, backend.path)).toBeUndefined();
  using _connection = backend.connect();
  let found = backendBehind(self, backend.path);
  // It has to accept the connection first.
  while (found === undefined) found = backendBehind(self, backend.path);
  expect(found.pid).toBe(backend.process.pid);
  expect(found.executable).toBe(readlinkSync(`/proc/${backend.process.pid}/exe`));
  expect(found.commandLine.at(-2)).toBe(backend.path);
  expect(found.workingFolder).toBe(process.cwd());
  // Another VMM's connection to it is not taken for this one's.
  expect(backendBehind({ ...self, pid: 1 }, backend.path)).toBeUndefined();
});
