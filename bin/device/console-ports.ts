import { InvalidArgumentError } from "commander";
import { UsageError } from "../../src/errors.ts";

/** The host's end of a console port, as the command line names it. */
export type EndSpec =
  | { readonly kind: "pty"; readonly link?: string }
  | { readonly kind: "socket" | "file"; readonly path: string }
  | { readonly kind: "stdio" };

/** `--port name=NAME,pty=LINK,console=on`. */
export interface PortSpec {
  readonly end: EndSpec;
  readonly name?: string;
  readonly isConsole?: boolean;
}

/** The options that name ends: several ports, or the one end of a console without MULTIPORT. */
export interface EndOptions {
  readonly port?: readonly PortSpec[];
  readonly socketEnd?: string;
  readonly file?: string;
  readonly stdio?: boolean;
  readonly pty?: boolean;
  readonly ptyLink?: string;
}

/** An argument of --port, added to those before it. A comma within a value is written twice. @throws InvalidArgumentError */
export function parsePort(text: string, previous: readonly PortSpec[] = []): readonly PortSpec[] {
  const words = text
    .replaceAll(",,", "\0")
    .split(",")
    .map((word) => word.replaceAll("\0", ","));
  let port: Partial<PortSpec> = {};
  for (const word of words) {
    const at = word.indexOf("=");
    const [key, value] = at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
    const part = portPart(key, value);
    if (Object.keys(part).some((name) => name in port)) {
      throw new InvalidArgumentError(`A port has one end and one name; "${key}" is one too many.`);
    }
    port = { ...port, ...part };
  }
  const { end } = port;
  if (end === undefined)
    throw new InvalidArgumentError("Give the port an end: pty, socket=PATH, file=PATH or stdio.");
  return [...previous, { ...port, end }];
}

function portPart(key: string, value: string | undefined): Partial<PortSpec> {
  const hasValue = value !== undefined && value !== "";
  if (key === "name" && hasValue) return { name: value };
  if (key === "pty" && value !== "") return { end: { kind: "pty", ...(hasValue ? { link: value } : {}) } };
  if ((key === "socket" || key === "file") && hasValue) return { end: { kind: key, path: value } };
  if (key === "stdio" && value === undefined) return { end: { kind: "stdio" } };
  if (key === "console" && (value === undefined || value === "on" || value === "off")) {
    return { isConsole: value !== "off" };
  }
  throw new InvalidArgumentError(
    "Expected name=NAME, pty, pty=LINK, socket=PATH, file=PATH, stdio, console=on or console=off, with commas between.",
  );
}

/** The ends in the order of their ports. @throws UsageError when there is none, or one too many */
export function endsOf(options: EndOptions): readonly EndSpec[] {
  const { port = [], socketEnd, file, stdio, pty, ptyLink } = options;
  const single: EndSpec[] = [];
  if (socketEnd !== undefined) single.push({ kind: "socket", path: socketEnd });
  if (file !== undefined) single.push({ kind: "file", path: file });
  if (stdio) single.push({ kind: "stdio" });
  if (pty || ptyLink !== undefined) {
    single.push({ kind: "pty", ...(ptyLink === undefined ? {} : { link: ptyLink }) });
  }
  const ends = port.map(({ end }) => end);
  const isOne = single.length + Math.min(ends.length, 1) === 1;
  if (!isOne || [...single, ...ends].filter(({ kind }) => kind === "stdio").length > 1) {
    throw new UsageError(
      "give the console one end (--socket-end PATH, --file PATH, --pty or --stdio) or several by --port, one of them stdio at most",
    );
  }
  return ends.length > 0 ? ends : single;
}
