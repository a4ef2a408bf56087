/** The framed, versioned, checksummed device state that vhu's own devices write into the DEVICE_STATE pipe. */
export { type DecodedState, decodeState } from "./decode-state.ts";
export { encodeState, type StateSection } from "./encode.ts";
export type { StateHeader } from "./frame.ts";
export { type StateFormat, sniffState } from "./sniff-state.ts";
export { StateDecoder, type StateLimits, type StateSink } from "./state-decoder.ts";
export { type StateReaderVersion, UpgradeRegistry, type UpgradeStep } from "./upgrade-registry.ts";
export { xxh3 } from "./xxh3.ts";
