import { SnapshotReader } from "./snapshot-reader.ts";
import { attempt, type VerifyOptions, type VerifyProblem, type VerifyResult } from "./verify.ts";

/**
 * As `SnapshotReader.verify`, for a file that may not even open.
 *
 * @throws SyscallError if it cannot be read at all, CompatibilityError if this version does not understand it.
 * @example
 * const result = verifySnapshot("web.vhu", { deep: true });
 * if (!result.ok) for (const { section, message } of result.problems) report(section, message);
 */
export function verifySnapshot(path: string, options: VerifyOptions = {}): VerifyResult {
  const problems: VerifyProblem[] = [];
  const result = attempt(problems, () => {
    using reader = SnapshotReader.open(path);
    return reader.verify(options);
  });
  return result ?? { ok: false, problems };
}
