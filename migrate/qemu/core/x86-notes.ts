import { coreNote } from "../../snapshot/mod.ts";
import type { X86Registers, X86Segment } from "./x86-registers.ts";

const NT_PRSTATUS = 1;
/** struct elf_prstatus of x86_64 (include/linux/elfcore.h): where the pid and the registers stand in it. */
const PRSTATUS_BYTES = 336;
const PID_AT = 32;
const REGISTERS_AT = 112;
/** "QEMU" notes (target/i386/arch_dump.c, QEMUCPUState): version and size, then what `qemuContent` writes. */
const QEMU_NOTE_VERSION = 1;
const QEMU_NOTE_BYTES = 440;

const [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const [ES, CS, SS, DS, FS, GS] = [0, 1, 2, 3, 4, 5];

/**
 * The notes that QEMU's dump-guest-memory writes: for each processor one that gdb reads as a thread, then for each one of
 * QEMU's own with its segments and control registers, which crash reads.
 */
export function x86Notes(processors: readonly X86Registers[]): Uint8Array {
  return Buffer.concat([
    ...processors.map((one) => coreNote("CORE", NT_PRSTATUS, threadContent(one))),
    ...processors.map((one) => coreNote("QEMU", 0, qemuContent(one))),
  ]);
}

/** struct user_regs_struct (arch/x86/include/asm/user_64.h). */
function threadContent({ index, general, segments, rip, rflags }: X86Registers): Uint8Array {
  const content = new Uint8Array(PRSTATUS_BYTES);
  const view = new DataView(content.buffer);
  view.setUint32(PID_AT, index + 1, true);
  const register = (number: number) => general[number] ?? 0n;
  const segment = (number: number) => segments[number] as X86Segment;
  const words = [
    ...[15, 14, 13, 12].map(register),
    ...[RBP, RBX].map(register),
    ...[11, 10, 9, R8].map(register),
    ...[RAX, RCX, RDX, RSI, RDI].map(register),
    // The number of a system call, of which a processor knows nothing.
    0n,
    ...[rip, segment(CS).selector, rflags, register(RSP), segment(SS).selector],
    ...[segment(FS).base, segment(GS).base],
    ...[DS, ES, FS, GS].map((number) => segment(number).selector),
  ];
  for (const [at, word] of words.entries()) setU64(view, REGISTERS_AT + 8 * at, word);
  return content;
}

function qemuContent(processor: X86Registers): Uint8Array {
  const { general, segments, rip, rflags, ldt, tr, gdt, idt, control, kernelGsBase } = processor;
  const content = new Uint8Array(QEMU_NOTE_BYTES);
  const view = new DataView(content.buffer);
  view.setUint32(0, QEMU_NOTE_VERSION, true);
  view.setUint32(4, QEMU_NOTE_BYTES, true);
  let at = 8;
  const word = (value: bigint) => {
    setU64(view, at, value);
    at += 8;
  };
  const half = (value: bigint) => {
    view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
    at += 4;
  };
  const low = [RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP];
  for (const number of [...low, 8, 9, 10, 11, 12, 13, 14, 15]) word(general[number] ?? 0n);
  word(rip);
  word(rflags);
  const ordered = [CS, DS, ES, FS, GS, SS].map((number) => segments[number] as X86Segment);
  for (const { selector, limit, flags, base } of [...ordered, ldt, tr, gdt, idt]) {
    for (const value of [selector, limit, flags, 0n]) half(value);
    word(base);
  }
  for (const value of control) word(value);
  word(kernelGsBase);
  return content;
}

function setU64(view: DataView, at: number, value: bigint): void {
  view.setBigUint64(at, BigInt.asUintN(64, value), true);
}
