import { randomBytes, timingSafeEqual } from "node:crypto";
import { createServer as createPlain, type Server, type Socket } from "node:net";
import { createServer as createTls } from "node:tls";
import { CompatibilityError, StateError, SyscallError, VhuError } from "../../src/errors.ts";
import {
  LIVE_GREETING_TIMEOUT_MS,
  MAX_LIVE_SESSIONS,
  MAX_LIVE_STRANGER_BYTES,
  MAX_LIVE_STRANGERS,
} from "../../src/limits.ts";
import type { Logger } from "../../src/logger.ts";
import { type Frame, FrameType } from "./frame.ts";
import { Link } from "./link.ts";
import { decodeMessage, encodeMessage, type Greeting, type Hello, hello, LIVE_VERSION } from "./messages.ts";
import { attachProof } from "./open-session.ts";
import type { OwnCertificate } from "./own-certificate.ts";
import type { PairingToken } from "./pairing-token.ts";
import { type Certificates, type HostPort, requireLoopback } from "./security.ts";
import { Session } from "./session.ts";

export type ReceiverSecurity =
  | {
      readonly kind: "token";
      readonly certificate: OwnCertificate;
      readonly token: () => PairingToken | undefined;
      /** It was tried too often. */
      readonly onTokenClosed?: (() => void) | undefined;
    }
  | { readonly kind: "certificates"; readonly certificates: Certificates }
  | { readonly kind: "insecure" };

export interface LiveServerOptions {
  readonly address: HostPort;
  readonly security: ReceiverSecurity;
  readonly version: string;
  readonly logger: Logger;
  readonly onSession: (session: Session) => void;
  /** No new migration is taken when this says why. */
  readonly refusal?: (() => string | undefined) | undefined;
  /** So many migrations at a time. */
  readonly atOnce?: number | undefined;
  readonly silenceMs?: number | undefined;
  readonly strangerTimeoutMs?: number | undefined;
}

/** Listens for senders. Until one has said who it is, it gets little room and little time, and few do at once. */
export class LiveServer implements Disposable {
  readonly #options: LiveServerOptions;
  readonly #server: Server;
  readonly #sessions = new Map<string, Session>();
  readonly #strangers = new Set<Socket>();

  private constructor(options: LiveServerOptions) {
    const { security } = options;
    this.#options = options;
    const onSocket = (socket: Socket) => this.#greet(socket);
    if (security.kind === "insecure") {
      this.#server = createPlain((socket) => {
        if (this.#admit(socket)) onSocket(socket);
      });
      return;
    }
    this.#server = createTls({ ...tlsOptions(security), handshakeTimeout: this.#strangerMs }, onSocket);
    this.#server.on("connection", (socket: Socket) => this.#admit(socket));
    this.#server.on("tlsClientError", ({ message }: Error, socket: Socket) => {
      options.logger.warn(`a connection was refused: no TLS 1.3 as it should be: ${message}`);
      socket.destroy();
    });
  }

  /** @throws SyscallError when the address cannot be listened at, UsageError for --insecure beyond loopback */
  static async listen(options: LiveServerOptions): Promise<LiveServer> {
    if (options.security.kind === "insecure") requireLoopback(options.address);
    const server = new LiveServer(options);
    const { host, port } = options.address;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.#server.once("error", (error: NodeJS.ErrnoException) => {
      reject(new SyscallError("listen", error.code ?? "EIO", `${host}:${port}`));
    });
    server.#server.listen({ host, port }, resolve);
    await promise;
    server.#server.on("error", (error) => options.logger.error(`the listener failed: ${error.message}`));
    return server;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** Sessions that are going on. */
  get sessionCount(): number {
    for (const [id, session] of this.#sessions) if (session.failure !== undefined) this.#sessions.delete(id);
    return this.#sessions.size;
  }

  /** Connections that have not said who they are. */
  get strangerCount(): number {
    return this.#strangers.size;
  }

  [Symbol.dispose](): void {
    this.#server.close();
    for (const socket of this.#strangers) socket.destroy();
  }

  get #strangerMs(): number {
    return this.#options.strangerTimeoutMs ?? LIVE_GREETING_TIMEOUT_MS;
  }

  /** False for one too many, which is closed. */
  #admit(socket: Socket): boolean {
    const { logger } = this.#options;
    socket.on("error", () => {});
    if (this.#strangers.size >= MAX_LIVE_STRANGERS) {
      logger.warn(`a connection was refused: ${MAX_LIVE_STRANGERS} others have not said who they are`);
      socket.destroy();
      return false;
    }
    this.#strangers.add(socket);
    const peer = `${socket.remoteAddress}:${socket.remotePort}`;
    const timer = setTimeout(() => {
      if (!this.#strangers.has(socket)) return;
      logger.warn(
        `the connection from ${peer} was closed: it did not say who it is in ${this.#strangerMs} ms`,
      );
      this.#strangers.delete(socket);
      socket.destroy();
    }, this.#strangerMs);
    socket.on("close", () => {
      clearTimeout(timer);
      this.#strangers.delete(socket);
    });
    return true;
  }

  #greet(socket: Socket): void {
    if (!this.#strangers.has(socket)) return void socket.destroy();
    const { security, version, logger, silenceMs } = this.#options;
    const link = new Link(socket, MAX_LIVE_STRANGER_BYTES, silenceMs);
    const words: Greeting = {
      vhu: version,
      versions: { from: LIVE_VERSION, to: LIVE_VERSION },
      nonce: randomBytes(16).toString("hex"),
      wants: WANTS[security.kind],
    };
    const { peer } = link;
    link.say(FrameType.greeting, encodeMessage(words));
    link.listen(
      (frame) => {
        link.pause();
        this.#answer(link, words, frame, () => this.#strangers.delete(socket));
      },
      (cause) => logger.warn(`the connection from ${peer} ended before it said who it is: ${cause.message}`),
    );
  }

  #answer(link: Link, greeted: Greeting, frame: Frame, trust: () => void): void {
    try {
      if (frame.type !== FrameType.hello) throw new CompatibilityError("it did not say who it is");
      const words = decodeMessage(hello, frame.payload, "hello");
      if (words.nonce !== greeted.nonce) throw new CompatibilityError("its words are of another connection");
      if (words.version !== LIVE_VERSION) {
        throw new CompatibilityError(
          `vhu ${words.vhu} speaks version ${words.version} of the migration protocol, this one ${LIVE_VERSION}: update the older one`,
        );
      }
      const take = words.open === undefined ? this.#attach(words, greeted) : this.#open(words.open);
      trust();
      link.trust();
      take(link);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.#options.logger.warn(`the connection from ${link.peer} was refused: ${error.message}`);
      link.say(FrameType.refused, encodeMessage({ code: error.code, message: error.message }));
      link.listen(
        () => {},
        () => {},
      );
      link.finish();
      setTimeout(() => link[Symbol.dispose](), REFUSAL_MS);
    }
  }

  #open({ secret, streams, retryMs }: NonNullable<Hello["open"]>): (link: Link) => void {
    const { security, onSession, refusal, atOnce: most = MAX_LIVE_SESSIONS } = this.#options;
    const reason =
      this.sessionCount >= most
        ? `too many migrations arrive at once: ${most} may, try again later`
        : refusal?.();
    if (reason !== undefined) throw new StateError(reason);
    if (security.kind === "token") {
      const token = security.token();
      const verdict = token?.try(Buffer.from(secret ?? "", "hex")) ?? "used";
      if (verdict === "wrong" && token?.isOpen === false) security.onTokenClosed?.();
      if (verdict !== "right") throw new CompatibilityError(`the token is ${VERDICTS[verdict]}`);
    }
    const identity = {
      id: randomBytes(16).toString("hex"),
      secret: randomBytes(32).toString("hex"),
      streams,
      retryMs,
    };
    return (link) => {
      const session = new Session(identity);
      this.#sessions.set(identity.id, session);
      const answer = { session: identity.id, secret: identity.secret, lastReceived: 0 };
      link.say(FrameType.welcome, encodeMessage(answer));
      session.attach(0, link, 0);
      onSession(session);
    };
  }

  #attach({ attach }: Hello, { nonce }: Greeting): (link: Link) => void {
    if (attach === undefined) throw new CompatibilityError("it wants nothing");
    const { stream, lastReceived, proof } = attach;
    const session = this.#sessions.get(attach.session);
    if (session === undefined || session.failure !== undefined) {
      throw new StateError("there is no such migration here any more");
    }
    const right = attachProof(session.identity.secret, nonce, stream, lastReceived);
    if (!timingSafeEqual(Buffer.from(proof), Buffer.from(right))) {
      throw new CompatibilityError("it does not know the secret of that migration");
    }
    if (stream > session.identity.streams)
      throw new CompatibilityError(`the migration has no stream ${stream}`);
    return (link) => {
      link.say(FrameType.welcome, encodeMessage({ lastReceived: session.streams[stream]!.lastReceived }));
      session.attach(stream, link, lastReceived);
    };
  }
}

const WANTS = { token: "token", certificates: "certificate", insecure: "nothing" } as const;
const VERDICTS = {
  wrong: "wrong",
  used: "used up: it is good for one migration",
  expired: "too old: it is good for ten minutes",
  "too many tries": "closed: there were too many wrong tries",
} as const;
/** So long may a refusal take to arrive. */
const REFUSAL_MS = 1_000;

function tlsOptions(security: Exclude<ReceiverSecurity, { kind: "insecure" }>) {
  const common = { minVersion: "TLSv1.3" } as const;
  if (security.kind === "token") {
    return { ...common, cert: security.certificate.certPem, key: security.certificate.keyPem };
  }
  return { ...common, ...security.certificates, requestCert: true, rejectUnauthorized: true };
}
