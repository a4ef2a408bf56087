import { statSync } from "node:fs";
import { resolve } from "node:path";
import { type BackendRecord, recordedImage } from "../backends/mod.ts";
import type { QemuDisk } from "./qemu-machine.ts";
import { qmpBackingImage, qmpBlocks } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";

/** A chain of overlays that is longer is not followed to its end. */
const MAX_CHAIN = 100;

/** The disks as they are now; their files' times show later whether they have changed. */
export async function machineDisks(
  client: QmpClient,
  backends: readonly BackendRecord[],
  workingFolder = "/",
): Promise<QemuDisk[]> {
  const blocks = await client.request("query-block", { answer: qmpBlocks });
  const own = blocks.flatMap(({ device, qdev, inserted }): QemuDisk[] => {
    if (inserted === undefined) return [];
    const { image, ro } = inserted;
    const path = fileName(inserted.file, workingFolder);
    const dirty = image["dirty-flag"];
    const node = inserted["node-name"];
    return [
      {
        device: qdev ?? device,
        path,
        format: inserted.drv,
        sizeBytes: image["virtual-size"],
        readOnly: ro,
        files: [path, ...backingFiles(image, workingFolder)],
        ...(device === "" ? {} : { drive: device }),
        ...(node === undefined ? {} : { node }),
        ...(dirty === undefined ? {} : { isDirty: dirty }),
        ...fileFacts(path),
      },
    ];
  });
  return [...own, ...backends.flatMap(backendDisk)];
}

/** What tells a changed file; nothing where it is no file of this host. */
export function fileFacts(path: string): Pick<QemuDisk, "inode" | "fileBytes" | "modifiedNs"> {
  try {
    const { ino, size, mtimeNs } = statSync(path, { bigint: true });
    return { inode: String(ino), fileBytes: Number(size), modifiedNs: String(mtimeNs) };
  } catch {
    return {};
  }
}

/** The image of a disk that is a back-end's. */
function backendDisk(backend: BackendRecord): QemuDisk[] {
  const image = recordedImage(backend);
  if (image === undefined) return [];
  const facts = fileFacts(image.path);
  return [
    {
      device: backend.chardev,
      backend: backend.chardev,
      path: image.path,
      format: image.format,
      sizeBytes: facts.fileBytes ?? 0,
      readOnly: image.isReadOnly,
      ...(image.isForeign ? { isForeign: true } : {}),
      ...facts,
    },
  ];
}

function backingFiles(image: unknown, workingFolder: string): string[] {
  const files: string[] = [];
  let next = qmpBackingImage.safeParse(image).data?.["backing-image"];
  while (next !== undefined && files.length < MAX_CHAIN) {
    const backing = qmpBackingImage.safeParse(next).data;
    if (backing === undefined) break;
    files.push(fileName(backing.filename, workingFolder));
    next = backing["backing-image"];
  }
  return files;
}

/** QEMU names a file as it was given; what is no file ("json:…", "nbd://…") keeps its name. */
function fileName(name: string, workingFolder: string): string {
  return /^[a-z][a-z0-9+.-]*:/i.test(name) ? name : resolve(workingFolder, name);
}
