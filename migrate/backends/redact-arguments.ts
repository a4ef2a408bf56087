const REDACTED = "(redacted)";

/** Options whose value is a secret itself; `password-secret=` and the like name an object, and stay. */
const SECRET_OPTION =
  /(^|[,{"])((?:[\w.-]*\.)?(?:data|password|passwd|passphrase|secret-data|key|iv|token)"?\s*[=:]\s*"?)((?:,,|[^,"}])*)/gi;
const URL_CREDENTIALS = /([a-z][a-z0-9+.-]*:\/\/[^/:@\s]*):[^/@\s]*@/gi;

/**
 * A command line without its secrets: values of data=, password= and the like, and passwords inside URLs. In option
 * lists a comma that is doubled belongs to the value.
 *
 * @example redactArguments(["-object", "secret,id=s,data=hush"]) // ["-object", "secret,id=s,data=(redacted)"]
 */
export function redactArguments(args: readonly string[]): string[] {
  return args.map((argument) =>
    argument
      .replace(URL_CREDENTIALS, `$1:${REDACTED}@`)
      .replace(SECRET_OPTION, (_, before: string, option: string) => `${before}${option}${REDACTED}`),
  );
}
