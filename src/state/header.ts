import { FormatError, UsageError } from "../errors.ts";
import { MAX_STATE_NAME_BYTES } from "../limits.ts";
import type { StateHeader } from "./frame.ts";
import { packValue, unpackValue } from "./msgpack.ts";

/** Every field is checked on the way out and on the way in. @throws UsageError */
export function packHeader(header: StateHeader): Uint8Array {
  const { deviceType, version, oldestCompatibleVersion, features } = header;
  const fault = headerFault(header);
  if (fault !== undefined) throw new UsageError(`device state header: ${fault}`);
  return packValue({ deviceType, version, oldestCompatibleVersion, features }, "device state header");
}

/** Keys that this reader does not know are left alone: the header stays readable for ever. @throws FormatError */
export function unpackHeader(bytes: Uint8Array, offset: number): StateHeader {
  const value = unpackValue(bytes, "state header", offset);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new FormatError("the device state header is not a map", "state header", offset);
  }
  const { deviceType, version, oldestCompatibleVersion, features } = value as Record<string, unknown>;
  const header = {
    deviceType,
    version,
    oldestCompatibleVersion,
    features: typeof features === "number" && Number.isSafeInteger(features) ? BigInt(features) : features,
  } as StateHeader;
  const fault = headerFault(header);
  if (fault !== undefined) throw new FormatError(fault, "state header", offset);
  return header;
}

function headerFault(header: StateHeader): string | undefined {
  const { deviceType, version, oldestCompatibleVersion, features } = header;
  if (typeof deviceType !== "string" || deviceType === "") return "deviceType is not a name";
  if (Buffer.byteLength(deviceType) > MAX_STATE_NAME_BYTES)
    return `deviceType is longer than ${MAX_STATE_NAME_BYTES} bytes`;
  if (!isU32(version)) return "version is not a 32-bit number";
  if (!isU32(oldestCompatibleVersion)) return "oldestCompatibleVersion is not a 32-bit number";
  if (oldestCompatibleVersion > version) return "oldestCompatibleVersion is above version";
  if (typeof features !== "bigint" || BigInt.asUintN(64, features) !== features)
    return "features is not a 64-bit mask";
  return undefined;
}

function isU32(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0xffff_ffff;
}
