import { consoleFeature } from "../../devices/console/mod.ts";
import type { DeviceConfig } from "../machine-file/mod.ts";

/** What the machine's own driver makes of a device. */
export interface DeviceTraits {
  /** Queues that it uses. */
  readonly queues: number;
  /** Device feature bits that it understands. */
  readonly features: bigint;
  /** Of the config space, as far as the type's drivers read it. */
  readonly configBytes: number;
}

/** SEG_MAX, BLK_SIZE, FLUSH. */
const BLK_FEATURES = (1n << 2n) | (1n << 6n) | (1n << 9n);
/** MAC, STATUS. */
const NET_FEATURES = (1n << 5n) | (1n << 16n);

export function traitsOf(config: DeviceConfig): DeviceTraits {
  switch (config.type) {
    case "blk":
      return { queues: 1, features: BLK_FEATURES, configBytes: 60 };
    case "console": {
      const { port } = config;
      if (port === undefined) return { queues: 2, features: 0n, configBytes: 12 };
      return { queues: 2 * port.length + 2, features: consoleFeature.MULTIPORT, configBytes: 12 };
    }
    case "fs":
      return { queues: 2, features: 0n, configBytes: 40 };
    case "rng":
      return { queues: 1, features: 0n, configBytes: 0 };
    case "net":
      return { queues: 2, features: NET_FEATURES, configBytes: 12 };
  }
}
