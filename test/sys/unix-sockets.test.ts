import { expect, test } from "bun:test";
import { fstatSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectUnix, holdersOfSocket, socketsAt, UnixListener, unixSockets } from "../../src/sys/mod.ts";

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
    expect(of(far)).toMatchObject({ inode: far, path, isListening: false, peer: near });
    expect(of(near)).toEqual({ inode: near, path: undefined, isListening: false, peer: far });
    expect(holdersOfSocket(far)).toEqual([process.pid]);
    expect(holdersOfSocket(0)).toEqual([]);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

test("a listener that was bound by a relative name is found by its file, and its socket is not taken away", async () => {
  const dir = mkdtempSync(join(tmpdir(), "vhu-us-"));
  const script =
    'Bun.listen({ unix: "s", socket: { data() {} } }); console.log("ready"); setInterval(() => {}, 1000);';
  const daemon = Bun.spawn([process.execPath, "-e", script], { cwd: dir, stdout: "pipe" });
  try {
    await daemon.stdout.getReader().read();
    const path = join(dir, "s");
    expect(socketsAt(path)).toMatchObject([{ path: "s", isListening: true }]);
    expect(() => UnixListener.listen(path)).toThrow("another process listens");
    using _client = connectUnix(path);
    // The file's name is another, the file is the same.
    renameSync(path, join(dir, "t"));
    expect(socketsAt(path)).toEqual([]);
    expect(socketsAt(join(dir, "t")).some(({ isListening }) => isListening)).toBe(true);
  } finally {
    daemon.kill("SIGKILL");
    await daemon.exited;
    rmSync(dir, { recursive: true, force: true });
  }
});
