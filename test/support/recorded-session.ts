import { frontendMessages } from "../../src/wire/mod.ts";

export type FrontendMessageName = keyof typeof frontendMessages;

/** A message as it was recorded; `fields` are its "key=value" words, `words` the others. */
export interface RecordedMessage {
  /** Line of the file, from 1. */
  readonly line: number;
  readonly name: FrontendMessageName;
  readonly needsReply: boolean;
  readonly sizeBytes: number;
  readonly fdCount: number;
  readonly fields: Readonly<Record<string, string>>;
  readonly words: readonly string[];
}

/** A request with the reply that it got, if it got one. */
export interface RecordedExchange {
  readonly request: RecordedMessage;
  readonly reply: RecordedMessage | undefined;
}

const MESSAGE = /^\s*[\d.]+ (->|<-) ([A-Z_]+)(\(reply\))?( NEED_REPLY)? size=(\d+) fds=(\d+) ?(.*)$/;
const CONNECTED = /^\s*[\d.]+ --- front-end connected/;

/** Reads a trace: the sessions of one VM with its back-end, those without a message left out. */
export function parseTrace(text: string): RecordedExchange[][] {
  const sessions: { request: RecordedMessage; reply: RecordedMessage | undefined }[][] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (CONNECTED.test(line)) sessions.push([]);
    const match = MESSAGE.exec(line);
    if (match === null) continue;
    const message = messageOf(match, index + 1);
    const session = sessions.at(-1);
    if (match[1] === "->") session?.push({ request: message, reply: undefined });
    else {
      const asked = session?.at(-1);
      if (asked?.request.name !== message.name) throw new Error(`line ${index + 1}: a reply to nothing`);
      asked.reply = message;
    }
  }
  return sessions.filter((session) => session.length > 0);
}

function messageOf(match: RegExpExecArray, line: number): RecordedMessage {
  const [, , name = "", , needReply, size, fds, rest = ""] = match;
  if (!Object.hasOwn(frontendMessages, name)) throw new Error(`line ${line}: ${name} is no message`);
  const words = rest.split(" ").filter((word) => word !== "");
  const fields = words
    .filter((word) => word.includes("="))
    .map((word) => word.split("=") as [string, string]);
  return {
    line,
    name: name as FrontendMessageName,
    needsReply: needReply !== undefined,
    sizeBytes: Number(size),
    fdCount: Number(fds),
    fields: Object.fromEntries(fields),
    words: words.filter((word) => !word.includes("=")),
  };
}

/** The payload that was recorded, byte for byte. */
export function payloadOf({ name, fields, words, fdCount, line }: RecordedMessage): Uint8Array {
  const field = (key: string) => {
    const value = fields[key];
    if (value === undefined) throw new Error(`line ${line}: no ${key}`);
    return Number(value);
  };
  const encode = (value: unknown) =>
    (frontendMessages[name].payload as { encode(v: unknown): Uint8Array }).encode(value);
  switch (name) {
    case "SET_FEATURES":
    case "SET_PROTOCOL_FEATURES":
      return encode({ value: BigInt(words[0] ?? "") });
    case "SET_VRING_NUM":
    case "SET_VRING_BASE":
    case "GET_VRING_BASE":
    case "SET_VRING_ENABLE":
      return encode({ index: field("vq"), num: field("val") });
    case "SET_VRING_KICK":
    case "SET_VRING_CALL":
    case "SET_VRING_ERR":
      return encode({ index: field("vq"), noFd: fdCount === 0 });
    case "SET_VRING_ADDR":
      return encode({
        index: field("vq"),
        flags: field("flags"),
        descriptor: field("desc"),
        used: field("used"),
        available: field("avail"),
        log: field("log"),
      });
    case "ADD_MEM_REG":
      return encode({ region: regionOf(fields) });
    case "SET_LOG_BASE":
      return encode({ sizeBytes: field("mmap_size"), offset: field("off") });
    case "GET_CONFIG":
      return encode({
        offset: field("off"),
        sizeBytes: field("size"),
        flags: field("flags"),
        payload: new Uint8Array(Buffer.from(fields.data ?? "", "hex")),
      });
    case "SET_DEVICE_STATE_FD":
      return encode({ direction: fields.direction === "SAVE" ? 0 : 1, phase: field("phase") });
    default:
      return encode({});
  }
}

export function regionOf(fields: Readonly<Record<string, string>>) {
  const { gpa, size, ua, off } = fields;
  return {
    guestAddress: Number(gpa),
    sizeBytes: Number(size),
    userAddress: Number(ua),
    mmapOffset: Number(off),
  };
}
