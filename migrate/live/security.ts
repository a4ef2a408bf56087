/** How the two sides of a live migration know each other. */
import { createHash, X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import { connect as connectPlain } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { CompatibilityError, PeerError, UsageError } from "../../src/errors.ts";
import type { TokenParts } from "./pairing-token.ts";

/** PEM texts. Both sides show a certificate that one of `ca` has signed. */
export interface Certificates {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

export type SenderSecurity =
  | { readonly kind: "token"; readonly token: TokenParts }
  | { readonly kind: "certificates"; readonly certificates: Certificates }
  /** Plain TCP, on a loopback address only. */
  | { readonly kind: "insecure" };

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

const CONNECT_TIMEOUT_MS = 10_000;

/** @throws UsageError for an address at which everybody can listen in */
export function requireLoopback({ host }: HostPort): void {
  if (host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host)) return;
  throw new UsageError(`--insecure is for a loopback address, not for ${host}: use a token or certificates`);
}

/**
 * A connection to a receiver that is the right one: its key is the pinned one, or its certificate is signed and named as it
 * should be. Nothing was said yet.
 *
 * @throws PeerError, CompatibilityError when somebody else is there
 */
export async function connectTo(
  address: HostPort,
  security: SenderSecurity,
  signal?: AbortSignal,
): Promise<Socket> {
  if (security.kind === "insecure") requireLoopback(address);
  const socket = security.kind === "insecure" ? connectPlain(address) : openTls(address, security);
  const event = security.kind === "insecure" ? "connect" : "secureConnect";
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timer = setTimeout(() => reject(new Error("no answer")), CONNECT_TIMEOUT_MS);
  const onAbort = () => reject(signal?.reason);
  signal?.addEventListener("abort", onAbort);
  socket.once(event, () => resolve());
  socket.on("error", reject);
  socket.once("close", () => reject(new Error("it hung up")));
  try {
    signal?.throwIfAborted();
    await promise;
    if (security.kind === "token") requireKey(socket as TLSSocket, security.token.keyHash);
    return socket;
  } catch (error) {
    socket.destroy();
    throw signal?.aborted ? error : connectError(address, error);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
    socket.off("error", reject);
  }
}

function openTls(
  { host, port }: HostPort,
  security: Exclude<SenderSecurity, { kind: "insecure" }>,
): TLSSocket {
  const common = { host, port, minVersion: "TLSv1.3" } as const;
  // The pinned key is compared before the first byte; the certificate around it is nobody's.
  if (security.kind === "token") return connectTls({ ...common, rejectUnauthorized: false });
  return connectTls({ ...common, ...security.certificates, rejectUnauthorized: true });
}

function requireKey(socket: TLSSocket, keyHash: Uint8Array): void {
  const { raw } = socket.getPeerCertificate(true) as { readonly raw?: Buffer };
  const key = raw && new X509Certificate(raw).publicKey.export({ type: "spki", format: "der" });
  const hash = key && createHash("sha256").update(key).digest();
  if (hash !== undefined && Buffer.compare(hash, keyHash) === 0 && socket.getProtocol() === "TLSv1.3") return;
  throw new CompatibilityError(
    "the token is another receiver's: who listens there has another key; take the token that it has printed last",
  );
}

function connectError({ host, port }: HostPort, cause: unknown): Error {
  if (cause instanceof CompatibilityError) return cause;
  const { code = "", message } = cause as Error & { code?: string };
  const text = `${host}:${port}: ${message}`;
  if (/CERT|ALTNAME|SELF_SIGNED|ISSUER/.test(code)) {
    return new CompatibilityError(`the receiver's certificate is not accepted: ${text}`, { cause });
  }
  return new PeerError(`there is no connection to ${text}`, { cause, reconnect: true });
}
