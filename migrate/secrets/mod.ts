/** What must not be shown: secrets in command lines, descriptions and XML. */
export { redactArguments } from "./redact-arguments.ts";
export { withoutSecrets } from "./without-secrets.ts";
