import assert from "node:assert/strict";
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import type { VhuError } from "../../errors.ts";
import type { Logger } from "../../logger.ts";
import { Fd, signalEvent } from "../../sys/mod.ts";
import { faultOf, type LogLevel, type Order, type Report, type WorkerSetup } from "./messages.ts";
import { RingLoop, type WorkerMail } from "./ring-loop.ts";
import type { CreateRunner } from "./ring-program.ts";
import { SpinPolicy } from "./spin-policy.ts";

/** The Worker's end of the mailbox. */
class Mail implements WorkerMail, Disposable {
  readonly orders: Fd;
  readonly #reports: Fd;
  readonly #posted: Int32Array;
  #taken = 0;

  constructor(
    setup: WorkerSetup,
    readonly port: MessagePort,
  ) {
    this.orders = new Fd(setup.orderFd, "orders of a ring Worker");
    this.#reports = new Fd(setup.reportFd, "reports of a ring Worker");
    this.#posted = new Int32Array(setup.posted);
  }

  get hasOrder(): boolean {
    return Atomics.load(this.#posted, 0) !== this.#taken;
  }

  take(): Order {
    const received = receiveMessageOnPort(this.port);
    assert(received !== undefined, "an order was counted and is not there");
    this.#taken = (this.#taken + 1) | 0;
    return received.message as Order;
  }

  done(value: number): void {
    this.report({ kind: "done", value });
  }

  failed(error: VhuError): void {
    this.report({ kind: "failed", fault: faultOf(error) });
  }

  broken(index: number, error: VhuError): void {
    this.report({ kind: "broken", index, fault: faultOf(error) });
  }

  onSignalError(index: number, error: VhuError): void {
    this.logger.warn(`the call fd of ring ${index} cannot be signalled: ${error.message}`);
  }

  readonly logger: Logger = {
    debug: (message, details) => this.#log("debug", message, details),
    info: (message, details) => this.#log("info", message, details),
    warn: (message, details) => this.#log("warn", message, details),
    error: (message, details) => this.#log("error", message, details),
  };

  report(report: Report): void {
    this.port.postMessage(report);
    signalEvent(this.#reports);
  }

  [Symbol.dispose](): void {
    this.orders[Symbol.dispose]();
    this.#reports[Symbol.dispose]();
    this.port.close();
  }

  #log(level: LogLevel, message: string, details: Parameters<Logger["info"]>[1]): void {
    this.report({ kind: "log", level, message, details });
  }
}

const { setup, port } = workerData as { setup: WorkerSetup; port: MessagePort };
const mail = new Mail(setup, port);
try {
  const { createRunner } = (await import(setup.program)) as { createRunner: CreateRunner };
  const loop = new RingLoop(mail, new SpinPolicy(setup.spinUs), (queue, parameters) => {
    const { index, size } = queue;
    const { base, toResubmit } = queue.ring;
    mail.logger.debug("queue starts", { index, size, base, toResubmit });
    return createRunner(queue, parameters, mail.logger);
  });
  try {
    mail.done(0);
    loop.run();
  } finally {
    loop[Symbol.dispose]();
  }
} catch (error) {
  mail.report({
    kind: "bug",
    stack: error instanceof Error ? (error.stack ?? error.message) : String(error),
  });
} finally {
  mail[Symbol.dispose]();
  parentPort?.close();
}
