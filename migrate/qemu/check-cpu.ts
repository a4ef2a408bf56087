import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { VhuError } from "../../src/errors.ts";
import { Deadline, listeningPaths } from "../../src/sys/mod.ts";
import type { PreflightCheck } from "../driver.ts";
import { cpuFeatures, lastOption } from "./cpu-features.ts";
import type { QemuCommand } from "./qemu-command.ts";
import { qmpCpus } from "./qmp-answers.ts";
import { QmpClient } from "./qmp-client.ts";

const NAME = "CPU features";
const START_TIMEOUT_MS = 10_000;
const POLL_MS = 5;
const LAST_WORDS = 500;

/**
 * Whether a guest's processor can be had here: the QEMU that would be started is started with that processor and nothing else, asked,
 * and ended.
 *
 * @param wanted What the processor has where the guest runs, by QEMU's names.
 */
export async function checkCpu(
  { program, args }: Pick<QemuCommand, "program" | "args">,
  wanted: readonly string[],
): Promise<PreflightCheck> {
  const folder = mkdtempSync(join(tmpdir(), "vhu-cpu-"));
  const socket = join(folder, "qmp");
  const child = Bun.spawn([program, ...processorOf(args), "-qmp", `unix:${socket},server=on,wait=off`], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  try {
    const deadline = new Deadline(START_TIMEOUT_MS);
    while (!listeningPaths().has(socket)) {
      if (child.exitCode !== null || child.signalCode !== null || deadline.expired) {
        child.kill("SIGKILL");
        const words = (await child.stderr.text()).trim().slice(-LAST_WORDS);
        return failed(`this processor cannot be had here: ${words || `${program} does not start with it`}`);
      }
      await Bun.sleep(POLL_MS);
    }
    using client = await QmpClient.connect(socket);
    const here = await featuresHere(client, lastOption(args, "-cpu"));
    return here === undefined
      ? passed("this QEMU does not tell what its processors have")
      : compare(wanted, here);
  } catch (error) {
    if (!(error instanceof VhuError)) throw error;
    return failed(`the QEMU here was asked what its processor has, and failed: ${error.message}`);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
    rmSync(folder, { recursive: true, force: true });
  }
}

async function featuresHere(client: QmpClient, cpu: string | undefined): Promise<string[] | undefined> {
  const [first] = await client.request("query-cpus-fast", { answer: qmpCpus });
  return first === undefined || cpu === undefined ? undefined : cpuFeatures(client, cpu, first["qom-path"]);
}

function compare(wanted: readonly string[], here: readonly string[]): PreflightCheck {
  const missing = wanted.filter((name) => !here.includes(name));
  if (missing.length === 0) return passed(`all ${wanted.length} that the guest has seen are here`);
  return failed(
    `${missing.join(", ")} ${missing.length === 1 ? "is" : "are"} missing here, and the guest may use what it has seen: start it with a -cpu that both hosts have`,
  );
}

/** Of a command line, what the processor depends on: machine type, accelerator, model. */
function processorOf(args: readonly string[]): string[] {
  const [first = "q35", ...rest] = (lastOption(args, "-machine") ?? lastOption(args, "-M") ?? "q35").split(
    ",",
  );
  const accelerator = rest.filter((word) => word.startsWith("accel="));
  const words = ["-S", "-nodefaults", "-no-user-config", "-display", "none", "-m", "64"];
  words.push("-machine", [first, ...accelerator].join(","));
  for (const [at, word] of args.entries()) {
    if (word === "-accel" || word === "-cpu") words.push(word, args[at + 1] ?? "");
    if (word === "-enable-kvm") words.push(word);
  }
  return words;
}

function passed(detail: string): PreflightCheck {
  return { name: NAME, ok: true, detail };
}

function failed(detail: string): PreflightCheck {
  return { name: NAME, ok: false, detail };
}
