import { VhuError } from "../src/errors.ts";
import type { Logger } from "../src/logger.ts";
import { UnixDatagram } from "../src/sys/mod.ts";

/** What a service manager tells a service in its environment (sd_notify(3), sd_watchdog_enabled(3)). */
interface ManagerEnvironment {
  readonly NOTIFY_SOCKET?: string | undefined;
  readonly WATCHDOG_USEC?: string | undefined;
  readonly WATCHDOG_PID?: string | undefined;
}

/** The service manager that has started this process, where one has: it hears how it goes, and that it still goes. */
export class ServiceManager implements Disposable {
  readonly #socket: UnixDatagram | undefined;
  readonly #logger: Logger;
  #watchdog: Timer | undefined;
  #isReady = false;

  constructor(environment: ManagerEnvironment, logger: Logger, pid = process.pid) {
    this.#logger = logger;
    this.#socket = this.#connect(environment.NOTIFY_SOCKET);
    const { WATCHDOG_USEC, WATCHDOG_PID = `${pid}` } = environment;
    const microseconds = Number(WATCHDOG_USEC);
    if (this.#socket === undefined || WATCHDOG_PID !== `${pid}` || !(microseconds > 0)) return;
    // Twice as often as it must be, as sd_watchdog_enabled(3) wants it.
    this.#watchdog = setInterval(() => this.#say("WATCHDOG=1"), microseconds / 2_000);
  }

  /** That of this process's environment, which those that it starts do not inherit: they are no part of the service. */
  static ofProcess(logger: Logger): ServiceManager {
    const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = process.env;
    delete process.env.NOTIFY_SOCKET;
    delete process.env.WATCHDOG_USEC;
    delete process.env.WATCHDOG_PID;
    return new ServiceManager({ NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID }, logger);
  }

  /** It serves, once; and what it does, in one line. */
  status(line: string): void {
    const ready = this.#isReady ? "" : "READY=1\n";
    this.#isReady = true;
    this.#say(`${ready}STATUS=${line.replaceAll("\n", " ")}`);
  }

  stopping(): void {
    this.#say("STOPPING=1\nSTATUS=stopping");
  }

  [Symbol.dispose](): void {
    clearInterval(this.#watchdog);
    this.#socket?.[Symbol.dispose]();
  }

  #connect(path: string | undefined): UnixDatagram | undefined {
    if (path === undefined || path === "") return undefined;
    try {
      return UnixDatagram.connect(path);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.#logger.warn(`the service manager cannot be told anything: ${error.message}`);
      return undefined;
    }
  }

  /** A manager that is gone ends nothing here. */
  #say(text: string): void {
    try {
      if (this.#socket?.send(text) === false) this.#logger.warn("the service manager takes nothing");
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.#logger.warn(`the service manager was not told: ${error.message}`);
    }
  }
}
