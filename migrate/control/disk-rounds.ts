import { disposeAll } from "../../src/sys/mod.ts";
import type { DiskSink } from "../driver.ts";
import type { DeviceControlClient } from "./device-control-client.ts";
import { ImageRounds, type ImageRoundsOptions } from "./image-rounds.ts";

/** A back-end whose image is copied, and the sink's number of that disk. */
export interface CopiedImage {
  readonly disk: number;
  /** The rounds' from now on. */
  readonly client: DeviceControlClient;
}

/** Copies all images of a machine together. */
export class DiskRounds implements Disposable {
  private constructor(readonly images: readonly ImageRounds[]) {}

  /** @throws StateError where somebody else copies one */
  static async begin(
    copied: readonly CopiedImage[],
    sink: DiskSink,
    options: ImageRoundsOptions,
  ): Promise<DiskRounds> {
    using stack = new DisposableStack();
    for (const { client } of copied) stack.use(client);
    const images: ImageRounds[] = [];
    for (const { disk, client } of copied) {
      images.push(stack.use(await ImageRounds.begin(client, disk, sink, options)));
    }
    stack.move();
    return new DiskRounds(images);
  }

  /** All of them, while they are written; one after the other, since each uses all of the way. */
  async first(): Promise<void> {
    for (const image of this.images) await image.first();
  }

  /** Returns what has been written since, in bytes. */
  async round(): Promise<number> {
    let bytes = 0;
    for (const image of this.images) bytes += await image.round();
    return bytes;
  }

  get isNear(): boolean {
    return this.images.every((image) => image.isNear);
  }

  /** Nothing is written any more. */
  async last(): Promise<void> {
    await Promise.all(this.images.map((image) => image.last()));
  }

  [Symbol.dispose](): void {
    disposeAll(this.images);
  }
}
