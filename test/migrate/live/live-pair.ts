import { LiveServer, type LiveServerOptions } from "../../../migrate/live/live-server.ts";
import { type OpenSessionOptions, openSession } from "../../../migrate/live/open-session.ts";
import { ownCertificate } from "../../../migrate/live/own-certificate.ts";
import { PairingToken } from "../../../migrate/live/pairing-token.ts";
import type { Session } from "../../../migrate/live/session.ts";
import type { LogDetails, Logger } from "../../../src/logger.ts";

export const LOCAL = "127.0.0.1";

/** Keeps what was logged. */
export class Lines implements Logger {
  readonly lines: string[] = [];
  readonly #add = (message: string, _details?: LogDetails) => void this.lines.push(message);
  readonly debug = this.#add;
  readonly info = this.#add;
  readonly warn = this.#add;
  readonly error = this.#add;

  async waitFor(pattern: RegExp): Promise<string> {
    for (let i = 0; i < 1000; i++) {
      const line = this.lines.find((each) => pattern.test(each));
      if (line !== undefined) return line;
      await Bun.sleep(5);
    }
    throw new Error(`nothing like ${pattern} was logged:\n${this.lines.join("\n")}`);
  }
}

/** A receiver with a token, on loopback. */
export class LiveRig implements Disposable {
  readonly certificate = ownCertificate(3_600_000);
  readonly logger = new Lines();
  readonly sessions: Session[] = [];
  token = new PairingToken();
  server!: LiveServer;
  onSession: ((session: Session) => void) | undefined;

  static async start(options: Partial<LiveServerOptions> = {}): Promise<LiveRig> {
    const rig = new LiveRig();
    rig.server = await LiveServer.listen({
      address: { host: LOCAL, port: 0 },
      security: { kind: "token", certificate: rig.certificate, token: () => rig.token },
      version: "test",
      logger: rig.logger,
      onSession: (session) => {
        rig.sessions.push(session);
        rig.onSession?.(session);
      },
      ...options,
    });
    return rig;
  }

  get port(): number {
    return this.server.port;
  }

  /** A sender with the right token, unless told otherwise. */
  open(options: Partial<OpenSessionOptions> = {}): Promise<Session> {
    const { keyHash } = this.certificate;
    return openSession({
      address: { host: LOCAL, port: this.port },
      security: { kind: "token", token: { keyHash, secret: this.token.secret } },
      streams: 2,
      retryMs: 5_000,
      version: "test",
      ...options,
    });
  }

  [Symbol.dispose](): void {
    for (const session of this.sessions) session[Symbol.dispose]();
    this.server[Symbol.dispose]();
  }
}
