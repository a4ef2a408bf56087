import { createHmac } from "node:crypto";
import { CompatibilityError, FormatError, PeerError } from "../../src/errors.ts";
import { LIVE_GREETING_TIMEOUT_MS, MAX_LIVE_STRANGER_BYTES } from "../../src/limits.ts";
import { type Frame, FrameType } from "./frame.ts";
import { Link } from "./link.ts";
import {
  decodeMessage,
  encodeMessage,
  type Greeting,
  greeting,
  type Hello,
  LIVE_VERSION,
  refused,
  welcome,
} from "./messages.ts";
import type { Patience } from "./patience.ts";
import { connectTo, type HostPort, type SenderSecurity } from "./security.ts";
import { Session } from "./session.ts";

export interface OpenSessionOptions {
  readonly address: HostPort;
  readonly security: SenderSecurity;
  /** Data streams, each with a connection of its own. */
  readonly streams: number;
  readonly retryMs: number;
  /** vhu's version, for the other side's log. */
  readonly version: string;
  readonly signal?: AbortSignal | undefined;
  readonly silenceMs?: number | undefined;
  readonly patience?: Patience | undefined;
  /** Told when a connection broke, and when there is a new one. */
  readonly onConnection?: ((what: string) => void) | undefined;
}

const FIRST_RETRY_MS = 50;
const MAX_RETRY_STEP_MS = 1_000;

/** The receiver's refusal: what it wrote is for the user. */
class RefusedError extends CompatibilityError {}

/** Connects to a receiver and begins a migration there. @throws CompatibilityError when it refuses, PeerError */
export async function openSession(options: OpenSessionOptions): Promise<Session> {
  const { security, streams, retryMs } = options;
  const secret =
    security.kind === "token" ? { secret: Buffer.from(security.token.secret).toString("hex") } : {};
  const { link, answer } = await introduce(options, () => ({ open: { streams, retryMs, ...secret } }));
  if (answer.session === undefined || answer.secret === undefined) {
    link[Symbol.dispose]();
    throw new FormatError("the receiver's welcome has no session", "welcome");
  }
  const session = new Session({ id: answer.session, secret: answer.secret, streams, retryMs });
  session.patience = options.patience ?? session.patience;
  session.onBroken = (stream, cause) => {
    options.onConnection?.(`connection ${stream} broke: ${cause.message}`);
    void takeUpAgain(session, stream, options);
  };
  session.attach(0, link, answer.lastReceived);
  try {
    const numbers = Array.from({ length: streams }, (_, index) => index + 1);
    await Promise.all(numbers.map((stream) => attachFirst(session, stream, options)));
    return session;
  } catch (error) {
    await session.abandon(error);
    throw error;
  }
}

/** A connection that breaks this early is taken up again as any other. */
async function attachFirst(session: Session, stream: number, options: OpenSessionOptions): Promise<void> {
  try {
    await attach(session, stream, options);
  } catch (error) {
    const mayHelp = error instanceof PeerError && error.reconnect && session.identity.retryMs > 0;
    if (!mayHelp || options.signal?.aborted) throw error;
    session.expectLink(stream, error);
  }
}

async function attach(session: Session, stream: number, options: OpenSessionOptions): Promise<void> {
  const { id, secret } = session.identity;
  const { link, answer } = await introduce(options, ({ nonce }) => {
    const { lastReceived } = session.streams[stream]!;
    return {
      attach: { session: id, stream, lastReceived, proof: attachProof(secret, nonce, stream, lastReceived) },
    };
  });
  session.attach(stream, link, answer.lastReceived);
}

/** That whoever attaches knows the session's secret, for this one connection. */
export function attachProof(secret: string, nonce: string, stream: number, lastReceived: number): string {
  return createHmac("sha256", secret).update(`vhu attach ${nonce} ${stream} ${lastReceived}`).digest("hex");
}

/** Tries until it works or the session fails: it does when the connection is missing for too long. */
async function takeUpAgain(session: Session, stream: number, options: OpenSessionOptions): Promise<void> {
  for (let delayMs = FIRST_RETRY_MS; session.failure === undefined; ) {
    await Bun.sleep(delayMs);
    delayMs = Math.min(2 * delayMs, MAX_RETRY_STEP_MS);
    if (session.failure !== undefined || session.hasLink(stream)) return;
    try {
      await attach(session, stream, options);
      options.onConnection?.(`connection ${stream} was taken up again`);
      return;
    } catch (error) {
      if (error instanceof RefusedError) session.fail(error);
    }
  }
}

/** Connects, hears the greeting, says who this is, and waits for the welcome. */
async function introduce(
  options: OpenSessionOptions,
  say: (greeted: Greeting) => Pick<Hello, "open" | "attach">,
) {
  const socket = await connectTo(options.address, options.security, options.signal);
  const link = new Link(socket, MAX_LIVE_STRANGER_BYTES, options.silenceMs);
  try {
    const greeted = decodeMessage(
      greeting,
      (await nextFrame(link, FrameType.greeting, options.signal)).payload,
      "greeting",
    );
    requireVersion(greeted);
    requireKind(greeted, options.security);
    const words: Hello = {
      vhu: options.version,
      version: LIVE_VERSION,
      nonce: greeted.nonce,
      ...say(greeted),
    };
    link.say(FrameType.hello, encodeMessage(words));
    link.trust();
    const answer = decodeMessage(
      welcome,
      (await nextFrame(link, FrameType.welcome, options.signal)).payload,
      "welcome",
    );
    return { link, answer };
  } catch (error) {
    link[Symbol.dispose]();
    throw error;
  }
}

function requireVersion({ vhu, versions }: Greeting): void {
  if (versions.from <= LIVE_VERSION && versions.to >= LIVE_VERSION) return;
  throw new CompatibilityError(
    `the receiver (vhu ${vhu}) speaks versions ${versions.from} to ${versions.to} of the migration protocol, this vhu ${LIVE_VERSION}: update the older one`,
  );
}

function requireKind({ wants }: Greeting, { kind }: SenderSecurity): void {
  const have = kind === "certificates" ? "certificate" : kind === "token" ? "token" : "nothing";
  if (wants === have) return;
  throw new CompatibilityError(`the receiver wants a ${wants}, and was shown a ${have}`);
}

async function nextFrame(link: Link, type: number, signal?: AbortSignal): Promise<Frame> {
  const { promise, resolve, reject } = Promise.withResolvers<Frame>();
  const silent = new PeerError("the receiver said nothing: is it vhu migrate receive?", { reconnect: true });
  const timer = setTimeout(() => reject(silent), LIVE_GREETING_TIMEOUT_MS);
  const onAbort = () => reject(signal?.reason);
  signal?.addEventListener("abort", onAbort);
  if (signal?.aborted) onAbort();
  let isFirst = true;
  link.listen((frame) => {
    // What comes right behind it belongs to the session, which listens later.
    if (isFirst) link.pause();
    isFirst = false;
    resolve(frame);
  }, reject);
  try {
    const frame = await promise;
    if (frame.type === type) return frame;
    if (frame.type === FrameType.refused) {
      const { message } = decodeMessage(refused, frame.payload, "refusal");
      throw new RefusedError(`the receiver refuses: ${message}`);
    }
    throw new FormatError(`a frame of type ${frame.type} came where ${type} was due`, "greeting");
  } catch (error) {
    if (!(error instanceof PeerError) || error === silent) throw error;
    throw new PeerError(
      `the receiver hung up (${error.message}); where it wants certificates, its log says whether ours was refused`,
      { cause: error, reconnect: true },
    );
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}
