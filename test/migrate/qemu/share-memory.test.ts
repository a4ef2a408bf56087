import { expect, test } from "bun:test";
import { shareMemory } from "../../../migrate/qemu/share-memory.ts";

const region = (id: number, name: string) => ({ id, name, guestAddress: 0, sizeBytes: 1 << 28 });
const objects = (args: readonly string[]) => args.filter((_, at) => args[at - 1] === "-object");

test("each backend of the memory map becomes a file that QEMU inherits; the rest stays as it is", () => {
  const args = [
    ...["-object", "memory-backend-memfd,id=a,size=256M,share=on,prealloc=on,seal=on,merge=off"],
    ...["-object", "memory-backend-ram,id=b,size=256M", "-object", "iothread,id=t0"],
    ...["-object", '{"qom-type":"memory-backend-file","id":"c","size":268435456,"mem-path":"/dev/shm/x"}'],
    ...["-object", "memory-backend-ram,id=elsewhere,size=1M"],
    ...["-numa", "node,memdev=a", "-numa", "node,memdev=b"],
  ];
  const map = [region(7, "b"), region(3, "/objects/a"), region(5, "pc.bios"), region(6, "c")];
  const shared = shareMemory(args, map);
  expect(objects(shared.args)).toEqual([
    "memory-backend-file,id=a,size=256M,merge=off,mem-path=/proc/self/fd/3,share=on",
    "memory-backend-file,id=b,size=256M,mem-path=/proc/self/fd/4,share=on",
    "iothread,id=t0",
    "memory-backend-file,id=c,size=268435456,mem-path=/proc/self/fd/5,share=on",
    "memory-backend-ram,id=elsewhere,size=1M",
  ]);
  expect(shared.regions.map(({ id }) => id)).toEqual([3, 7, 6]);
  expect(shared.args.slice(-4)).toEqual(args.slice(-4));
});

test("a machine without a backend gets one of the name that its own block has", () => {
  const shared = shareMemory(["-m", "256"], [region(0, "pc.ram"), region(1, "pc.bios")]);
  expect(shared.args).toEqual([
    ...["-m", "256"],
    ...["-object", "memory-backend-file,id=pc.ram,size=268435456B,mem-path=/proc/self/fd/3,share=on"],
    ...["-machine", "memory-backend=pc.ram"],
  ]);
  expect(shared.regions.map(({ id }) => id)).toEqual([0]);
  const numa = ["-m", "256", "-numa", "node,mem=256"];
  expect(shareMemory(numa, [region(0, "pc.ram")])).toEqual({ args: numa, regions: [] });
});

test("what QEMU has to make itself stays its own: huge pages, memory bound to host nodes, secrets", () => {
  for (const value of [
    "memory-backend-memfd,id=m,size=256M,hugetlb=on",
    "memory-backend-ram,id=m,size=256M,host-nodes=0,policy=bind",
    "memory-backend-epc,id=m,size=256M",
  ]) {
    const args = ["-machine", "q35,memory-backend=m", "-object", value];
    expect(shareMemory(args, [region(0, "m")])).toEqual({ args, regions: [] });
  }
});

test("an fd of the QEMU that was is no memory of the new one", () => {
  const backend = "memory-backend-file,id=x,size=1M,mem-path=/proc/self/fd/1,share=on";
  expect(() => shareMemory(["-object", backend], [])).toThrow("is behind /proc/self/fd/1");
});
