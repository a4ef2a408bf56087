import type { PendingReply } from "../connection/mod.ts";
import type { RegionLayout } from "../memory/mod.ts";
import type { Fd, UnixSocket } from "../sys/mod.ts";
import type { Inflight, Iotlb, Log, VringAddr } from "../wire/mod.ts";

/** A memory region with the fd behind it. The receiver owns the fd. */
export interface RegionWithFd {
  readonly layout: RegionLayout;
  readonly fd: Fd;
}

export interface InflightWithFd {
  readonly layout: Inflight;
  readonly fd: Fd;
}

export interface ConfigRange {
  readonly offset: number;
  readonly sizeBytes: number;
}

export type StateDirection = "save" | "load";

/**
 * The back-end's side of the protocol, one method per message of the spec, in the spec's terms.
 *
 * Each method returns the reply's content or throws a VhuError to refuse. An fd in an argument belongs to the method,
 * an fd that is returned belongs to the caller. All methods are synchronous and wait for nothing but a ring to drain.
 */
export interface Backend {
  getFeatures(): bigint;
  setFeatures(features: bigint): void;
  setOwner(): void;
  resetOwner(): void;
  /** During postcopy it returns the regions as mapped here, for the front-end to register; else nothing. */
  setMemTable(regions: readonly RegionWithFd[]): readonly RegionLayout[] | undefined;
  setLogBase(log: Log, fd: Fd): void;
  setLogFd(fd: Fd): void;
  setVringNum(index: number, num: number): void;
  setVringAddr(address: VringAddr): void;
  setVringBase(index: number, base: number): void;
  /** Stops the ring and returns its base: split, the next available index; packed, both indices with their wraps. */
  getVringBase(index: number): number;
  /** As getVringBase, but what is in flight is left to the inflight buffer. */
  getVringBaseSkipDrain(index: number): number;
  setVringKick(index: number, fd: Fd | undefined): void;
  setVringCall(index: number, fd: Fd | undefined): void;
  setVringErr(index: number, fd: Fd | undefined): void;
  getProtocolFeatures(): bigint;
  setProtocolFeatures(features: bigint): void;
  getQueueNum(): number;
  setVringEnable(index: number, enabled: boolean): void;
  /** `mac` has 6 bytes. */
  sendRarp(mac: Uint8Array): void;
  netSetMtu(mtu: number): void;
  setBackendReqFd(socket: UnixSocket): void;
  iotlbMsg(message: Iotlb): void;
  setVringEndian(index: number, bigEndian: boolean): void;
  getConfig(range: ConfigRange): Uint8Array;
  /** `migration`: read-only fields may be set too. */
  setConfig(offset: number, bytes: Uint8Array, migration: boolean): void;
  createCryptoSession(description: Uint8Array): Uint8Array;
  closeCryptoSession(id: bigint): void;
  postcopyAdvise(): Fd;
  postcopyListen(): void;
  postcopyEnd(): void;
  getInflightFd(request: Inflight): InflightWithFd;
  setInflightFd(inflight: InflightWithFd): void;
  gpuSetSocket(fd: Fd): void;
  resetDevice(): void;
  vringKick(index: number): void;
  getMaxMemSlots(): number;
  /** During postcopy it returns the region as mapped here. */
  addMemReg(region: RegionWithFd): RegionLayout | undefined;
  remMemReg(layout: RegionLayout): void;
  setStatus(status: number): void;
  getStatus(): number;
  getSharedObject(uuid: Uint8Array): Fd;
  /** Returns the back-end's own fd to be used instead of the one given, or undefined when it uses that. */
  setDeviceStateFd(direction: StateDirection, phase: number, fd: Fd): Fd | undefined;
  /** 0 when the whole state was processed. A LOAD that is still arriving is answered later. */
  checkDeviceState(): bigint | PendingReply;
  /** Sizes by shmid. */
  getShmemConfig(): ReadonlyMap<number, number>;
}
