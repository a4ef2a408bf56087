import type { MachineDisk, PreflightCheck } from "../driver.ts";
import type { Offer } from "./messages.ts";

/** A disk that is to be copied; `usedBytes`: what of it is in use as far as the host can see. */
export interface CopiedDisk {
  readonly path: string;
  readonly virtualBytes: number;
  readonly usedBytes: number;
}

/** What a machine's disks are, for a receiver that may have to be given copies of them. */
export class OfferedStorage {
  constructor(readonly disks: readonly MachineDisk[]) {}

  /** What vhu cannot bring to a host that does not have it, wherever that is. */
  get checks(): PreflightCheck[] {
    return this.disks.flatMap(({ name, path, obstacle }) =>
      path === undefined && obstacle !== undefined
        ? [{ name: "storage", ok: false, detail: `${name}: ${obstacle}` }]
        : [],
    );
  }

  copyOf(path: string): Offer["disks"][number]["copy"] {
    const disk = this.disks.find((each) => each.path === path);
    if (disk === undefined) return undefined;
    const { format, virtualBytes, usedBytes, readOnly } = disk;
    return { format, virtualBytes, usedBytes, readOnly };
  }

  /** What is to be copied, of these paths. */
  copiesOf(paths: readonly string[]): CopiedDisk[] {
    return paths.map((path) => {
      const { virtualBytes = 0, usedBytes = 0 } = this.disks.find((each) => each.path === path) ?? {};
      return { path, virtualBytes, usedBytes };
    });
  }

  /** Of the disks that the receiver does not have. */
  checksOf(copies: readonly string[]): PreflightCheck[] {
    return copies.map((path) => {
      const disk = this.disks.find((each) => each.path === path);
      if (disk === undefined) return { name: "storage", ok: false, detail: `${path} was not offered` };
      const { name, obstacle } = disk;
      const detail = `${name} (${path}): ${obstacle ?? "will be copied while the machine runs"}`;
      return { name: "storage", ok: obstacle === undefined, detail };
    });
  }
}
