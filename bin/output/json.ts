/** JSON in which a bigint is a hexadecimal string (only feature masks and checksums are bigints here). */
export function toJson(value: unknown, indent?: number): string {
  return JSON.stringify(
    value,
    (_, field: unknown) => (typeof field === "bigint" ? `0x${field.toString(16)}` : field),
    indent,
  );
}
