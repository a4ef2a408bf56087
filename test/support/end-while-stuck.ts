import { getStuck, Stuck } from "./stuck-worker.ts";

/** A process that ends while one of its ring Workers is in a system call that does not return. */
const stuck = new Stuck();
const { rig } = getStuck(stuck);
rig[Symbol.dispose]();
stuck[Symbol.dispose]();
console.log("ended");
process.exit(7);
