import { ProtocolError } from "../errors.ts";
import type { IotlbEntry, IotlbMiss } from "../memory/mod.ts";
import type { Iotlb as IotlbMessage } from "../wire/mod.ts";

const TYPE = { miss: 1, update: 2, invalidate: 3 } as const;

export type IotlbChange =
  | { readonly kind: "update"; readonly entry: IotlbEntry }
  | { readonly kind: "invalidate"; readonly range: Pick<IotlbEntry, "iova" | "sizeBytes"> };

/** What a front-end's IOTLB_MSG asks for. @throws ProtocolError for another type, or addresses above 2^53 */
export function iotlbChange(message: IotlbMessage): IotlbChange {
  const range = { iova: small(message.iova, "iova"), sizeBytes: sizeOf(message.sizeBytes) };
  if (message.type === TYPE.invalidate) return { kind: "invalidate", range };
  if (message.type !== TYPE.update) {
    throw new ProtocolError(`is ${message.type}, expected update (2) or invalidate (3)`, "IOTLB_MSG", "type");
  }
  const userAddress = small(message.userAddress, "userAddress");
  return { kind: "update", entry: { ...range, userAddress, permission: message.permission } };
}

/** The question for a translation that is missing. */
export function iotlbMissMessage(miss: IotlbMiss): IotlbMessage {
  const { iova, permission } = miss;
  return { iova: BigInt(iova), sizeBytes: 0n, userAddress: 0n, permission, type: TYPE.miss };
}

function small(value: bigint, path: string): number {
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw new ProtocolError(`is ${value}, over 2^53`, "IOTLB_MSG", path);
}

/** An invalidation of everything names a size of up to 2^64-1. */
function sizeOf(value: bigint): number {
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
}
