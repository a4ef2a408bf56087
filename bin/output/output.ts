import { isatty } from "node:tty";
import type { Logger } from "../../src/logger.ts";
import { toJson } from "./json.ts";
import { Progress, type ProgressState } from "./progress.ts";
import { createStderrLogger } from "./stderr-logger.ts";
import { writeFully } from "./write-fully.ts";

const STDOUT = 1;
const STDERR = 2;
const CLEAR_LINE = "\r\u001b[K";

export interface OutputOptions {
  readonly json: boolean;
  readonly debug: boolean;
  readonly logFormat: "text" | "json";
}

/**
 * What a command says. Results go to stdout; progress, logs and errors to stderr. With `--json`, stdout has one document
 * (`document`) or JSON lines of the types "status" and "summary".
 */
export class Output {
  readonly json: boolean;
  readonly debug: boolean;
  readonly log: Logger;
  #resultFd = STDOUT;
  #progressLine = "";

  constructor({ json, debug, logFormat }: OutputOptions) {
    this.json = json;
    this.debug = debug;
    const level = debug ? "debug" : "info";
    this.log = createStderrLogger({ format: logFormat, level, write: (text) => this.#writeAside(text) });
  }

  /** From now on stdout belongs to the data (a snapshot written to "-"); results go to stderr. */
  reserveStdout(): void {
    this.#resultFd = STDERR;
  }

  /** A line of the result for people. */
  line(text = ""): void {
    this.#write(this.#resultFd, `${text}\n`);
  }

  lines(texts: readonly string[]): void {
    if (texts.length > 0) this.line(texts.join("\n"));
  }

  /** The result as one JSON document. */
  document(value: unknown): void {
    this.line(toJson(value, 2));
  }

  /** What is going on: `{"type":"status","message",…}` with --json, else a line on stderr. */
  status(message: string, fields: Readonly<Record<string, unknown>> = {}): void {
    if (this.json) this.line(toJson({ type: "status", message, ...fields }));
    else this.#writeAside(`${message}\n`);
  }

  /** The end of a command that did something: `{"type":"summary",…}` with --json, else the lines of `text`. */
  summary(fields: Readonly<Record<string, unknown>>, text: () => readonly string[]): void {
    if (this.json) this.line(toJson({ type: "summary", ...fields }));
    else this.lines(text());
  }

  /** A bar on a terminal, JSON status lines with --json, else nothing. Hold it with `using`. */
  progress(label: string): Progress {
    const bar = !this.json && isatty(STDERR);
    return new Progress(label, (text, state) => {
      if (bar) this.#drawBar(text);
      else if (this.json && state !== undefined) this.#writeStatus(label, state);
    });
  }

  #writeStatus(message: string, { doneBytes, totalBytes, details }: ProgressState): void {
    this.status(message, { doneBytes, totalBytes, ...details });
  }

  #drawBar(text: string): void {
    this.#progressLine = text;
    writeFully(STDERR, CLEAR_LINE + text);
  }

  #writeAside(text: string): void {
    this.#write(STDERR, text);
  }

  /** The bar is taken away for a line and drawn again below it. */
  #write(fd: number, text: string): void {
    if (this.#progressLine !== "") writeFully(STDERR, CLEAR_LINE);
    writeFully(fd, text);
    if (this.#progressLine !== "") writeFully(STDERR, this.#progressLine);
  }
}
