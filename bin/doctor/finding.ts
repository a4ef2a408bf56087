/** What a check of `vhu doctor` found. */
export interface Finding {
  readonly name: string;
  /** "note": vhu works, but something is slower or not possible. */
  readonly state: "ok" | "missing" | "note";
  /** Nothing works without it. */
  readonly isEssential: boolean;
  readonly detail: string;
  /** How to get it, where it is not "ok". */
  readonly remedy?: string;
}

/** One thing to look at. `look` may throw: that is "missing", or a "note" where it is not essential. */
export interface Check {
  readonly name: string;
  readonly isEssential: boolean;
  /** Used when `look` throws or says nothing better. */
  readonly remedy: string;
  look(): Look | Promise<Look>;
}

export interface Look {
  readonly state: Finding["state"];
  readonly detail: string;
  readonly remedy?: string;
}

/** Never throws: a check that fails is a finding. */
export async function runCheck({ name, isEssential, remedy, look }: Check): Promise<Finding> {
  let seen: Look;
  try {
    seen = await look();
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    seen = { state: isEssential ? "missing" : "note", detail };
  }
  const finding = { name, isEssential, state: seen.state, detail: seen.detail };
  return seen.state === "ok" ? finding : { ...finding, remedy: seen.remedy ?? remedy };
}
