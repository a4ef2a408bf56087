import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";

/** A module of the guest kernel that has to be loaded with insmod. */
export interface KernelModule {
  /** As `lsmod` shows it, e.g. "virtio_blk". */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/**
 * Resolves modules to a load order: what a module depends on comes before it. Modules that are built into the
 * kernel are left out.
 *
 * Dependencies are read from the modules themselves (".modinfo", `depends=`): modules.dep is made by depmod when
 * the kernel's package is installed, and here it is only unpacked.
 *
 * @param folder lib/modules/VERSION as unpacked: kernel/ and modules.builtin
 * @throws Error when the kernel has no such module
 */
export function resolveModules(folder: string, names: readonly string[]): KernelModule[] {
  const builtin = new Set(
    readFileSync(join(folder, "modules.builtin"), "utf8").split("\n").filter(Boolean).map(moduleName),
  );
  const paths = new Map<string, string>();
  for (const path of readdirSync(join(folder, "kernel"), { recursive: true, encoding: "utf8" })) {
    if (path.endsWith(".ko")) paths.set(moduleName(path), join(folder, "kernel", path));
  }
  const ordered = new Map<string, KernelModule>();
  const visit = (wanted: string) => {
    const name = moduleName(wanted);
    if (ordered.has(name) || builtin.has(name)) return;
    const path = paths.get(name);
    if (path === undefined) throw new Error(`the guest kernel has no module ${name} (looked in ${folder})`);
    const bytes = readFileSync(path);
    for (const dependency of dependencies(bytes)) visit(dependency);
    ordered.set(name, { name, bytes });
  };
  for (const name of names) visit(name);
  return [...ordered.values()];
}

/** File names may have "-" where the module's name has "_". */
function moduleName(path: string): string {
  return basename(path, ".ko").replaceAll("-", "_");
}

function dependencies(module: Buffer): string[] {
  const key = Buffer.from("\0depends=");
  const start = module.indexOf(key);
  if (start < 0) return [];
  const from = start + key.length;
  return module.toString("latin1", from, module.indexOf(0, from)).split(",").filter(Boolean);
}
