/** vhost-user messages over a UNIX socket: framing, fds, acknowledgements, refusals. */
export { Connection, type ConnectionOptions, type Frame, type Received } from "./connection.ts";
export { ReceivedFds } from "./received-fds.ts";
export {
  type Answer,
  type CallOptions,
  RequestChannel,
  type RequestChannelOptions,
} from "./request-channel.ts";
export {
  type Outcome,
  PendingReply,
  type ReplyBody,
  type RequestHandlers,
  RequestServer,
  type Served,
} from "./request-server.ts";
export { RestTimer } from "./rest-timer.ts";
