import { expect, test } from "bun:test";
import { redactArguments } from "../../../migrate/secrets/mod.ts";

test.each([
  ["secret,id=s,data=hush,format=raw", "secret,id=s,data=(redacted),format=raw"],
  ["secret,data=a,,b,id=s", "secret,data=(redacted),id=s"],
  ["driver=http,url=https://user:pass@host/x", "driver=http,url=https://user:(redacted)@host/x"],
  ["vnc=:1,password=geheim", "vnc=:1,password=(redacted)"],
  ['{"qom-type":"secret","id":"s","data":"hush"}', '{"qom-type":"secret","id":"s","data":"(redacted)"}'],
  ["file.password-secret=s0,file=disk.img", "file.password-secret=s0,file=disk.img"],
  ["file,id=serial0,path=/tmp/metadata=1", "file,id=serial0,path=/tmp/metadata=1"],
  ["memory-backend-memfd,id=mem,size=512M", "memory-backend-memfd,id=mem,size=512M"],
])("%s", (given, redacted) => {
  expect(redactArguments([given])).toEqual([redacted]);
});
