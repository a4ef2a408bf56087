import { LocalPrograms } from "../migrate/policy/mod.ts";
import { version } from "../package.json" with { type: "json" };
import { vhuCommand } from "./vhu-command.ts";

/** What this host starts for a machine's back-ends. */
export function localPrograms(): LocalPrograms {
  return new LocalPrograms(vhuCommand, undefined, version);
}
