import { StateError } from "../errors.ts";
import type { MemoryRegion, RegionLayout } from "../memory/mod.ts";
import { createUserfaultfd, type Fd, registerMissingFaults } from "../sys/mod.ts";

/**
 * The back-end's part of postcopy (spec, "Post-copy migration"): the front-end gets a userfaultfd of this process and
 * fills the pages that are touched here; ADVISE, then LISTEN, then memory, then END.
 */
export class Postcopy implements Disposable {
  #userfaultfd: Fd | undefined;
  #listening = false;

  get isListening(): boolean {
    return this.#listening;
  }

  /** A userfaultfd of this process, for the front-end. @throws SyscallError where the kernel forbids it */
  advise(): Fd {
    this.end();
    this.#userfaultfd = createUserfaultfd();
    return this.#userfaultfd.duplicate();
  }

  listen(): void {
    if (this.#userfaultfd === undefined)
      throw new StateError("POSTCOPY_LISTEN without POSTCOPY_ADVISE before it");
    this.#listening = true;
  }

  /** Registers regions and returns their layouts with the addresses that they have in this process. */
  register(regions: readonly MemoryRegion[]): readonly RegionLayout[] {
    return regions.map((region) => {
      registerMissingFaults(this.#userfaultfd!, region.mapping.address, region.layout.sizeBytes);
      return { ...region.layout, userAddress: region.mapping.address };
    });
  }

  end(): void {
    this.#listening = false;
    this.#userfaultfd?.[Symbol.dispose]();
    this.#userfaultfd = undefined;
  }

  [Symbol.dispose](): void {
    this.end();
  }
}
