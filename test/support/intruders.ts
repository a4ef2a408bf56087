import { connect as connectPlain, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { encodeFrame, FrameDecoder, FrameType } from "../../migrate/live/frame.ts";

const HOST = "127.0.0.1";

/** Over when the other side has closed it. */
export function closed(socket: Socket): Promise<void> {
  socket.on("error", () => {});
  socket.resume();
  return new Promise((resolve) => socket.on("close", () => resolve()));
}

/** A TLS connection to a receiver, whoever that is. */
export async function rawTls(port: number): Promise<Socket> {
  const socket = connectTls({ host: HOST, port, rejectUnauthorized: false });
  socket.on("error", () => {});
  await new Promise((resolve) => socket.once("secureConnect", resolve));
  return socket;
}

/** Sends these bytes as they are, and waits until the receiver has closed. */
export async function throwAt(port: number, ...pieces: readonly Uint8Array[]): Promise<void> {
  const socket = connectPlain({ host: HOST, port });
  const end = closed(socket);
  for (const piece of pieces) socket.write(piece);
  socket.end();
  await end;
}

/** Says a byte now and then, too few for a head, and never who it is, until the receiver has had enough. */
export async function dribble(port: number): Promise<void> {
  const socket = await rawTls(port);
  const end = closed(socket);
  const timer = setInterval(() => socket.write(Uint8Array.of(FrameType.hello)), 900);
  await end;
  clearInterval(timer);
}

/** A sender of the future: it says hello with a version that nobody here speaks. */
export async function sayNewer(port: number): Promise<void> {
  const socket = await rawTls(port);
  const end = closed(socket);
  const decoder = new FrameDecoder();
  socket.on("data", (bytes: Uint8Array) => {
    for (const frame of decoder.push(bytes)) {
      if (frame.type !== FrameType.greeting) continue;
      const { nonce } = JSON.parse(new TextDecoder().decode(frame.payload));
      const words = { vhu: "9.0", version: 7, nonce, open: { streams: 1, retryMs: 0 }, news: true };
      const payload = new TextEncoder().encode(JSON.stringify(words));
      socket.write(encodeFrame({ type: FrameType.hello, flags: 0, stream: 0, sequence: 0, payload }));
    }
  });
  await end;
}
