/**
 * A self-signed certificate for one run of `vhu migrate receive`. node:crypto makes keys and signatures but no certificates,
 * and the libraries that do bring twenty packages and a change of the global Reflect; this one form needs forty lines of DER.
 */
import { createHash, generateKeyPairSync, randomBytes, sign } from "node:crypto";

export interface OwnCertificate {
  readonly certPem: string;
  readonly keyPem: string;
  /** SHA-256 of the public key (SubjectPublicKeyInfo): what a client pins. */
  readonly keyHash: Uint8Array;
}

const Tag = { integer: 0x02, bitString: 0x03, utf8: 0x0c, utcTime: 0x17, sequence: 0x30, set: 0x31 } as const;
/** 1.2.840.10045.4.3.2, ecdsa-with-SHA256, as an AlgorithmIdentifier (RFC 5758, 3.2: no parameters). */
const ECDSA_WITH_SHA256 = Buffer.from("300a06082a8648ce3d040302", "hex");
/** 2.5.4.3, commonName. */
const COMMON_NAME = Buffer.from("0603550403", "hex");
/** [0] EXPLICIT INTEGER 2: version 3. */
const VERSION_3 = Buffer.from("a003020102", "hex");
const MINUTE_MS = 60_000;

/** P-256, valid from a minute ago for as long as is asked. */
export function ownCertificate(validMs: number): OwnCertificate {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const keyInfo = publicKey.export({ type: "spki", format: "der" });
  const serial = randomBytes(16);
  // Positive and without leading zeros, as DER wants it.
  serial[0] = (serial[0]! & 0x7f) | 0x40;
  const attribute = der(Tag.sequence, COMMON_NAME, der(Tag.utf8, Buffer.from("vhu migrate receive")));
  const name = der(Tag.sequence, der(Tag.set, attribute));
  const now = Date.now();
  const validity = der(Tag.sequence, utcTime(now - MINUTE_MS), utcTime(now + validMs));
  const toBeSigned = der(
    Tag.sequence,
    ...[VERSION_3, der(Tag.integer, serial), ECDSA_WITH_SHA256, name, validity, name, keyInfo],
  );
  const signature = sign("sha256", toBeSigned, privateKey);
  const bits = der(Tag.bitString, Buffer.concat([Buffer.of(0), signature]));
  return {
    certPem: pem("CERTIFICATE", der(Tag.sequence, toBeSigned, ECDSA_WITH_SHA256, bits)),
    keyPem: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    keyHash: createHash("sha256").update(keyInfo).digest(),
  };
}

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const head =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
}

/** "YYMMDDHHMMSSZ": two digits of the year, which mean 1950 to 2049. */
function utcTime(atMs: number): Buffer {
  const digits = new Date(atMs).toISOString().replaceAll(/[-:T]|\.\d+Z$/g, "");
  return der(Tag.utcTime, Buffer.from(`${digits.slice(2)}Z`));
}

function pem(label: string, bytes: Uint8Array): string {
  const lines =
    Buffer.from(bytes)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}
