/**
 * What `vhu migrate receive` prints and `vhu migrate send` is given: base32 (RFC 4648, without padding) of the SHA-256 of the
 * receiver's public key, which the sender pins, and of a secret, which it shows inside TLS only.
 */
import { timingSafeEqual } from "node:crypto";
import { UsageError } from "../../src/errors.ts";
import { MAX_TOKEN_TRIES, TOKEN_LIFETIME_MS } from "../../src/limits.ts";

const KEY_HASH_BYTES = 32;
const SECRET_BYTES = 16;
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const BITS = 5;

export interface TokenParts {
  readonly keyHash: Uint8Array;
  readonly secret: Uint8Array;
}

function newSecret(): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(SECRET_BYTES));
}

export function encodeToken({ keyHash, secret }: TokenParts): string {
  const bytes = [...keyHash, ...secret];
  const bits = bytes.map((byte) => byte.toString(2).padStart(8, "0")).join("");
  const groups = bits.match(/.{1,5}/g) ?? [];
  return groups.map((group) => ALPHABET[Number.parseInt(group.padEnd(BITS, "0"), 2)]).join("");
}

/** Spaces, dashes and small letters do not matter. @throws UsageError */
export function decodeToken(text: string): TokenParts {
  const letters = [...text.toUpperCase().replaceAll(/[\s-]/g, "")].map((letter) => ALPHABET.indexOf(letter));
  const bits = letters.map((value) => value.toString(2).padStart(BITS, "0")).join("");
  const bytes = Uint8Array.from(bits.match(/.{8}/g) ?? [], (byte) => Number.parseInt(byte, 2));
  const isWhole = letters.length === Math.ceil(((KEY_HASH_BYTES + SECRET_BYTES) * 8) / BITS);
  if (letters.includes(-1) || !isWhole || /1/.test(bits.slice(bytes.length * 8))) {
    throw new UsageError(
      "the pairing token is not one that vhu migrate receive prints; copy all of its line",
    );
  }
  return { keyHash: bytes.slice(0, KEY_HASH_BYTES), secret: bytes.slice(KEY_HASH_BYTES) };
}

export type TokenVerdict = "right" | "wrong" | "used" | "expired" | "too many tries";

/** The receiver's side: good once, for ten minutes and five tries. */
export class PairingToken {
  readonly secret = newSecret();
  readonly #expiresMs: number;
  #triesLeft = MAX_TOKEN_TRIES;
  #isUsed = false;

  constructor(
    readonly now: () => number = () => performance.now(),
    lifetimeMs = TOKEN_LIFETIME_MS,
  ) {
    this.#expiresMs = now() + lifetimeMs;
  }

  get isUsed(): boolean {
    return this.#isUsed;
  }

  /** Whether anybody can still use it. */
  get isOpen(): boolean {
    return !this.#isUsed && this.#triesLeft > 0 && this.now() < this.#expiresMs;
  }

  try(secret: Uint8Array): TokenVerdict {
    if (this.#isUsed) return "used";
    if (this.now() >= this.#expiresMs) return "expired";
    if (this.#triesLeft === 0) return "too many tries";
    if (secret.length === SECRET_BYTES && timingSafeEqual(secret, this.secret)) {
      this.#isUsed = true;
      return "right";
    }
    this.#triesLeft -= 1;
    return "wrong";
  }
}
