import { expect, test } from "bun:test";
import { InvalidArgumentError } from "commander";
import { endsOf, parsePort } from "../../bin/device/console-ports.ts";
import { UsageError } from "../../src/errors.ts";

test("ports are read one after the other", () => {
  const words = [
    "name=tty,pty",
    "pty=/run/t,console",
    "name=a,,b,file=/x=1,,2",
    "socket=s,console=off",
    "stdio",
  ];
  const ports = words.reduce<ReturnType<typeof parsePort>>((list, word) => parsePort(word, list), []);
  expect(ports).toEqual([
    { name: "tty", end: { kind: "pty" } },
    { end: { kind: "pty", link: "/run/t" }, isConsole: true },
    { name: "a,b", end: { kind: "file", path: "/x=1,2" } },
    { end: { kind: "socket", path: "s" }, isConsole: false },
    { end: { kind: "stdio" } },
  ]);
  expect(endsOf({ port: ports }).map(({ kind }) => kind)).toEqual(["pty", "pty", "file", "socket", "stdio"]);
});

test.each([
  "",
  "name=x",
  "pty,file=x",
  "name=a,name=b,pty",
  "socket=",
  "stdio=x",
  "console=maybe,pty",
  "colour=red",
])("a port %p is refused", (text) => {
  expect(() => parsePort(text)).toThrow(InvalidArgumentError);
});

test("one end, or ports", () => {
  expect(endsOf({ pty: true, ptyLink: "l" })).toEqual([{ kind: "pty", link: "l" }]);
  expect(endsOf({ ptyLink: "l" })).toEqual([{ kind: "pty", link: "l" }]);
  expect(endsOf({ stdio: true })).toEqual([{ kind: "stdio" }]);
  const port = parsePort("stdio");
  for (const options of [{}, { stdio: true, file: "f" }, { port, pty: true }, { port: [...port, ...port] }]) {
    expect(() => endsOf(options)).toThrow(UsageError);
  }
});
