import { expect, test } from "bun:test";
import { normalize } from "node:path";
import fc from "fast-check";
import { backendArguments, qemuArguments } from "../../migrate/policy/mod.ts";
import { VhuError } from "../../src/errors.ts";

/** What a hostile file would like to get through, between what is well known. */
const PATHS = [
  ...["/etc/shadow", "../../etc/shadow", "/srv/vm/../../etc/x", "/srv/vm2/x", "/proc/self/fd/3", "/dev/fd/3"],
  ...["/srv/vm/disk", "disk", "", "/", "/srv/vm", "nbd:/srv/vm/x", "fd:3", "exec:/bin/sh", "/dev/fdset/1"],
];
const KEYS =
  "file filename path script downscript fd helper romfile id driver type addr.type addr.path writable qom-type format node-name chardev mem-path smb guestfwd value property file.driver file.filename tag server host port".split(
    " ",
  );
const KINDS =
  "vhost-user-blk fuse iothread socket file pipe raw qcow2 null-co virtio-blk-pci vhost-user-blk-pci tap user vhost-user memory-backend-file secret loader q35 kvm".split(
    " ",
  );
const QEMU_OPTIONS =
  "-device -object -chardev -netdev -blockdev -drive -machine -accel -global -kernel -append -serial -readconfig -incoming -name -boot -S --drive -numa -qmp -mon".split(
    " ",
  );
const BACKEND_OPTIONS =
  "--socket --socket-path --image --blk-file --control --fd --no-sandbox --direct --id --port --tap --tap-fd --shared-dir --sandbox --modcaps -o --stream --once --file --blockdev --export --object --daemonize --monitor".split(
    " ",
  );

const text = fc.oneof(fc.constantFrom(...PATHS), fc.constantFrom(...KINDS), fc.string({ maxLength: 8 }));
const list = fc
  .tuple(fc.constantFrom(...KINDS, ""), fc.array(fc.tuple(fc.constantFrom(...KEYS), text), { maxLength: 4 }))
  .map(([kind, pairs]) => [kind, ...pairs.map(([key, value]) => `${key}=${value}`)].join(","));
const json = fc
  .dictionary(fc.constantFrom(...KEYS), fc.oneof(text, fc.dictionary(fc.constantFrom(...KEYS), text)))
  .map((value) => JSON.stringify(value));
const word = fc.oneof(text, list, json);

const roots = ["/srv/vm"];
/** Every path in a word, by itself or in a list, lies below the root. */
function isWithin(argument: string): boolean {
  const plain = argument.replaceAll(",,", ";");
  const paths = plain.startsWith("/")
    ? [argument]
    : [...plain.matchAll(/=([^,]*\/[^,]*)/g)].map(([, path]) => path!);
  return paths.every((path) => normalize(path) === path && `${path}/`.startsWith("/srv/vm/"));
}
const isSecretive = (words: readonly string[]) =>
  words.some(
    (each, at) =>
      ["-netdev", "-chardev"].includes(words[at - 1]!) &&
      /(?:^|,)(?:script|downscript|fd|helper|smb|guestfwd)=(?!no(?:,|$))/.test(each),
  );

function accepted(build: () => readonly string[]): readonly string[] | undefined {
  try {
    return build();
  } catch (error) {
    // Nothing but a refusal: no crash.
    if (error instanceof VhuError && error.code === "POLICY") return undefined;
    throw error;
  }
}

test("whatever a QEMU command line holds: what is built of it names nothing outside, runs nothing, and builds itself", () => {
  let count = 0;
  const pair = fc.tuple(fc.constantFrom(...QEMU_OPTIONS), word);
  fc.assert(
    fc.property(fc.array(pair, { minLength: 1, maxLength: 3 }), (pairs) => {
      const policy = { roots, workingFolder: "/srv/vm" };
      const built = accepted(() => qemuArguments(pairs.flat(), policy));
      if (built === undefined) return;
      count += 1;
      const looked = built.filter((_, at) => built[at - 1] !== "-append" && built[at - 1] !== "-name");
      expect(looked.filter((each) => !isWithin(each))).toEqual([]);
      expect(isSecretive(looked)).toBe(false);
      expect(built.includes("-readconfig") || built.includes("-incoming")).toBe(false);
      expect(qemuArguments(built, policy)).toEqual([...built]);
    }),
    { numRuns: 3_000, seed: 20261125 },
  );
  expect(count).toBeGreaterThan(100);
});

test("whatever a back-end's command line holds: the same", () => {
  let count = 0;
  const program = fc.constantFrom(
    ...[["vhu", "device", "run", "blk"], ["vhu", "device", "run", "console"], ["virtiofsd"]],
    ["qemu-storage-daemon"],
  );
  const words = fc.array(fc.oneof(fc.constantFrom(...BACKEND_OPTIONS), word), { maxLength: 5 });
  fc.assert(
    fc.property(program, words, (start, rest) => {
      const policy = { roots, workingFolder: "/srv/vm" };
      const built = accepted(() => backendArguments([...start, ...rest], policy).args);
      if (built === undefined) return;
      count += 1;
      expect(built.filter((each) => !isWithin(each))).toEqual([]);
      const forbidden = ["--fd", "--tap-fd", "--modcaps", "--no-sandbox", "-o"];
      // As a value, such a word is no option.
      expect(built.filter((each) => forbidden.includes(each))).toEqual([]);
      const again = backendArguments([start[0]!, ...built], policy);
      expect(again.args).toEqual([...built]);
    }),
    { numRuns: 3_000, seed: 20261125 },
  );
  expect(count).toBeGreaterThan(100);
});
