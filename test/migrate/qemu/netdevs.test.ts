import { expect, test } from "bun:test";
import fc from "fast-check";
import { parseNetdevs } from "../../../migrate/qemu/netdevs.ts";

test("network back-ends in the words of QEMU 10.0.2's monitor", () => {
  const text = [
    "net1: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56",
    " \\ n1: index=0,type=vhost-user,vhost-user0 to c1",
    " \\ n1: index=1,type=vhost-user,vhost-user1 to c1",
    "n2: index=0,type=user,net=10.0.2.0,restrict=off",
    "n3: index=0,type=vhost-user,",
    "",
  ].join("\r\n");
  expect(parseNetdevs(text)).toEqual([
    { id: "n1", type: "vhost-user", queueCount: 2, chardev: "c1" },
    { id: "n2", type: "user", queueCount: 1 },
    { id: "n3", type: "vhost-user", queueCount: 1 },
  ]);
});

test("whatever the words, there is a list", () => {
  const line = fc.oneof(
    fc.string({ maxLength: 60 }),
    fc
      .tuple(fc.string({ maxLength: 6 }), fc.nat(), fc.string({ maxLength: 8 }), fc.string({ maxLength: 12 }))
      .map(([id, index, type, info]) => `${id}: index=${index},type=${type},${info}`),
  );
  fc.assert(
    fc.property(fc.array(line), (lines) => {
      for (const { id, type } of parseNetdevs(lines.join("\n"))) {
        expect(id).not.toBe("");
        expect(type).not.toBe("nic");
      }
    }),
    { seed: 20261125 },
  );
});
