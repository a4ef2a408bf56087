import assert from "node:assert/strict";
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads";
import { StateError } from "../../errors.ts";
import { createEventFd, Deadline, drainEvent, POLL, signalEvent, waitReadySync } from "../../sys/mod.ts";
import { errorOf, type Order, type Report, type WorkerSetup } from "./messages.ts";

/** A Worker starts in 11-20 ms; a loaded machine needs longer. */
const START_TIMEOUT_MS = 30_000;

export type Notice = Exclude<Report, { kind: "done" | "failed" }>;

/**
 * A ring Worker as the control thread sees it. Orders are answered one after the other; `order` waits in line for the answer,
 * which comes between two polls of the Worker's rings.
 */
export class RingWorker implements Disposable {
  /** Readable when `takeNotices` has something. */
  readonly reports = createEventFd("reports of a ring Worker");
  readonly #orders = createEventFd("orders of a ring Worker");
  readonly #posted = new Int32Array(new SharedArrayBuffer(4));
  readonly #port: MessagePort;
  #notices: Notice[] = [];
  /** Orders so far, the start being the first, and answers to them. */
  #orderCount = 1;
  #answerCount = 0;
  #ended = false;

  /** @throws StateError when it does not start, or the program's module cannot be loaded */
  constructor(program: URL, spinUs: number) {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const setup: WorkerSetup = {
      posted: this.#posted.buffer as SharedArrayBuffer,
      orderFd: this.#orders.duplicate().take(),
      reportFd: this.reports.duplicate().take(),
      program: program.href,
      spinUs,
    };
    const worker = new Worker(new URL("./worker-main.ts", import.meta.url), {
      workerData: { setup, port: port2 },
      transferList: [port2],
    });
    // It is ended by an order; until then the daemon lives on for its own reasons.
    worker.unref();
    port1.unref();
    this.#await(new Deadline(START_TIMEOUT_MS));
  }

  /**
   * It has not answered an order in time and may be anywhere, in a system call that does not return, say. What it was given
   * must stay as it is until it is back.
   */
  get isLate(): boolean {
    if (this.#answerCount < this.#orderCount) {
      this.#takeAll();
      this.#renotify();
    }
    return this.#answerCount < this.#orderCount;
  }

  /** Has the Worker do it and waits. Returns its answer. @throws VhuError as the Worker threw it, StateError when late */
  order(order: Order, timeoutMs: number): number {
    if (this.isLate) throw new StateError("a ring Worker is still busy with what it was told before");
    this.post(order);
    return this.#await(new Deadline(timeoutMs));
  }

  /** Has the Worker do it; a failure becomes a notice. */
  post(order: Order): void {
    if (this.#ended) throw new StateError("the ring Worker has ended");
    this.#port.postMessage(order);
    Atomics.add(this.#posted, 0, 1);
    this.#orderCount++;
    signalEvent(this.#orders);
  }

  /** What the Worker said unasked since the last time. */
  takeNotices(): Notice[] {
    this.#takeAll();
    const notices = this.#notices;
    this.#notices = [];
    return notices;
  }

  /** Ends the Worker after the orders that it has. Its rings must be stopped. One that is late ends with the process. */
  [Symbol.dispose](): void {
    if (this.#ended) return;
    const { isLate } = this;
    this.post({ kind: "exit" });
    this.#ended = true;
    try {
      if (!isLate) this.#await(new Deadline(START_TIMEOUT_MS));
    } finally {
      this.#port.close();
      this.#orders[Symbol.dispose]();
      this.reports[Symbol.dispose]();
    }
  }

  /** Waits for the answer to the last order and returns its value. */
  #await(deadline: Deadline): number {
    for (;;) {
      drainEvent(this.reports);
      for (let report = this.#receive(); report !== undefined; report = this.#receive()) {
        if (report.kind === "bug") throw new Error(`a ring Worker ended on a bug: ${report.stack}`);
        if (report.kind !== "done" && report.kind !== "failed") this.#notices.push(report);
        else if (this.#answerCount + 1 < this.#orderCount) this.#settle(report);
        else return this.#valueOf(report);
      }
      if (waitReadySync(this.reports, POLL.IN, deadline) === 0) {
        throw new StateError(`a ring Worker did not answer within ${deadline.timeoutMs} ms`);
      }
    }
  }

  #takeAll(): void {
    drainEvent(this.reports);
    for (let report = this.#receive(); report !== undefined; report = this.#receive()) {
      if (report.kind === "done" || report.kind === "failed") this.#settle(report);
      else this.#notices.push(report);
    }
  }

  #valueOf(report: Report & { kind: "done" | "failed" }): number {
    this.#answerCount++;
    this.#renotify();
    if (report.kind === "failed") throw errorOf(report.fault);
    return report.value;
  }

  /** An answer that nobody waits for. */
  #settle(report: Report & { kind: "done" | "failed" }): void {
    this.#answerCount++;
    assert(this.#answerCount <= this.#orderCount, "a ring Worker answered what it was not asked");
    if (report.kind === "done") return;
    const { message, details } = report.fault;
    this.#notices.push({ kind: "log", level: "warn", message, details });
  }

  /** The wait has drained the event; whoever watches it must still hear of the notices. */
  #renotify(): void {
    if (this.#notices.length > 0) signalEvent(this.reports);
  }

  #receive(): Report | undefined {
    return receiveMessageOnPort(this.#port)?.message as Report | undefined;
  }
}
