import { ProtocolError } from "../errors.ts";
import { MAX_CONFIG_BYTES } from "../limits.ts";

/** @throws ProtocolError when the range leaves a config space of `configBytes` */
export function checkConfigRange(
  request: string,
  offset: number,
  sizeBytes: number,
  configBytes: number,
): void {
  const end = offset + sizeBytes;
  if (end <= Math.min(configBytes, MAX_CONFIG_BYTES)) return;
  throw new ProtocolError(`asks for bytes ${offset} to ${end} of a config space of ${configBytes}`, request);
}
