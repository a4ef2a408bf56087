import type { Command } from "commander";

/** A command as the help pages list it; its module is loaded only when it runs or its own help is asked for. */
export interface CatalogueEntry {
  /** "snapshot inspect", or "doctor" for a command without a noun. */
  readonly words: string;
  readonly summary: string;
  load(): Promise<(parent: Command) => void>;
}

/** What the nouns are, for `vhu --help`. */
export const nouns: Readonly<Record<string, string>> = {
  snapshot: "look into snapshot files",
};

/** Every command. To add one: an entry here, and bin/commands/<noun>-<verb>.ts. */
export const catalogue: readonly CatalogueEntry[] = [
  {
    words: "doctor",
    summary: "can this host run vhu? what is missing, and how to get it",
    load: async () => (await import("./commands/doctor.ts")).registerDoctor,
  },
  {
    words: "snapshot inspect",
    summary: "show what is in a snapshot",
    load: async () => (await import("./commands/snapshot-inspect.ts")).registerSnapshotInspect,
  },
  {
    words: "snapshot verify",
    summary: "check every byte of a snapshot against its checksums",
    load: async () => (await import("./commands/snapshot-verify.ts")).registerSnapshotVerify,
  },
];
