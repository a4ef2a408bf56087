import { readFileSync } from "node:fs";
import { type Command, InvalidArgumentError } from "commander";
import { type Certificates, decodeToken, type SenderSecurity } from "../migrate/live/mod.ts";
import { UsageError } from "../src/errors.ts";

export interface CertificateOptions {
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
  readonly insecure?: boolean;
}

export interface SenderSecurityOptions extends CertificateOptions {
  readonly token?: string;
  readonly tokenFile?: string;
}

/** What both sides have. */
export function addCertificateOptions(command: Command): Command {
  return command
    .option("--tls-cert <file>", "this side's certificate, PEM; with --tls-key and --tls-ca")
    .option("--tls-key <file>", "its private key, PEM")
    .option("--tls-ca <file>", "who must have signed the other side's certificate, PEM")
    .option("--insecure", "plain TCP; on a loopback address only");
}

export function addSenderSecurity(command: Command): Command {
  return addCertificateOptions(command)
    .option("--token <token>", "the pairing token that vhu migrate receive has printed")
    .option("--token-file <file>", "a file with the token, so that it is not in the list of processes");
}

/** @throws UsageError unless it is exactly one way */
export function senderSecurity(options: SenderSecurityOptions): SenderSecurity {
  const certificates = certificatesOf(options);
  const token = options.tokenFile === undefined ? options.token : readPem(options.tokenFile, "--token-file");
  const given = [certificates, token, options.insecure].filter((each) => each !== undefined);
  if (given.length !== 1) {
    throw new UsageError(
      "say how the receiver is known: --token, or --tls-cert, --tls-key and --tls-ca, or --insecure",
    );
  }
  if (certificates !== undefined) return { kind: "certificates", certificates };
  return token === undefined ? { kind: "insecure" } : { kind: "token", token: decodeToken(token) };
}

/** Undefined where none of the three was given. @throws UsageError */
export function certificatesOf({ tlsCert, tlsKey, tlsCa }: CertificateOptions): Certificates | undefined {
  if (tlsCert === undefined && tlsKey === undefined && tlsCa === undefined) return undefined;
  if (tlsCert === undefined || tlsKey === undefined || tlsCa === undefined) {
    throw new UsageError("--tls-cert, --tls-key and --tls-ca go together");
  }
  return {
    cert: readPem(tlsCert, "--tls-cert"),
    key: readPem(tlsKey, "--tls-key"),
    ca: readPem(tlsCa, "--tls-ca"),
  };
}

/** "500M", "1G": bytes, with binary units. */
export function byteCount(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([kmgt]?)$/i.exec(text.replace(/i?b$/i, ""));
  if (match === null) throw new InvalidArgumentError("Expected a size such as 500M or 1G.");
  return Math.round(Number(match[1]) * 1024 ** " kmgt".indexOf((match[2] || " ").toLowerCase()));
}

function readPem(path: string, option: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (cause) {
    throw new UsageError(`${option}: cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
}
