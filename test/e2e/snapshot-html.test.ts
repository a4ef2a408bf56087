import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { SnapshotReader, SnapshotWriter } from "../../migrate/snapshot/mod.ts";
import { encodeState } from "../../src/state/mod.ts";
import { runVhu } from "../bin/run-vhu.ts";
import { fixture } from "../fixtures/make-snapshot.ts";
import { requirePeers } from "../peers/mod.ts";
import { Browser } from "../support/browser.ts";

const peers = requirePeers(["chromium"]);
const folder = mkdtempSync(join(tmpdir(), "vhu-html-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Ends every kind of context that a text can stand in, and fetches, and runs. */
const HOSTILE = `</title></style></script><script>document.title="owned"</script><img src="http://127.0.0.1:9/x" onerror="document.title='owned'">"' onload=x=1 \u202e\u001b[31m&lt;`;

/** Hostile wherever a file can have a text. */
async function hostileSnapshot(): Promise<string> {
  const path = join(folder, "hostile.vhu");
  using writer = SnapshotWriter.toFile(path, {
    writer: { name: HOSTILE, version: HOSTILE },
    runState: HOSTILE,
    createdAt: HOSTILE,
    machine: { name: HOSTILE },
    vmm: { name: HOSTILE, version: HOSTILE, commandLine: [HOSTILE] },
    labels: { [HOSTILE]: HOSTILE },
    host: { kernel: HOSTILE, architecture: HOSTILE, cpu: HOSTILE },
  });
  writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: 1 << 20, name: HOSTILE }]);
  await writer.writeMemory(0, 0, new Uint8Array(1 << 20).fill(1));
  const header = { deviceType: "blk", version: 1, oldestCompatibleVersion: 1, features: 0n };
  const state = writer.writeDeviceState(0);
  for (const piece of encodeState(header, [{ name: HOSTILE, value: { [HOSTILE]: HOSTILE } }]))
    state.write(piece);
  const { sizeBytes } = state.finish();
  writer.writeManifest({
    machine: { name: HOSTILE },
    devices: [
      {
        ...{
          id: 0,
          name: HOSTILE,
          type: HOSTILE,
          socket: HOSTILE,
          stateFormat: HOSTILE,
          stateBytes: sizeBytes,
        },
        backend: { identity: HOSTILE, executable: HOSTILE, version: HOSTILE },
        ...{
          features: "0x0",
          protocolFeatures: "0x0",
          config: "00",
          queues: [{ index: 0, size: 256, base: 200 }],
        },
      },
    ],
    memory: { totalBytes: 1 << 20 },
  });
  writer.finish();
  return path;
}

async function pageOf(path: string, name: string): Promise<string> {
  const page = join(folder, name);
  const ran = await runVhu(["snapshot", "inspect", "--html", page, path]);
  expect([ran.status, ran.stderr]).toEqual([0, ""]);
  return page;
}

/** With the records of these types flipped; 3, and the page is there all the same. */
async function damagedPageOf(path: string, typeNames: readonly string[], name: string): Promise<string> {
  const bytes = new Uint8Array(readFileSync(path));
  using reader = SnapshotReader.open(path);
  for (const typeName of typeNames) {
    bytes[reader.records().find((record) => record.typeName === typeName)!.offset + 33]! ^= 1;
  }
  const [damaged, page] = [join(folder, `${name}.vhu`), join(folder, `${name}.html`)];
  writeFileSync(damaged, bytes);
  const ran = await runVhu(["snapshot", "inspect", "--html", page, damaged]);
  expect(ran.status).toBe(3);
  expect(ran.stdout).toContain("DAMAGED");
  return page;
}

describe.skipIf(!peers)("the page that --html writes, in Chromium", () => {
  test("light and dark, without an error, and nothing is fetched", async () => {
    const page = pathToFileURL(await pageOf(fixture.paths[1]!, "plain.html")).href;
    await using browser = await Browser.start(peers!.chromium.command);
    await browser.setColorScheme("light");
    await browser.open(page);
    const back = "getComputedStyle(document.body).backgroundColor";
    const [light, lightShot] = [await browser.evaluate<string>(back), await browser.screenshot()];
    await browser.setColorScheme("dark");
    const [dark, darkShot] = [await browser.evaluate<string>(back), await browser.screenshot()];
    expect(light).toBe("rgb(244, 245, 248)");
    expect(dark).toBe("rgb(16, 19, 26)");
    expect(Buffer.compare(lightShot, darkShot)).not.toBe(0);
    const text = await browser.evaluate<string>("document.body.innerText");
    for (const word of ["fixture", "264 KiB", "console0", "at 3 of 256", "VERSION_1", "of guest memory"]) {
      expect(text).toContain(word);
    }
    expect(
      await browser.evaluate<number>("document.querySelectorAll('svg.map rect').length"),
    ).toBeGreaterThan(1);
    // A state is folded up until somebody opens it.
    const columns = `[...document.querySelectorAll(".leaf")].find((leaf) => leaf.textContent.includes("columns 80"))`;
    expect(await browser.evaluate<boolean>(`${columns}.checkVisibility()`)).toBe(false);
    await browser.evaluate("for (const each of document.querySelectorAll('details summary')) each.click()");
    expect(await browser.evaluate<boolean>(`${columns}.checkVisibility()`)).toBe(true);
    expect(await browser.evaluate<boolean>("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
    expect(browser.requests).toEqual([page]);
    expect(browser.complaints).toEqual([]);
  });

  test("of a damaged file: what can be believed and what cannot, light and dark, and nothing is fetched", async () => {
    const path = await damagedPageOf(fixture.paths[1]!, ["index", "extents"], "damaged");
    const page = pathToFileURL(path).href;
    await using browser = await Browser.start(peers!.chromium.command);
    const colour = "getComputedStyle(document.querySelector('rect.k-lost')).fill";
    const colours: string[] = [];
    for (const scheme of ["light", "dark"] as const) {
      await browser.setColorScheme(scheme);
      await browser.open(page);
      colours.push(await browser.evaluate<string>(colour));
    }
    expect(colours).toEqual(["rgb(208, 72, 62)", "rgb(255, 123, 114)"]);
    const text = await browser.evaluate<string>("document.body.innerText");
    for (const words of [
      ...["DAMAGED: nothing of it should be run", "fixture, suspended", "console0", "whole"],
      ...["264 KiB of 264 KiB", "index at 1732: the checksum", "memory ram 0x0…0x40000"],
    ]) {
      expect(text).toContain(words);
    }
    const lost = `[...document.querySelectorAll("dt")].find((each) => each.textContent === "index, root").nextElementSibling`;
    expect(await browser.evaluate<string>(`${lost}.textContent`)).toBe("LOST");
    expect(await browser.evaluate<boolean>("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
    expect(browser.requests).toEqual([page, page]);
    expect(browser.complaints).toEqual([]);
  });

  test("texts of a hostile file stay texts, damaged or not", async () => {
    const hostile = await hostileSnapshot();
    const damaged = await damagedPageOf(hostile, ["index", "deviceState"], "hostile-damaged");
    expect(readFileSync(damaged, "utf8")).not.toContain("\u202e");
    const page = await pageOf(hostile, "hostile.html");
    expect(readFileSync(page, "utf8")).not.toContain("\u202e");
    await using browser = await Browser.start(peers!.chromium.command);
    for (const [path, texts] of [
      [page, 15],
      [damaged, 8],
    ] as const) {
      await browser.open(pathToFileURL(path).href);
      expect(await browser.evaluate<string>("document.title")).toContain("<script>");
      const strange =
        "[...document.querySelectorAll('script, img, iframe, link, object, [onload], [onerror]')].length";
      expect(await browser.evaluate<number>(strange)).toBe(0);
      expect(await browser.evaluate<number>("document.styleSheets.length")).toBe(1);
      const text = await browser.evaluate<string>("document.body.textContent");
      expect(text.split("</style></script>").length).toBeGreaterThan(texts);
      expect(await browser.evaluate<boolean>("document.documentElement.scrollWidth <= innerWidth")).toBe(
        true,
      );
    }
    expect(browser.requests.filter((url) => !url.startsWith("file:"))).toEqual([]);
    expect(browser.complaints).toEqual([]);
  });
});
