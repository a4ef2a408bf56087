import { qmpMemoryBackends, qmpText } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";

/** Of memory that a new QEMU has made for itself: it reads as zeros. A file has what was in it. */
const FRESH_TYPES = ["memory-backend-memfd", "memory-backend-ram"];

/**
 * The memory blocks of a waiting QEMU that are zeros still: zeros need not be sent for them, and would make QEMU look at
 * each page, which allocates it. ROMs are not among them; and while QEMU waits it copies none into memory (rom_reset).
 */
export async function freshBlocks(client: QmpClient): Promise<ReadonlySet<string>> {
  const names = new Set<string>();
  for (const { id } of await client.request("query-memdev", { answer: qmpMemoryBackends })) {
    if (id === undefined) continue;
    const given = { path: `/objects/${id}`, property: "type" };
    const type = await client.request("qom-get", { answer: qmpText, arguments: given });
    if (!FRESH_TYPES.includes(type)) continue;
    // QEMU names the block by the object's id, or, for old machine types, by its path.
    names.add(id).add(`/objects/${id}`);
  }
  return names;
}
