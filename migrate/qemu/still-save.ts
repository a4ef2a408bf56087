import type { MoveOptions, VmSink } from "../driver.ts";
import type { OpenedBlocks } from "./opened-blocks.ts";
import type { OutgoingStream } from "./outgoing-stream.ts";
import type { PageCollector } from "./page-collector.ts";
import type { ParsedStream } from "./stream-parser.ts";

/**
 * Reads the stream of a VM that stops for it, and beside it, from the moment in which its memory is still, the blocks that
 * vhu has opened. When this ends, whatever way, nobody reads from them any more.
 */
export async function readStill(
  outgoing: OutgoingStream,
  { collector, opened, sink }: { collector: PageCollector; opened: OpenedBlocks; sink: VmSink },
  options: MoveOptions,
): Promise<ParsedStream> {
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, ...(options.signal === undefined ? [] : [options.signal])]);
  let blocksBytes = 0;
  const report = () => {
    const { doneBytes, totalBytes } = collector;
    const done = Math.min(doneBytes + blocksBytes, totalBytes);
    options.onProgress?.({ phase: "memory", done, total: totalBytes });
  };
  const onProgress: MoveOptions["onProgress"] = ({ done }) => {
    blocksBytes = done;
    report();
  };
  let saved: Promise<void> = Promise.resolve();
  collector.whenStill = () => {
    saved = opened.save(sink, collector.ramBlocks, { signal, onProgress });
    // Whatever fails first ends the other, and is what is told.
    saved.catch((error: unknown) => stop.abort(error));
  };
  try {
    const parsed = await outgoing.read(collector, { signal, onProgress: report });
    await saved;
    await opened.requireStill();
    return parsed;
  } catch (error) {
    stop.abort(error);
    await saved.catch(() => {});
    throw error;
  }
}
