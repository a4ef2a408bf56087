import { readdirSync } from "node:fs";
import {
  createEventFd,
  createMemfd,
  createPipe,
  disposeAll,
  Fd,
  NativeBuffer,
  O,
  openFile,
  UnixSocket,
} from "../../src/sys/mod.ts";

export const REGION_BYTES = 1 << 18;

/** What a hostile peer may send: a pool of fds of every kind, which stay the fuzzer's. */
export class FdPool implements Disposable {
  readonly fds: readonly Fd[];
  readonly memory: Fd;
  readonly events: readonly Fd[];
  readonly #sockets: readonly UnixSocket[];

  constructor() {
    const pipes = [createPipe(), createPipe({ nonBlocking: true })];
    const [a, b] = UnixSocket.pair();
    this.#sockets = [a, b];
    this.memory = createMemfd("fuzz memory", REGION_BYTES);
    this.events = [createEventFd("fuzz event 0"), createEventFd("fuzz event 1")];
    this.fds = [
      ...this.events,
      this.memory,
      createMemfd("fuzz small", 4096),
      ...pipes.flatMap(({ readEnd, writeEnd }) => [readEnd, writeEnd]),
      openFile("/dev/null", O.RDWR),
      openFile("/dev/null", O.RDONLY),
      openFile("/", O.RDONLY),
      a.fd,
      b.fd,
    ];
  }

  /** Empties the sockets: a full one holds a sender until its timeout. */
  drainSockets(): void {
    const buffer = new NativeBuffer(1 << 16);
    for (const socket of this.#sockets) {
      const fds: Fd[] = [];
      while (socket.receive(buffer, 0, buffer.sizeBytes, fds, true) > 0) disposeAll(fds.splice(0));
      disposeAll(fds);
    }
  }

  [Symbol.dispose](): void {
    disposeAll(this.fds);
  }
}

/** What is open in this process: by the kernel's count, and by the labels of our own. */
export function openFds(): { readonly count: number; readonly labels: readonly string[] } {
  return { count: readdirSync("/proc/self/fd").length, labels: Fd.liveLabels() };
}

/** @throws Error when more is open than before */
export function checkNothingLeaked(before: ReturnType<typeof openFds>, where: string): void {
  const now = openFds();
  if (now.count <= before.count && now.labels.length <= before.labels.length) return;
  const left = [...now.labels];
  for (const label of before.labels) left.splice(left.indexOf(label), 1);
  throw new Error(`${where}: ${now.count - before.count} fds leaked: ${left.join(", ")}`);
}
