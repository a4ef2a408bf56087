import type { Command } from "commander";
import { keepAcrossExec } from "../../src/sys/mod.ts";
import { action, addCommand, type CommandPage } from "../command.ts";
import { wholeNumber } from "../whole-number.ts";
import type { ConfinementNeeds } from "./confine.ts";
import type { RunNetOptions } from "./run-net.ts";
import { addRunOptions } from "./run-options.ts";

const wholeFd = wholeNumber(0);

/** `vhu device run net`. `serves` is what all types say about how they serve. */
export function registerNet(run: Command, serves: string, exitStatus: CommandPage["exitStatus"]): void {
  const command = addCommand(run, {
    usage: "net",
    description: `serve a network interface: a tap's, or a stream socket's\n\n${serves} A tap that is not there is made, in this
network namespace, and is down until it is set up: "ip link set NAME up". While a stream has no peer, the link is down.`,
    examples: [
      ["vhu device run net --socket /run/net.sock --tap tap0", "listen there, for QEMU to connect:"],
      [
        "qemu-system-x86_64 … -chardev socket,id=c0,path=/run/net.sock -netdev vhost-user,id=n0,chardev=c0 -device virtio-net-pci,netdev=n0",
        "guest memory must be shared: -object memory-backend-memfd,…,share=on",
      ],
      [
        "vhu device run net --socket /run/net.sock --stream /run/peer.sock",
        "frames to and from QEMU's -netdev stream,id=n0,addr.type=unix,addr.path=/run/peer.sock,server=on",
      ],
    ],
    ...(exitStatus === undefined ? {} : { exitStatus }),
  });
  addRunOptions(command)
    .option("--tap <name>", "the host's end is this tap interface")
    .option(
      "--tap-fd <number>",
      "the host's end is a tap's queue that the parent process passes; once for each queue pair",
      (text: string, others: number[] = []) => [...others, wholeFd(text)],
    )
    .option("--stream <path>", "the host's end is a stream socket that listens there")
    .option("--stream-listen <path>", "the host's end is whoever connects to this stream socket")
    .option("--stream-fd <number>", "the host's end is this connected stream socket", wholeFd)
    .option("--queue-pairs <count>", "with --tap, receive and transmit queues (default: 1)", wholeNumber(1))
    .option("--mac <address>", "for front-ends that ask the device (default: random)")
    .option("--mtu <bytes>", "for front-ends that ask the device (default: 1500)", wholeNumber(1))
    .option("--max-bytes <count>", "move at most so many bytes in a period, each way", wholeNumber(1))
    .option("--period <ms>", "the period (default: 1000)", wholeNumber(1))
    .action(
      action(async (context, options: RunNetOptions) => {
        const { confineDevice } = await import("./confine-device.ts");
        confineDevice(context, options, netNeeds(options));
        const { runNet } = await import("./run-net.ts");
        return runNet(context, options);
      }),
    );
}

function netNeeds({ tap, tapFd = [], streamListen, streamFd }: RunNetOptions): ConfinementNeeds {
  for (const fd of streamFd === undefined ? tapFd : [...tapFd, streamFd]) keepAcrossExec(fd);
  return {
    readWrite: tap === undefined ? [] : ["/dev/net/tun"],
    sockets: streamListen === undefined ? [] : [streamListen],
  };
}
