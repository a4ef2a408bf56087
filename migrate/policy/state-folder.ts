import { homedir } from "node:os";
import { join } from "node:path";

/** Where this user's vhu keeps what it must remember: $XDG_STATE_HOME/vhu, else ~/.local/state/vhu. */
export function stateFolder(): string {
  return join(process.env.XDG_STATE_HOME || join(homedir(), ".local", "state"), "vhu");
}
