import { UsageError } from "../src/errors.ts";

/** What a SOURCE or TARGET on the command line names. */
export type Address =
  /** A running QEMU, by its QMP socket. */
  | { readonly kind: "qmp"; readonly path: string }
  /** A native machine, by its control socket. */
  | { readonly kind: "machine"; readonly path: string }
  /** A back-end of vhu's own, by its control socket. */
  | { readonly kind: "device"; readonly path: string }
  /** A vhost-user back-end, by its socket. */
  | { readonly kind: "unix"; readonly path: string }
  /** Another vhu. */
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "file"; readonly path: string }
  /** stdin or stdout. */
  | { readonly kind: "stdio" };

export type AddressKind = Address["kind"];

const FORMS: Readonly<Record<AddressKind, string>> = {
  qmp: "qmp:PATH",
  machine: "machine:PATH",
  device: "device:PATH",
  unix: "unix:PATH",
  tcp: "tcp:HOST:PORT",
  file: "a file",
  stdio: "-",
};

/** sockaddr_un.sun_path is 108 bytes with its terminating zero. */
const MAX_SOCKET_PATH_BYTES = 107;

/**
 * Reads an address. A file whose name looks like one is written "./name".
 *
 * @throws UsageError
 * @example parseAddress("tcp:[::1]:7000") // { kind: "tcp", host: "::1", port: 7000 }
 */
export function parseAddress(text: string): Address {
  if (text === "-") return { kind: "stdio" };
  if (text === "") throw new UsageError("an address is empty: give a file, - or one such as machine:PATH");
  const scheme = /^([a-z][a-z0-9+]*):(.*)$/s.exec(text);
  if (scheme === null) return { kind: "file", path: text };
  const [, kind, rest] = scheme as unknown as [string, string, string];
  if (kind === "tcp") return parseTcp(text, rest);
  if (kind === "qmp" || kind === "machine" || kind === "device" || kind === "unix") {
    return { kind, path: socketPath(text, rest) };
  }
  throw new UsageError(
    `"${text}" is not an address that vhu knows (${Object.values(FORMS).join(", ")}); for a file of that name write "./${text}"`,
  );
}

/**
 * Reads an address that must be of one of these kinds.
 *
 * @throws UsageError that names the kinds it can be
 * @example parseAddressOf("machine:/run/web", "source", ["machine", "unix"])
 */
export function parseAddressOf<Kind extends AddressKind>(
  text: string,
  what: string,
  kinds: readonly Kind[],
): Extract<Address, { kind: Kind }> {
  const address = parseAddress(text);
  if ((kinds as readonly AddressKind[]).includes(address.kind)) {
    return address as Extract<Address, { kind: Kind }>;
  }
  const wanted = kinds.map((kind) => FORMS[kind]).join(" or ");
  throw new UsageError(`the ${what} "${text}" is of the wrong kind here: give ${wanted}`);
}

function socketPath(text: string, path: string): string {
  if (path === "") throw new UsageError(`the address "${text}" has no path`);
  const sizeBytes = Buffer.byteLength(path);
  if (sizeBytes > MAX_SOCKET_PATH_BYTES) {
    throw new UsageError(
      `the socket path in "${text}" has ${sizeBytes} bytes, at most ${MAX_SOCKET_PATH_BYTES} fit: use a shorter one, or a relative one`,
    );
  }
  return path;
}

function parseTcp(text: string, rest: string): Address {
  const parts = /^(?:\[([0-9a-fA-F:.%a-z]+)\]|([^:[\]]+)):([0-9]{1,5})$/.exec(rest);
  const port = Number(parts?.[3]);
  if (parts === null || port === 0 || port > 0xffff) {
    throw new UsageError(`"${text}" is not of the form tcp:HOST:PORT (an IPv6 address goes in brackets)`);
  }
  return { kind: "tcp", host: (parts[1] ?? parts[2]) as string, port };
}
