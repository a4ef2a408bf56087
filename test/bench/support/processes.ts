import { join } from "node:path";

/** The program of the project's own that is measured, by its name in test/bench/programs. */
export function program(name: string): string[] {
  return [process.execPath, join(import.meta.dir, "../programs", `${name}.ts`)];
}

export interface Command {
  readonly words: readonly string[];
  /** The only processor that it may run on; undefined: any. */
  readonly cpu?: number | undefined;
}

/** Runs a command to its end and returns what it printed. */
export async function output(command: Command): Promise<string> {
  const child = start(command);
  const text = await new Response(child.stdout).text();
  await succeeded(child, command);
  return text;
}

/** As `output`, with another process beside it, which must print "ready" first and end by itself afterwards. */
export async function outputBeside(server: Command, client: Command): Promise<string> {
  const child = start(server);
  try {
    await untilReady(child.stdout, server);
    const text = await output(client);
    await succeeded(child, server);
    return text;
  } finally {
    if (child.exitCode === null) child.kill("SIGKILL");
    await child.exited;
  }
}

/** Milliseconds from the start of a command to its end, as its parent sees them. What it prints is dropped. */
export async function wallMs(command: Command): Promise<number> {
  const start = performance.now();
  const child = Bun.spawn({ cmd: pinned(command), stdio: ["ignore", "ignore", "inherit"] });
  const status = await child.exited;
  const end = performance.now();
  if (status !== 0) throw new Error(`${command.words.join(" ")} ended with status ${status}`);
  return end - start;
}

function start(command: Command) {
  return Bun.spawn({ cmd: pinned(command), stdio: ["ignore", "pipe", "inherit"] });
}

function pinned({ words, cpu }: Command): string[] {
  return cpu === undefined ? [...words] : ["taskset", "-c", `${cpu}`, ...words];
}

async function untilReady(stdout: ReadableStream<Uint8Array>, command: Command): Promise<void> {
  const reader = stdout.getReader();
  const decoder = new TextDecoder();
  let text = "";
  while (!text.includes("ready")) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`${command.words.join(" ")} ended before it was ready: ${text}`);
    text += decoder.decode(value, { stream: true });
  }
  reader.releaseLock();
}

async function succeeded(child: { readonly exited: Promise<number> }, command: Command): Promise<void> {
  const status = await child.exited;
  if (status !== 0) throw new Error(`${command.words.join(" ")} ended with status ${status}`);
}
