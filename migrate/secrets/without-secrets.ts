import { REDACTED, redactArguments } from "./redact-arguments.ts";
import { redactXml } from "./redact-xml.ts";

const SECRET_KEY = /^(?:passwd|password|passphrase|token)$/i;

/**
 * A copy of something like JSON for people to see: secrets in its texts, its command lines and its XML are gone. What has a meaning
 * of its own (bytes, dates) stays as it is.
 *
 * @example withoutSecrets({ labels: { password: "hush" } }) // { labels: { password: "(redacted)" } }
 */
export function withoutSecrets<Value>(value: Value): Value {
  return shown(value) as Value;
}

function shown(value: unknown): unknown {
  if (typeof value === "string") return textShown(value);
  if (Array.isArray(value)) {
    // A command line is read as a whole: a word can be the secret of the one before.
    const isWords = value.every((word) => typeof word === "string");
    return isWords ? redactArguments(value).map(textShown) : value.map(shown);
  }
  if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype)
    return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, field]) => {
      const isSecret = SECRET_KEY.test(key) && typeof field === "string";
      return [key, isSecret ? REDACTED : shown(field)];
    }),
  );
}

function textShown(text: string): string {
  if (/<[^<>]+>/.test(text)) return redactXml(text);
  const [redacted = ""] = redactArguments([text]);
  return redacted;
}
