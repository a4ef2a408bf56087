import type { Command } from "commander";
import type { DeviceStatus, DeviceStatusRequest } from "../../migrate/control/mod.ts";
import { parseAddressOf } from "../address.ts";
import { action, addCommand } from "../command.ts";
import { formatBytes } from "../output/format.ts";

interface Verb {
  readonly verb: string;
  readonly description: string;
  readonly example: string;
  readonly request: DeviceStatusRequest;
}

const EXIT_STATUS = {
  1: "its requests in flight did not end in time",
  5: "no device answers there",
} as const;

function register(parent: Command, { verb, description, example, request }: Verb): void {
  addCommand(parent, {
    usage: `${verb} <device>`,
    description,
    examples: [[`vhu device ${verb} device:/run/disk.ctl`, example]],
    exitStatus: EXIT_STATUS,
  }).action(
    action(async ({ output, signal }, address: string) => {
      const { DeviceControlClient } = await import("../../migrate/control/mod.ts");
      using client = DeviceControlClient.connect(parseAddressOf(address, "device", ["device"]).path, signal);
      const status = await client.status(request);
      const isAsked = verb === "status" || verb === "resize";
      if (isAsked && output.json) output.document(status);
      else if (isAsked) output.lines(statusLines(status));
      else output.summary({ runState: status.runState, holds: status.holds }, () => [runLine(status)]);
      return undefined;
    }),
  );
}

export function registerDeviceStatus(parent: Command): void {
  register(parent, {
    verb: "status",
    description: `show what a back-end of vhu's does, by its control socket

The back-end is one that runs with vhu device run --control PATH.`,
    example: "what is it doing?",
    request: { command: "status" },
  });
}

export function registerDeviceSuspend(parent: Command): void {
  register(parent, {
    verb: "suspend",
    description: `let a back-end of vhu's process no request until it is resumed

Requests in flight end first. The VMM's own messages are still answered; the guest sees a device that is slow.`,
    example: "stand still until vhu device resume",
    request: { command: "suspend", hold: "until-resumed" },
  });
}

export function registerDeviceResume(parent: Command): void {
  register(parent, {
    verb: "resume",
    description:
      "let a suspended back-end go on\n\nOne whose image is being copied goes on when the copy is done.",
    example: "go on",
    request: { command: "resume" },
  });
}

export function registerDeviceResize(parent: Command): void {
  register(parent, {
    verb: "resize",
    description: `tell the guest that its disk's image has another size

The image is made larger first (truncate, lvextend). The guest sees a larger disk without a restart.`,
    example: "after truncate -s 20G disk.raw",
    request: { command: "resize" },
  });
}

function runLine({ runState, holds }: DeviceStatus): string {
  return holds === 0 ? runState : `${runState}: its image is being copied`;
}

function statusLines(status: DeviceStatus): string[] {
  const { type, pid, frontendConnected, image } = status;
  const lines = [
    `${type}, process ${pid}: ${runLine(status)}, ${frontendConnected ? "a" : "no"} front-end is connected`,
  ];
  if (image === undefined) return lines;
  const kind = image.readOnly ? "read-only" : "writable";
  return [...lines, `  image ${image.path}: ${formatBytes(image.capacityBytes)}, ${kind}`];
}
