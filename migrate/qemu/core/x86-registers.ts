import type { StateTree } from "../../decode/mod.ts";

export interface X86Segment {
  readonly selector: bigint;
  readonly base: bigint;
  readonly limit: bigint;
  readonly flags: bigint;
}

/** The registers of one processor that a core file has a place for. */
export interface X86Registers {
  /** QEMU's number of it, from 0. */
  readonly index: number;
  /** rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15. */
  readonly general: readonly bigint[];
  readonly rip: bigint;
  readonly rflags: bigint;
  /** es, cs, ss, ds, fs, gs. */
  readonly segments: readonly X86Segment[];
  readonly ldt: X86Segment;
  readonly tr: X86Segment;
  readonly gdt: X86Segment;
  readonly idt: X86Segment;
  /** cr0 to cr4; there is no cr1. */
  readonly control: readonly bigint[];
  readonly kernelGsBase: bigint;
}

const SECTION = /^cpu(?:#(\d+))?$/;
const GENERAL = 16;
const SEGMENTS = 6;

/**
 * The registers of each processor, by the trees of a QEMU stream's sections. Undefined where there are none, or where one lacks a
 * register: of another architecture, or not described by the stream.
 */
export function x86Registers(trees: ReadonlyMap<string, StateTree>): X86Registers[] | undefined {
  const sections = [...trees].flatMap(([name, tree]) => {
    const match = SECTION.exec(name);
    return match === null ? [] : [{ index: Number(match[1] ?? 0), tree }];
  });
  const registers: X86Registers[] = [];
  for (const { index, tree } of sections.sort((a, b) => a.index - b.index)) {
    const one = registersOf(index, tree);
    if (one === undefined) return undefined;
    registers.push(one);
  }
  return registers.length === 0 ? undefined : registers;
}

/** Thrown and caught here only. */
class Missing extends Error {}

function registersOf(index: number, cpu: StateTree): X86Registers | undefined {
  const field = (name: string) => childOf(cpu, `env.${name}`);
  const number = (name: string) => numberOf(field(name));
  try {
    return {
      index,
      general: itemsOf(field("regs"), GENERAL).map(numberOf),
      rip: number("eip"),
      rflags: number("eflags"),
      segments: itemsOf(field("segs"), SEGMENTS).map(segmentOf),
      ldt: segmentOf(field("ldt")),
      tr: segmentOf(field("tr")),
      gdt: segmentOf(field("gdt")),
      idt: segmentOf(field("idt")),
      control: [number("cr[0]"), 0n, number("cr[2]"), number("cr[3]"), number("cr[4]")],
      kernelGsBase: number("kernelgsbase"),
    };
  } catch (error) {
    if (error instanceof Missing) return undefined;
    throw error;
  }
}

function childOf({ children = [] }: StateTree, name: string): StateTree {
  const child = children.find((candidate) => candidate.name === name);
  if (child === undefined) throw new Missing(name);
  return child;
}

function itemsOf({ children = [] }: StateTree, count: number): readonly StateTree[] {
  if (children.length !== count) throw new Missing();
  return children;
}

function numberOf({ value }: StateTree): bigint {
  if (typeof value !== "number" && typeof value !== "bigint") throw new Missing();
  return BigInt(value);
}

function segmentOf(tree: StateTree): X86Segment {
  const part = (name: string) => numberOf(childOf(tree, name));
  return { selector: part("selector"), base: part("base"), limit: part("limit"), flags: part("flags") };
}
