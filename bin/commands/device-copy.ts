import type { Command } from "commander";
import { parseAddressOf } from "../address.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import type { ImageCopy } from "../device/copy-image.ts";
import { formatBytes, formatDuration } from "../output/format.ts";

export function registerDeviceCopy(parent: Command): void {
  addCommand(parent, {
    usage: "copy <device> <target>",
    description: `copy a running disk's image as it is at one point in time

Every write that the guest saw completed before that point is in the copy, whole, and none that came after. Where the file
system can share data (btrfs, xfs) this takes an instant; elsewhere the image is copied while the guest uses it, then what
was written meanwhile, until little is left: for that the device is suspended, unless it is already. What a guest had yet to
write back is not on its disk: freeze its file systems first (fsfreeze) where that matters.

The target has mode 0600 and appears under its name when it is whole; what had the name is replaced. When the copy fails, is
interrupted or killed, the device goes on.`,
    examples: [
      ["vhu device copy device:/run/disk.ctl backup.raw", "while the guest runs"],
      ["vhu device copy device:/run/disk.ctl backup.raw --json", "progress as JSON lines"],
    ],
    exitStatus: {
      1: "the copy failed, and nothing is left of it",
      2: "the command line is wrong, the device has no image, or the target is that image",
      5: "no device answers there, or it ended meanwhile",
    },
  }).action(action(copy));
}

async function copy({ output, signal }: CommandContext, address: string, target: string): Promise<undefined> {
  const { DeviceControlClient } = await import("../../migrate/control/mod.ts");
  const { checkTarget, ImageCopier } = await import("../device/copy-image.ts");
  const { TargetFile } = await import("../device/target-file.ts");
  const { syncFile } = await import("../../src/sys/mod.ts");
  using client = DeviceControlClient.connect(parseAddressOf(address, "device", ["device"]).path, signal);
  const { sizeBytes } = checkTarget(await client.status({ command: "status" }), target);
  using file = new TargetFile(target);
  using image = await client.image();
  // What is not on disk yet would be written while the guest waits: data can be shared only once they are there.
  syncFile(image);
  let copied: ImageCopy;
  {
    using progress = output.progress("copying");
    const onProgress = (doneBytes: number) => progress.update({ doneBytes, totalBytes: sizeBytes });
    copied = await new ImageCopier(client, image, file.fd, sizeBytes, { signal, onProgress }).run();
  }
  // The guest goes on before the copy is made durable, which can take longer than all the rest.
  file.publish();
  const { method, passes, suspendedMs } = copied;
  const how = method === "reflink" ? "sharing its data with the image" : `copied in ${passes + 1} passes`;
  output.summary({ target, sizeBytes, method, passes, suspendedMs }, () => [
    `${target}: ${formatBytes(sizeBytes)}, ${how}; the disk stood still for ${formatDuration(suspendedMs)}`,
  ]);
  return undefined;
}
