import { expect, test } from "bun:test";
import { fstatSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectUnix, holdersOfSocket, UnixListener, unixSockets } from "../../src/sys/mod.ts";

test("a connection is found by either end, and a listener is told from it", () => {
  const dir = mkdtempSync(join(tmpdir(), "vhu-us-"));
  try {
    const path = join(dir, "socket with a space");
    using listener = UnixListener.listen(path);
    using client = connectUnix(path);
    using server = listener.accept();
    const [near, far] = [client, server].map(({ fd }) => fstatSync(fd.number).ino) as [number, number];
    const entries = unixSockets();
    const of = (inode: number) => entries.find((entry) => entry.inode === inode);
    expect(of(fstatSync(listener.fd.number).ino)).toMatchObject({ path, isListening: true });
    expect(of(far)).toEqual({ inode: far, path, isListening: false, peer: near });
    expect(of(near)).toEqual({ inode: near, path: undefined, isListening: false, peer: far });
    expect(holdersOfSocket(far)).toEqual([process.pid]);
    expect(holdersOfSocket(0)).toEqual([]);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
