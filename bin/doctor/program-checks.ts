import { existsSync } from "node:fs";
import { compressionBackend } from "../../migrate/snapshot/mod.ts";
import type { Check, Look } from "./finding.ts";

/** The versions that vhu's end-to-end tests meet. */
const TESTED_QEMU = "10.0.2";
const TESTED_VIRTIOFSD = "1.13.2";
const VERSION_TIMEOUT_MS = 5_000;

const qemuName = `qemu-system-${process.arch === "arm64" ? "aarch64" : "x86_64"}`;

/** Programs and addons that vhu works with but does not need. */
export const programChecks: readonly Check[] = [
  {
    name: "zstd",
    isEssential: false,
    remedy:
      "install python3, make, g++ and Node's headers, then: npm install zstd-napi --nodedir=/usr (or where they are)",
    look: () => {
      if (compressionBackend() === "zstd-napi") return { state: "ok", detail: "the zstd-napi addon" };
      return { state: "note", detail: "Bun's own, a few per cent slower: the zstd-napi addon does not load" };
    },
  },
  {
    name: "QEMU",
    isEssential: false,
    remedy: `install ${qemuName} ${TESTED_QEMU} or newer (Debian: qemu-system-x86 or qemu-system-arm): for qemu VMs only`,
    look: () => programLook(qemuName, [], TESTED_QEMU),
  },
  {
    name: "virtiofsd",
    isEssential: false,
    remedy: `install virtiofsd ${TESTED_VIRTIOFSD} or newer (Debian: virtiofsd): for shared folders only`,
    look: () =>
      programLook("virtiofsd", ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"], TESTED_VIRTIOFSD),
  },
];

function programLook(name: string, places: readonly string[], tested: string): Look {
  const path = Bun.which(name) ?? places.find((place) => existsSync(place));
  if (path === undefined) return { state: "note", detail: `${name} is not installed` };
  const { stdout } = Bun.spawnSync([path, "--version"], { stderr: "ignore", timeout: VERSION_TIMEOUT_MS });
  const version = /\d+\.\d+(?:\.\d+)?/.exec(stdout.toString())?.[0];
  if (version === undefined) return { state: "note", detail: `${path} does not tell its version` };
  const isOlder = Bun.semver.order(withPatch(version), tested) < 0;
  const detail = `${version}, ${path}`;
  return isOlder
    ? { state: "note", detail: `${detail}; ${tested} is what vhu is tested with` }
    : { state: "ok", detail };
}

function withPatch(version: string): string {
  return version.split(".").length === 2 ? `${version}.0` : version;
}
