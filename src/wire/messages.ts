import { backendMessages } from "./backend-messages.ts";
import type { crosvm2024FrontendMessages, crosvmBackendMessages } from "./crosvm-messages.ts";
import { frontendMessages } from "./frontend-messages.ts";
import type { Message } from "./message.ts";

export { backendMessages, frontendMessages };

/** Every front-end message of any dialect. */
export type FrontendMessages = typeof frontendMessages & typeof crosvm2024FrontendMessages;
/** Every back-end message of any dialect. */
export type BackendMessages = typeof backendMessages & typeof crosvmBackendMessages;

export type FrontendMessageName = keyof FrontendMessages;
export type BackendMessageName = keyof BackendMessages;
export type MessageName = FrontendMessageName | BackendMessageName;

type PayloadIn<M> = M extends Message<infer P, unknown> ? P : never;
type ReplyIn<M> = M extends Message<unknown, infer R> ? R : never;

/** The request's payload. IOTLB_MSG, the one name on both sides, has the same payload on both. */
export type Payload<N extends MessageName> = N extends FrontendMessageName
  ? PayloadIn<FrontendMessages[N]>
  : N extends BackendMessageName
    ? PayloadIn<BackendMessages[N]>
    : never;

/** The reply's body, undefined where there is only an acknowledgement. For IOTLB_MSG: the front-end's. */
export type Reply<N extends MessageName> = N extends FrontendMessageName
  ? ReplyIn<FrontendMessages[N]>
  : N extends BackendMessageName
    ? ReplyIn<BackendMessages[N]>
    : never;
