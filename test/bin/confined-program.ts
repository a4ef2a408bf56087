import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { confine } from "../../bin/device/confine.ts";
import {
  connectUnix,
  createPipe,
  createUserfaultfd,
  ioUringObstacle,
  NativeBuffer,
  O,
  openFile,
  openTemporaryFile,
  PeerStream,
  UnixListener,
} from "../../src/sys/mod.ts";

/** A program that confines itself as `vhu device run` does, and says as JSON what it can still do. */
const [image = "", socket = "", stranger = ""] = process.argv.slice(2);
const { landlockAbi } = confine({ readWrite: [image], sockets: [socket], fds: [3] });

const codeOf = (error: unknown): string => {
  const { details, code } = error as { details?: { errno?: string }; code?: string };
  return details?.errno ?? code ?? String(error);
};

function attempt(work: () => unknown): string {
  try {
    work();
    return "ok";
  } catch (error) {
    return codeOf(error);
  }
}

function reopenPipe(): void {
  const { readEnd, writeEnd } = createPipe();
  using reader = PeerStream.forReading(readEnd);
  using writer = PeerStream.forWriting(writeEnd);
  const buffer = new NativeBuffer(4);
  if (writer.write(buffer, 0, 4) !== 4 || reader.read(buffer) !== 4) throw new Error("nothing came through");
}

function listen(): void {
  using listener = UnixListener.listen(socket);
  using _client = connectUnix(socket);
  using _server = listener.accept();
}

const tcp = await new Promise<string>((resolve) => {
  connect(1, "127.0.0.1", () => resolve("ok")).on("error", (error) => resolve(codeOf(error)));
});
const worker = await new Promise<string>((resolve) => {
  const thread = new Worker(new URL("./confined-worker.ts", import.meta.url).href);
  thread.onmessage = ({ data }) => resolve(String(data));
  thread.onerror = ({ message }) => resolve(message);
});

const status = readFileSync("/proc/self/status", "utf8");
console.log(
  JSON.stringify({
    pid: process.pid,
    landlockAbi,
    noNewPrivs: /^NoNewPrivs:\s+(\d)/m.exec(status)?.[1],
    limits: readFileSync("/proc/self/limits", "utf8"),
    marker: process.env.VHU_CONFINED ?? "gone",
    allowed: {
      image: attempt(() => openFile(image, O.RDWR)[Symbol.dispose]()),
      socket: attempt(listen),
      temporaryFile: attempt(() => openTemporaryFile(tmpdir())[Symbol.dispose]()),
      pipe: attempt(reopenPipe),
      fd3: attempt(() => readFileSync(3)),
      ioUring: attempt(() => {
        const obstacle = ioUringObstacle();
        if (obstacle !== undefined) throw new Error(obstacle);
      }),
      userfaultfd: attempt(() => createUserfaultfd()[Symbol.dispose]()),
      random: attempt(() => crypto.getRandomValues(new Uint8Array(8))),
    },
    worker,
    denied: {
      passwd: attempt(() => readFileSync("/etc/passwd")),
      stranger: attempt(() => readFileSync(stranger)),
      folder: attempt(() => readdirSync("/")),
      newFile: attempt(() => writeFileSync(`${socket}.new`, "")),
      otherEnvironment: attempt(() => readFileSync(`/proc/${process.ppid}/environ`)),
      program: attempt(() => Bun.spawnSync(["/bin/true"])),
      signal: attempt(() => process.kill(process.ppid, 0)),
      tcp,
    },
  }),
);
