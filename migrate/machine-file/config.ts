import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { z } from "zod";
import { FormatError, UsageError } from "../../src/errors.ts";
import { deviceConfig, name, path, withAbsolutePaths } from "./device-config.ts";
import { needsOf, type WorkloadConfig, workloadConfig, workloadProblem } from "./workload-config.ts";

const machine = z
  .strictObject({
    name,
    /** Where the machine is controlled from. */
    socket: path,
    memory: z.strictObject({
      "size-mib": z
        .number()
        .int()
        .min(1)
        .max(1 << 20),
    }),
    device: z.array(deviceConfig).max(64).default([]),
    workload: z.array(workloadConfig).max(64).default([]),
  })
  .superRefine((value, context) => {
    const names = value.device.map((d) => d.name);
    if (new Set(names).size !== names.length)
      context.addIssue({ code: "custom", message: "device names repeat", path: ["device"] });
    const used = new Set<string>();
    for (const [index, load] of value.workload.entries()) {
      const problem = workloadProblem(load, value.device) ?? usedTwice(load, used);
      if (problem === undefined) continue;
      const { field, message } = problem;
      context.addIssue({ code: "custom", message, path: ["workload", index, field] });
    }
  });

/** A device's queues have one driver. */
function usedTwice(load: WorkloadConfig, used: Set<string>) {
  for (const { field, name } of needsOf(load)) {
    if (used.has(name)) return { field, message: `two workloads use "${name}"` };
    used.add(name);
  }
  return undefined;
}

export type MachineConfig = z.infer<typeof machine>;

/** Reads a machine file (TOML). Relative paths are relative to it. @throws FormatError, UsageError */
export function readMachineFile(file: string): MachineConfig {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new UsageError(`cannot read the machine file ${file}: ${(cause as Error).message}`, { cause });
  }
  let parsed: unknown;
  try {
    parsed = Bun.TOML.parse(text);
  } catch (cause) {
    throw new FormatError(`${file} is not TOML: ${(cause as Error).message}`, "machine file", -1, { cause });
  }
  return absolutePaths(parseMachineConfig(parsed, `machine file ${file}`), dirname(resolve(file)));
}

/** Checks a machine's description from wherever it came. @throws FormatError with the field's path */
export function parseMachineConfig(value: unknown, section: string): MachineConfig {
  const result = machine.safeParse(value);
  if (result.success) return result.data;
  const issues = result.error.issues.map(
    (issue) => `${issue.path.join(".") || "the file"}: ${issue.message}`,
  );
  throw new FormatError(issues.join("; "), section);
}

function absolutePaths(config: MachineConfig, folder: string): MachineConfig {
  const absolute = (path: string) => resolve(folder, path);
  return {
    ...config,
    socket: absolute(config.socket),
    device: config.device.map((device) => withAbsolutePaths(device, absolute)),
  };
}
