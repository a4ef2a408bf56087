import { FormatError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_JSON_DEPTH, MAX_SNAPSHOT_JSON_ITEMS } from "../../src/limits.ts";

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c];
/** "[" and "{", "]" and "}" differ in this bit only. */
const CASE_BIT = 0x20;
const [OPENING, CLOSING] = [0x5b, 0x5d];

/**
 * Counts, before anything is made of it, what JSON would become: two bytes of text can be an object of forty, and whoever shows a
 * value recurses.
 *
 * @throws FormatError with the limit
 */
export function expectModest(json: Uint8Array, section: string, offset: number): void {
  let [depth, items, isText] = [0, 0, false];
  for (let at = 0; at < json.length; at += 1) {
    const byte = json[at] as number;
    if (isText) {
      if (byte === BACKSLASH) at += 1;
      else if (byte === QUOTE) isText = false;
    } else if (byte === QUOTE) isText = true;
    else if (byte === COMMA) items += 1;
    else if ((byte & ~CASE_BIT) === OPENING) {
      depth += 1;
      items += 1;
      if (depth > MAX_SNAPSHOT_JSON_DEPTH) {
        const message = `the ${section} is nested more deeply than ${MAX_SNAPSHOT_JSON_DEPTH} levels`;
        throw new FormatError(message, section, offset);
      }
    } else if ((byte & ~CASE_BIT) === CLOSING) depth -= 1;
  }
  if (items <= MAX_SNAPSHOT_JSON_ITEMS) return;
  const message = `the ${section} has ${items} values, the limit is ${MAX_SNAPSHOT_JSON_ITEMS}`;
  throw new FormatError(message, section, offset);
}
