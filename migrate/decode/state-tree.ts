/**
 * A state taken apart, for people: a device's, a machine's, or a section of QEMU's stream. What it holds may come from
 * anybody: it is never a path, a command or HTML.
 */
export interface StateTree {
  readonly name: string;
  readonly value?: string | number | bigint | boolean | undefined;
  /** Where there is no better form. */
  readonly bytes?: Uint8Array | undefined;
  /** What a reader should know beside it: a unit, the name of a number, or why the rest is not decoded. */
  readonly note?: string | undefined;
  readonly children?: readonly StateTree[] | undefined;
}
