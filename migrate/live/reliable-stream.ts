/**
 * One stream of numbered frames that outlives its connections: what was not acknowledged is kept and sent again, what comes
 * twice is dropped, a gap is a fault. Pure.
 */
import { FormatError } from "../../src/errors.ts";
import { encodeFrame, FRAME_CHECKSUM_BYTES, type Frame } from "./frame.ts";

interface Kept {
  readonly sequence: number;
  readonly bytes: Uint8Array;
}

export class ReliableStream {
  #lastSent = 0;
  #lastAcknowledged = 0;
  #lastReceived = 0;
  #lastApplied = 0;
  #kept: Kept[] = [];
  #keptBytes = 0;
  readonly #sentHash = new Bun.CryptoHasher("sha256");
  readonly #receivedHash = new Bun.CryptoHasher("sha256");

  constructor(readonly number: number) {}

  /** Number of the last frame that was given to `send`. */
  get lastSent(): number {
    return this.#lastSent;
  }
  /** The peer has applied all up to this one. */
  get lastAcknowledged(): number {
    return this.#lastAcknowledged;
  }
  /** All up to this one came, in order. A new connection goes on behind it. */
  get lastReceived(): number {
    return this.#lastReceived;
  }
  get lastApplied(): number {
    return this.#lastApplied;
  }
  /** Bytes that are kept until the peer has applied them. */
  get keptBytes(): number {
    return this.#keptBytes;
  }

  /** sha256 over the checksums of all frames so far, in their order; hexadecimal. */
  get sentRoot(): string {
    return this.#sentHash.copy().digest("hex");
  }
  get receivedRoot(): string {
    return this.#receivedHash.copy().digest("hex");
  }

  /** Numbers a frame and keeps it. Returns the bytes for the connection. */
  send(type: number, payload: Uint8Array, flags = 0): Uint8Array {
    this.#lastSent += 1;
    const bytes = encodeFrame({ type, flags, stream: this.number, sequence: this.#lastSent, payload });
    this.#sentHash.update(bytes.subarray(-FRAME_CHECKSUM_BYTES));
    this.#kept.push({ sequence: this.#lastSent, bytes });
    this.#keptBytes += bytes.length;
    return bytes;
  }

  /** The peer has applied all up to `sequence`. @throws FormatError for one that was never sent */
  acknowledge(sequence: number): void {
    this.#requireSent(sequence);
    if (sequence <= this.#lastAcknowledged) return;
    this.#lastAcknowledged = sequence;
    let count = 0;
    for (; count < this.#kept.length && (this.#kept[count] as Kept).sequence <= sequence; count += 1) {
      this.#keptBytes -= (this.#kept[count] as Kept).bytes.length;
    }
    this.#kept = this.#kept.slice(count);
  }

  /**
   * What a new connection has to bring, where the peer has all up to `sequence`.
   * @throws FormatError when the peer claims what was never sent, or has forgotten what it acknowledged
   */
  after(sequence: number): Uint8Array[] {
    this.#requireSent(sequence);
    if (sequence < this.#lastAcknowledged) {
      throw new FormatError(
        `the peer has frames up to ${sequence} and acknowledged ${this.#lastAcknowledged} before`,
        `stream ${this.number}`,
      );
    }
    return this.#kept.filter((each) => each.sequence > sequence).map(({ bytes }) => bytes);
  }

  /** Whether the frame is new; false for one that was here before. @throws FormatError for a gap */
  receive({ sequence, checksum }: Pick<Frame, "sequence" | "checksum">): boolean {
    if (sequence <= this.#lastReceived) return false;
    if (sequence !== this.#lastReceived + 1) {
      throw new FormatError(`frame ${sequence} comes after ${this.#lastReceived}`, `stream ${this.number}`);
    }
    this.#lastReceived = sequence;
    this.#receivedHash.update(checksum);
    return true;
  }

  /** The next frame in order was applied. Returns its number, for the acknowledgement. */
  applied(): number {
    this.#lastApplied += 1;
    return this.#lastApplied;
  }

  #requireSent(sequence: number): void {
    if (sequence <= this.#lastSent) return;
    throw new FormatError(
      `the peer has frame ${sequence}, of ${this.#lastSent} that were sent`,
      `stream ${this.number}`,
    );
  }
}
