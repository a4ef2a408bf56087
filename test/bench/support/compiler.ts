import { join } from "node:path";

/** Compiles the yardsticks with whatever C compiler there is. */
export class Compiler {
  readonly #compiler = Bun.which("cc") ?? Bun.which("gcc");
  readonly #compiled = new Map<string, string>();

  constructor(
    readonly folder: string,
    readonly say: (line: string) => void,
  ) {}

  /** The path of the program made of test/bench/c/NAME.c; undefined where there is no compiler. */
  compile(name: string): string | undefined {
    if (this.#compiler === null) {
      this.say(`${name}: left out, there is no C compiler (cc or gcc)`);
      return undefined;
    }
    const known = this.#compiled.get(name);
    if (known !== undefined) return known;
    const target = join(this.folder, name);
    const source = join(import.meta.dir, "../c", `${name}.c`);
    const { exitCode, stderr } = Bun.spawnSync([this.#compiler, "-O2", "-o", target, source]);
    if (exitCode !== 0) throw new Error(`${source} does not compile: ${stderr.toString()}`);
    this.#compiled.set(name, target);
    return target;
  }
}
