import type { VmSink } from "../driver.ts";
import { ChannelCollector } from "./channel-collector.ts";
import { type MigrationOverrides, MigrationSettings } from "./migration-settings.ts";
import { channelSettings, openChannels } from "./outgoing-channels.ts";
import { type MemoryCollector, OutgoingStream } from "./outgoing-stream.ts";
import { PageCollector } from "./page-collector.ts";
import type { QmpClient } from "./qmp-client.ts";

export interface MemoryTarget {
  readonly sink: VmSink;
  /** What gathers the pages of a stream; told where some of them come another way, and then no channels are used. */
  readonly collector?: PageCollector;
}

export interface Outgoing {
  readonly settings: MigrationSettings;
  readonly stream: OutgoingStream;
  readonly collector: MemoryCollector;
  /** Aborted where the memory cannot be taken any more. */
  readonly signal: AbortSignal | undefined;
}

/**
 * Sets a QEMU up for a migration: through channels where the sink takes them and QEMU can, which costs QEMU and vhu
 * half the time of a processor; else with all pages in the stream.
 */
export async function openOutgoing(
  client: QmpClient,
  { sink, collector }: MemoryTarget,
  overrides: MigrationOverrides,
): Promise<Outgoing> {
  const outgoing = collector === undefined ? await throughChannels(client, sink, overrides) : undefined;
  return outgoing ?? inOneStream(client, collector ?? new PageCollector(sink), overrides);
}

async function inOneStream(
  client: QmpClient,
  collector: PageCollector,
  overrides: MigrationOverrides,
): Promise<Outgoing> {
  const settings = await MigrationSettings.apply(client, overrides);
  try {
    const stream = await OutgoingStream.open(client);
    return { settings, stream, collector, signal: undefined };
  } catch (error) {
    await settings.restore();
    throw error;
  }
}

async function throughChannels(
  client: QmpClient,
  sink: VmSink,
  overrides: MigrationOverrides,
): Promise<Outgoing | undefined> {
  // QEMU 10.0 takes back no page that went through a channel.
  if (sink.channels === undefined || overrides.capabilities?.["postcopy-ram"]) return undefined;
  const { channels } = sink;
  const own = await channelSettings(client, channels.count);
  if (own === undefined) return undefined;
  const settings = await MigrationSettings.apply(client, {
    capabilities: { ...overrides.capabilities, ...own.capabilities },
    parameters: { ...overrides.parameters, ...own.parameters },
  });
  try {
    const connections = await openChannels(client, channels.count);
    if (connections !== undefined) {
      const stream = OutgoingStream.over(client, connections.stream);
      const collector = new ChannelCollector(sink, channels, connections.channels);
      return { settings, stream, collector, signal: channels.signal };
    }
  } catch (error) {
    await settings.restore();
    throw error;
  }
  await settings.restore();
  return undefined;
}
