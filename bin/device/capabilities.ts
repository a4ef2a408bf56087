/** What a back-end program says about itself, in the terms of QEMU's docs/interop/vhost-user.json. */
export interface BackendCapabilities {
  readonly type: string;
  readonly features: readonly string[];
}

/** By the type's name in `vhu device run TYPE`. "blk-file": --blk-file is understood; "read-only": --read-only is. */
export const capabilities = {
  blk: { type: "block", features: ["blk-file", "read-only"] },
  console: { type: "console", features: [] },
  net: { type: "net", features: [] },
  rng: { type: "rng", features: [] },
} as const satisfies Readonly<Record<string, BackendCapabilities>>;
