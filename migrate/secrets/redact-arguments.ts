/** What stands in the place of a secret. */
export const REDACTED = "(redacted)";

/** Options whose value is a secret itself; `password-secret=` and the like name an object, and stay. */
const SECRET_OPTION =
  /(^|[,{"])((?:[\w.-]*\.)?(?:data|password|passwd|passphrase|secret-data|key|iv|token)"?\s*[=:]\s*"?)((?:,,|[^,"}])*)/gi;
/** With bounds: a file may have a text of a megabyte. */
const URL_CREDENTIALS = /([a-z][a-z0-9+.-]{0,30}:\/\/[^/:@\s]{0,255}):[^/@\s]{0,1024}@/gi;

/** An option whose secret is the next word. */
const SECRET_WORD = /^--?(?:[\w-]*-)?(?:password|passwd|passphrase|token)$/i;

/**
 * A command line without its secrets: values of data=, password= and the like, words behind --password and the like, and passwords
 * inside URLs. In option lists a comma that is doubled belongs to the value.
 *
 * @example redactArguments(["-object", "secret,id=s,data=hush"]) // ["-object", "secret,id=s,data=(redacted)"]
 */
export function redactArguments(args: readonly string[]): string[] {
  return args.map((argument, index) =>
    SECRET_WORD.test(args[index - 1] ?? "")
      ? REDACTED
      : argument
          .replace(URL_CREDENTIALS, `$1:${REDACTED}@`)
          .replace(SECRET_OPTION, (_, before: string, option: string) => `${before}${option}${REDACTED}`),
  );
}
