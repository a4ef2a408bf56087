import type { QemuMachine } from "./qemu-machine.ts";
import { qmpCpuExpansion, qmpCpus, qmpNames } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { QmpError } from "./qmp-error.ts";

/** Hyper-V's are the machine's and no processor's; what begins with x- is how QEMU behaves. */
const NO_FEATURE = /^(?:hv|x)[-_]/;

/**
 * What the guest's processor has, by QEMU's names: its model with what its command line switches on and off, without what this
 * host or accelerator could not give. Undefined where this QEMU cannot tell.
 *
 * @param cpu The value of -cpu, e.g. "qemu64,+rdrand".
 */
export async function cpuFeatures(
  client: QmpClient,
  cpu: string,
  path: string,
): Promise<string[] | undefined> {
  const property = "unavailable-features";
  try {
    const given = { type: "full", model: cpuModel(cpu) };
    const { model } = await client.request("query-cpu-model-expansion", {
      answer: qmpCpuExpansion,
      arguments: given,
    });
    const missing = await client.request("qom-get", { answer: qmpNames, arguments: { path, property } });
    return Object.entries(model.props ?? {})
      .filter(([name, value]) => value === true && !missing.includes(name) && !NO_FEATURE.test(name))
      .map(([name]) => name);
  } catch (error) {
    // Another processor's QEMU has no such command, or no such property.
    if (error instanceof QmpError) return undefined;
    throw error;
  }
}

/** What the processors of a guest that is there have; undefined where QEMU does not say. */
export async function guestCpuFeatures(
  client: QmpClient,
  { commandLine, cpuType = "" }: Pick<QemuMachine, "commandLine" | "cpuType">,
): Promise<string[] | undefined> {
  const [cpu] = await client.request("query-cpus-fast", { answer: qmpCpus });
  if (cpu === undefined) return undefined;
  const given = lastOption(commandLine ?? [], "-cpu") ?? cpuType.replace(/(?:-\w+)?-cpu$/, "");
  return cpuFeatures(client, given, cpu["qom-path"]);
}

/** The value of an option, the last one where it comes more than once. */
export function lastOption(args: readonly string[], option: string): string | undefined {
  const at = args.findLastIndex((word) => word.replace(/^--/, "-") === option);
  return at === -1 ? undefined : args[at + 1];
}

/** "qemu64,+rdrand,pcid=off": the model, and what is switched; what has a number is no feature. */
function cpuModel(cpu: string): { name: string; props: Record<string, boolean> } {
  const [name = "", ...words] = cpu.split(",");
  const props: Record<string, boolean> = {};
  for (const word of words) {
    const [, sign, feature, value] = /^([+-]?)([\w.-]+)(?:=(\w+))?$/.exec(word) ?? [];
    if (feature === undefined || (value !== undefined && !/^(?:on|off|true|false|yes|no)$/.test(value)))
      continue;
    props[feature] = sign === "-" ? false : value === undefined || /^(?:on|true|yes)$/.test(value);
  }
  return { name, props };
}
