import { qmpText } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { QmpError } from "./qmp-error.ts";

/** A network back-end as QEMU shows it. */
export interface Netdev {
  readonly id: string;
  /** "user", "tap", "vhost-user"… */
  readonly type: string;
  readonly queueCount: number;
  /** Of "vhost-user". */
  readonly chardev?: string | undefined;
}

/** No QMP command lists them, so the monitor's own words are read. Undefined where there are none to be had. */
export async function queryNetdevs(client: QmpClient): Promise<Netdev[] | undefined> {
  try {
    const text = await client.request("human-monitor-command", {
      answer: qmpText,
      arguments: { "command-line": "info network" },
    });
    return parseNetdevs(text);
  } catch (error) {
    if (error instanceof QmpError) return undefined;
    throw error;
  }
}

/**
 * The network back-ends in the answer to `info network`: "n0: index=0,type=vhost-user,vhost-user0 to c0", a line for each queue, with " \ "
 * in front below a card. Cards ("type=nic") are none.
 */
export function parseNetdevs(text: string): Netdev[] {
  const found = new Map<string, Netdev>();
  for (const line of text.split(/\r?\n/)) {
    const [, id, type, info = ""] = /^(?: \\ )?([^\s:]+): index=\d+,type=([\w-]+),?(.*)$/.exec(line) ?? [];
    if (id === undefined || type === undefined || type === "nic") continue;
    const known = found.get(id);
    const chardev = type === "vhost-user" ? / to (\S+)$/.exec(info)?.[1] : undefined;
    found.set(id, {
      ...{ id, type, queueCount: (known?.queueCount ?? 0) + 1 },
      ...(chardev === undefined ? {} : { chardev }),
    });
  }
  return [...found.values()];
}
