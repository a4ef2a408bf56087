import type { PassReport, PrecopyOptions } from "../driver.ts";
import type { DiskSender } from "./disk-sender.ts";
import type { LiveSink } from "./live-sink.ts";
import type { Preflight, SendOptions } from "./send.ts";
import { SendMeter } from "./send-meter.ts";
import type { Session } from "./session.ts";

/** What a pre-copy tells about itself, kept for the report and told on, with what the session and the sink have counted. */
export class SendWatch {
  readonly passes: PassReport[] = [];
  /** When the machine stopped, by this host's clock. */
  stoppedMs = Date.now();
  readonly #meter: SendMeter;

  constructor(
    readonly session: Session,
    readonly sink: LiveSink,
    readonly preflight: Preflight,
    readonly options: SendOptions,
    readonly disks?: DiskSender | undefined,
  ) {
    const { roundTripMs = 0, dirtyBytesPerSecond } = preflight;
    this.#meter = new SendMeter({ downtimeMaxMs: options.downtimeMaxMs, roundTripMs, dirtyBytesPerSecond });
  }

  /** For the driver. */
  get listeners(): Required<Pick<PrecopyOptions, "onProgress" | "onPass" | "onStopped">> {
    return {
      onProgress: ({ phase, done, total }) => this.tell(phase, done, total),
      onStopped: (atMs) => {
        this.stoppedMs = atMs;
      },
      onPass: (pass) => {
        const { memoryBytes } = this.preflight;
        this.passes.push(pass);
        this.#meter.pass(pass, this.#given.givenBytes);
        this.options.onPass?.(pass);
        this.tell("memory", memoryBytes, memoryBytes);
      },
    };
  }

  /** While the disks are copied for the first time; later it is the memory's passes that are told about. */
  tellDisks(usedBytes: number): void {
    if (this.sink.memoryBytes > 0) return;
    const { givenBytes } = this.#given;
    this.tell("disks", givenBytes, Math.max(givenBytes, usedBytes));
  }

  /** Of memory and disks together. */
  get #given(): { readonly givenBytes: number; readonly packedBytes: number } {
    const { memoryBytes, packedBytes } = this.sink;
    const disks = this.disks?.disks ?? [];
    return {
      givenBytes: disks.reduce((sum, disk) => sum + disk.givenBytes, memoryBytes),
      packedBytes: disks.reduce((sum, disk) => sum + disk.packedBytes, packedBytes),
    };
  }

  tell(phase: string, doneBytes: number, totalBytes: number): void {
    const { wireBytes, reconnections } = this.session;
    const { givenBytes, packedBytes } = this.#given;
    this.options.operation.progress({ phase, done: doneBytes, total: totalBytes });
    const counts = { givenBytes, packedBytes, wireBytes, reconnections };
    this.options.onProgress?.(this.#meter.progress({ phase, doneBytes, totalBytes, ...counts }));
  }
}
