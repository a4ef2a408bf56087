import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildGuest, type RunningQemu, startQemu } from "../peers/mod.ts";
import { startVhu, type VhuProcess } from "./vhu-process.ts";

/** A boot to init takes 2 s under TCG on an idle machine; a loaded one gets many times that. */
export const BOOT_TIMEOUT_MS = 120_000;

/** Lines of a guest's init: prints GUEST-ERRORS with what its block layer or file system has logged. */
export const SEES_ERRORS = `dmesg | grep -iE "I/O error|EXT4-fs error|Buffer I/O|virtio.*(error|broken|invalid)|remount.*ro" && echo GUEST-ERRORS`;

/** A disk in a folder: its image, the daemon that serves it, and guests that have it as /dev/vda. */
export class BlkGuest {
  readonly image: string;
  readonly socket: string;

  constructor(
    readonly dir: string,
    sizeBytes: number,
  ) {
    this.image = join(dir, "disk.raw");
    this.socket = join(dir, "blk.sock");
    writeFileSync(this.image, "");
    truncateSync(this.image, sizeBytes);
  }

  async startDaemon(...options: string[]): Promise<VhuProcess> {
    const vhu = startVhu([
      ...["device", "run", "blk", "--socket", this.socket],
      ...["--image", this.image, "--id", "VHU-1", ...options],
    ]);
    try {
      await vhu.waitForStderr(/ready at/, BOOT_TIMEOUT_MS);
      return vhu;
    } catch (error) {
      await vhu[Symbol.asyncDispose]();
      throw error;
    }
  }

  boot(name: string, init: string, device: string, args: readonly string[] = []): RunningQemu {
    const { dir } = this;
    const guest = buildGuest({ dir, name, modules: ["virtio_blk"], init });
    const chardev = ["-chardev", `socket,id=c0,path=${this.socket},reconnect-ms=200`];
    const disk = ["-device", `vhost-user-blk-pci,chardev=c0${device}`];
    return startQemu({ dir, name, guest, args: [...args, ...chardev, ...disk] });
  }
}
