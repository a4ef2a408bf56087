/**
 * `bun line-server-program.ts ADDRESS PORT FILE`: takes one connection, ever, and sends each line back. FILE gets "line milliseconds" for
 * each: when the world has heard of the guest.
 */
import { appendFileSync } from "node:fs";

const [hostname = "", port = "", path = ""] = process.argv.slice(2);
let rest = "";
const listener: { stop(): void } = Bun.listen({
  hostname,
  port: Number(port),
  socket: {
    open: () => listener.stop(),
    data(socket, bytes) {
      const lines = (rest + bytes.toString()).split("\n");
      rest = lines.pop() as string;
      appendFileSync(path, lines.map((line) => `${line} ${Date.now()}\n`).join(""));
      socket.write(lines.map((line) => `${line}\n`).join(""));
    },
  },
});
