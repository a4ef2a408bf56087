/** Damages bytes, as its random numbers say: what a state or a container may meet. */

/** Numbers below `limit` that follow from `seed` alone (a linear congruential generator; its high bits are used). */
export function randomNumbers(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 0x1_0000_0000) * limit);
  };
}

const INTERESTING = [0, 1, 0x7f, 0x80, 0xff, 0xdd, 0xdf, 0xdb, 0xc7, 0x91];

/** A damaged copy of `seed`; `other` lends pieces. */
export function mutate(seed: Uint8Array, other: Uint8Array, random: (limit: number) => number): Uint8Array {
  let bytes = new Uint8Array(seed);
  for (let times = 1 + random(4); times > 0 && bytes.length > 0; times -= 1) {
    const at = random(bytes.length);
    const count = 1 + random(Math.min(64, bytes.length - at));
    const piece = other.subarray(0, 1 + random(64));
    // In one case of three the length changes: then little but the outermost checks is reached.
    switch (random(9)) {
      case 0:
        bytes[at]! ^= 1 << random(8);
        break;
      case 1:
      case 5:
        bytes[at] = INTERESTING[random(INTERESTING.length)]!;
        break;
      case 2:
        bytes = bytes.slice(0, at);
        break;
      case 3:
        bytes = new Uint8Array(Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + count)]));
        break;
      case 4:
        bytes = new Uint8Array(Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]));
        break;
      default:
        bytes.fill(INTERESTING[random(INTERESTING.length)]!, at, at + Math.min(count, 8));
    }
  }
  return bytes;
}
