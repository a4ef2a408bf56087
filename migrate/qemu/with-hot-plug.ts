import type { QemuMachine } from "./qemu-machine.ts";

/** A recorded command line, as the machine was when it was saved: with what was plugged in, without what was taken out. */
export function withHotPlug(
  args: readonly string[],
  { added = [], removed = [], removedParts = [] }: Pick<QemuMachine, "added" | "removed" | "removedParts">,
): string[] {
  const kept: string[] = [];
  for (let at = 0; at < args.length; at += 1) {
    const option = (args[at] as string).replace(/^--/, "-");
    const id = idOf(args[at + 1] ?? "");
    const isRemoved =
      (option === "-device" && id !== undefined && removed.includes(id)) ||
      removedParts.some((part) => part.option === option && part.id === id);
    if (isRemoved) at += 1;
    else kept.push(args[at] as string);
  }
  return [...kept, ...added];
}

/** Of an option's list, in either of its forms; of a block node its name. */
export function idOf(word: string): string | undefined {
  const plain = /(?:^|,)(?:id|node-name)=([^,]+)/.exec(word)?.[1];
  return plain ?? /"(?:id|node-name)"\s*:\s*"([^"]+)"/.exec(word)?.[1];
}
