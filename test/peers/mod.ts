/** The real peers vhu is tested against: where they are, a guest to boot, and QEMU to boot it. */
export { buildGuest, type Guest, type GuestOptions } from "./guest.ts";
export {
  libblkioCompileFlags,
  type MissingPeer,
  type Peer,
  type PeerName,
  peer,
  requirePeers,
} from "./peer.ts";
export { type QemuOptions, type RunningQemu, startQemu } from "./qemu.ts";
