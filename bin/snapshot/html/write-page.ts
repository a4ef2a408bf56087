import type { PreflightCheck } from "../../../migrate/mod.ts";
import type { SnapshotReader } from "../../../migrate/snapshot/mod.ts";
import type { SnapshotDescription } from "../describe.ts";
import { deviceTrees } from "../device-trees.ts";
import { writeNewFile } from "../write-new-file.ts";
import { type DamagedPageContent, damagedHtmlPage } from "./damaged-page.ts";
import { htmlPage } from "./page.ts";

export interface HtmlPageParts {
  readonly file: string;
  readonly snapshot: SnapshotDescription;
  readonly checks: readonly PreflightCheck[];
  readonly reader: SnapshotReader;
}

/** @throws SyscallError, FormatError */
export async function writeHtmlPage(path: string, { reader, ...content }: HtmlPageParts): Promise<void> {
  const page = htmlPage({
    ...content,
    trees: (await deviceTrees(reader)).values(),
    records: reader.records(),
    extentsOf: (regionId) => reader.extents(regionId),
  });
  writeNewFile(path, page);
}

/** Of a file that does not open. @throws SyscallError */
export function writeDamagedPage(path: string, content: DamagedPageContent): void {
  writeNewFile(path, damagedHtmlPage(content));
}
