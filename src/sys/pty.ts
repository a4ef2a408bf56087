import { dlopen, type FFIFunction } from "bun:ffi";
import { O } from "./constants.ts";
import { check, syscallError } from "./errno.ts";
import { disposeAll, Fd } from "./fd.ts";
import { openFile } from "./file.ts";
import { libc as common } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

const signatures = {
  cfmakeraw: { args: ["u64_fast"], returns: "void" },
  grantpt: { args: ["i32"], returns: "i32" },
  posix_openpt: { args: ["i32"], returns: "i32" },
  ptsname_r: { args: ["i32", "u64_fast", "u64_fast"], returns: "i32" },
  tcgetattr: { args: ["i32", "u64_fast"], returns: "i32" },
  tcsetattr: { args: ["i32", "i32", "u64_fast"], returns: "i32" },
  unlockpt: { args: ["i32"], returns: "i32" },
} as const;

type Calls = { readonly [Name in keyof typeof signatures]: (...args: number[]) => number };

const libc = dlopen("libc.so.6", signatures as unknown as Record<string, FFIFunction>)
  .symbols as unknown as Calls;

/** The same number on x86_64 and aarch64 (include/uapi/asm-generic/fcntl.h). */
const O_NOCTTY = 0o400;
const TCSANOW = 0;
/** glibc's struct termios has 60 bytes; some room is left. */
const TERMIOS_BYTES = 128;
const PATH_BYTES = 128;

/** A pseudo-terminal: what is written to one side is read from the other, 8 bits, unchanged. */
export interface Pty extends Disposable {
  /** The side of the program that makes the terminal. */
  readonly master: Fd;
  /** The terminal itself. While somebody has it open, the master sees no hang-up. */
  readonly terminal: Fd;
  /** The terminal's path, e.g. "/dev/pts/3", for others to open. */
  readonly path: string;
}

/** A new pty in raw mode, both sides non-blocking, close-on-exec, and nobody's controlling terminal. @throws SyscallError */
export function openPty(): Pty {
  using stack = new DisposableStack();
  const flags = O.RDWR | O_NOCTTY | O.NONBLOCK | O.CLOEXEC;
  const master = stack.use(new Fd(check(libc.posix_openpt(flags), "posix_openpt", "a pty"), "pty master"));
  check(libc.grantpt(master.number), "grantpt", master.label);
  check(libc.unlockpt(master.number), "unlockpt", master.label);
  const name = new NativeBuffer(PATH_BYTES);
  if (libc.ptsname_r(master.number, name.address, PATH_BYTES) !== 0)
    throw syscallError("ptsname_r", master.label);
  const path = new TextDecoder().decode(name.bytes.subarray(0, name.bytes.indexOf(0)));
  const terminal = stack.use(openFile(path, flags));
  makeRaw(terminal);
  stack.move();
  return { master, terminal, path, [Symbol.dispose]: () => disposeAll([terminal, master]) };
}

/** The same number on x86_64 and aarch64 (include/uapi/asm-generic/ioctls.h). */
const TIOCGWINSZ = 0x5413;

/** Size of the terminal behind an fd, in characters; undefined where it is no terminal, or does not know. */
export function terminalSize(fd: number): { readonly columns: number; readonly rows: number } | undefined {
  // struct winsize: u16 rows, columns, and two sizes in pixels.
  const size = new NativeBuffer(8);
  if (common.ioctl(fd, TIOCGWINSZ, size.address) < 0) return undefined;
  const [rows, columns] = [size.view.getUint16(0, true), size.view.getUint16(2, true)];
  return rows === 0 || columns === 0 ? undefined : { columns, rows };
}

/** No echo, no line editing, no signals, no translation of line ends. */
function makeRaw(terminal: Fd): void {
  const termios = new NativeBuffer(TERMIOS_BYTES);
  check(libc.tcgetattr(terminal.number, termios.address), "tcgetattr", terminal.label);
  libc.cfmakeraw(termios.address);
  check(libc.tcsetattr(terminal.number, TCSANOW, termios.address), "tcsetattr", terminal.label);
}
