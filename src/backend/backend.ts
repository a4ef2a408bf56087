import type { RegionLayout } from "../memory/mod.ts";
import type { Fd } from "../sys/mod.ts";
import type { IotlbMessage, VringAddress } from "./types.ts";
