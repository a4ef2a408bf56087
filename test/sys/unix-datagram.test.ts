import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PeerError } from "../../src/errors.ts";
import { UnixDatagram } from "../../src/sys/mod.ts";

test("datagrams come as they were sent, by a path and by an abstract name", () => {
  const dir = mkdtempSync(join(tmpdir(), "vhu-dg-"));
  try {
    for (const path of [join(dir, "notify"), `@vhu-test-${process.pid}`]) {
      using listener = UnixDatagram.bind(path);
      using sender = UnixDatagram.connect(path);
      expect(listener.receive()).toBeUndefined();
      expect([sender.send("READY=1\nSTATUS=a b"), sender.send("STOPPING=1")]).toEqual([true, true]);
      expect([listener.receive(), listener.receive()]).toEqual(["READY=1\nSTATUS=a b", "STOPPING=1"]);
      expect(listener.receive()).toBeUndefined();
      // One who takes nothing does not hold up the sender for ever.
      let sent = 0;
      while (sender.send("x", 0)) sent += 1;
      expect(sent).toBeGreaterThan(0);
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

test("nobody there is said", () => {
  expect(() => UnixDatagram.connect("/nonexistent/notify")).toThrow(PeerError);
  expect(() => UnixDatagram.connect(`@vhu-nobody-${process.pid}`)).toThrow(PeerError);
});
