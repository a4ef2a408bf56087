import { expect, test } from "bun:test";
import { type Address, parseAddress, parseAddressOf } from "../../bin/address.ts";
import { UsageError } from "../../src/errors.ts";

test.each<[string, Address]>([
  ["-", { kind: "stdio" }],
  ["web.vhu", { kind: "file", path: "web.vhu" }],
  ["./qmp:web", { kind: "file", path: "./qmp:web" }],
  ["/a b:c", { kind: "file", path: "/a b:c" }],
  ["qmp:/run/web.qmp", { kind: "qmp", path: "/run/web.qmp" }],
  ["machine:web", { kind: "machine", path: "web" }],
  ["device:/run/disk.ctl", { kind: "device", path: "/run/disk.ctl" }],
  ["unix:/run/a:b", { kind: "unix", path: "/run/a:b" }],
  ["tcp:host.example:7000", { kind: "tcp", host: "host.example", port: 7000 }],
  ["tcp:10.0.0.1:1", { kind: "tcp", host: "10.0.0.1", port: 1 }],
  ["tcp:[fe80::1%eth0]:65535", { kind: "tcp", host: "fe80::1%eth0", port: 65535 }],
])("%s is read", (text, address) => {
  expect(parseAddress(text)).toEqual(address);
});

test.each([
  "",
  "qmp:",
  "unix:",
  `unix:/${"x".repeat(107)}`,
  "vsock:3:1",
  "exec:reboot",
  "tcp:host",
  "tcp:host:",
  "tcp:host:0",
  "tcp:host:65536",
  "tcp::7000",
  "tcp:::1:7000",
  "tcp:host:7000x",
])("%p is refused", (text) => {
  expect(() => parseAddress(text)).toThrow(UsageError);
});

test("an address of the wrong kind names the right ones", () => {
  expect(parseAddressOf("-", "target", ["file", "stdio"])).toEqual({ kind: "stdio" });
  expect(() => parseAddressOf("tcp:a:1", "source", ["machine", "unix"])).toThrow(
    'the source "tcp:a:1" is of the wrong kind here: give machine:PATH or unix:PATH',
  );
});
