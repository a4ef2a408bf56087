import { REDACTED, redactArguments } from "./redact-arguments.ts";

/** passwd='…' of <graphics>, and the like. */
const SECRET_ATTRIBUTE =
  /(\s(?:[\w-]+:)?(?:passwd|password|passphrase|token|secret)\s*=\s*)(?:"[^"]*"|'[^']*')/gi;
/** <cookie name='…'>…</cookie> of a network disk, and the like. */
const SECRET_ELEMENT =
  /(<((?:[\w-]+:)?(?:passwd|password|passphrase|token|cookie))(?:\s[^<>]*)?>)[^<]*(<\/\2\s*>)/gi;
/** Of <qemu:arg> a word of a command line, of <qemu:env> the value of a variable, whatever it is called. */
const VARIABLE = /(<qemu:env\b[^<>]*?\svalue\s*=\s*)(?:"[^"]*"|'[^']*')/gi;
const VALUE = /(\s(?:value|name|query|file)\s*=\s*)(?:"([^"]*)"|'([^']*)')/gi;

/** libvirt's XML without passwords, cookies, variables of the environment, and secrets in words of command lines. */
export function redactXml(xml: string): string {
  return xml
    .replace(SECRET_ATTRIBUTE, `$1'${REDACTED}'`)
    .replace(SECRET_ELEMENT, `$1${REDACTED}$3`)
    .replace(VARIABLE, `$1'${REDACTED}'`)
    .replace(VALUE, (whole, before: string, double: string | undefined, single: string | undefined) => {
      const value = double ?? single ?? "";
      const [shown = ""] = redactArguments([value]);
      return shown === value ? whole : `${before}${double === undefined ? `'${shown}'` : `"${shown}"`}`;
    });
}
