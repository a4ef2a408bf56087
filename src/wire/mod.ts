/** The vhost-user messages and their codec: pure, no I/O. */
export * from "./array.ts";
export * from "./bytes.ts";
export { Codec, FieldFault, HiddenCodec, type ValueOf } from "./codec.ts";
export * from "./crosvm-messages.ts";
export * from "./dialect.ts";
export * from "./features.ts";
export * from "./header.ts";
export type { Gate, Message, Messages, Range, ReplyRule, Side } from "./message.ts";
export * from "./messages.ts";
export type * from "./payloads.ts";
export * as payloads from "./payloads.ts";
export * from "./scalars.ts";
export { orEmpty, type StructValue, struct } from "./schema.ts";
