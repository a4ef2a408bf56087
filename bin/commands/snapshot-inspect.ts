import { type Command, Option } from "commander";
import { type DeviceStateForm, deviceStateForms } from "../../migrate/decode/mod.ts";
import { withoutSecrets } from "../../migrate/secrets/mod.ts";
import {
  type LockedSnapshot,
  lockedSnapshot,
  type SnapshotReader,
  salvageSnapshot,
  spoolPipe,
} from "../../migrate/snapshot/mod.ts";
import { FormatError, UsageError } from "../../src/errors.ts";
import { about, aboutLater } from "../about.ts";
import { parseAddressOf } from "../address.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { addOpeningOptions, credentialsOf, type OpeningOptions, openPath } from "../credentials.ts";
import { localPrograms } from "../local-programs.ts";
import { writeHexdump } from "../output/hexdump.ts";
import { printable } from "../output/printable.ts";
import { damagedPage } from "../snapshot/damaged.ts";
import { describeSnapshot } from "../snapshot/describe.ts";
import { describeDamage } from "../snapshot/describe-damage.ts";
import { deviceNamed } from "../snapshot/device-named.ts";
import { deviceTreeNamed } from "../snapshot/device-trees.ts";
import { lockedPage } from "../snapshot/locked-page.ts";
import { snapshotPage } from "../snapshot/page.ts";
import { sectionNamed, sectionNames } from "../snapshot/section.ts";
import { treeDocument } from "../snapshot/tree-document.ts";
import { treeLines } from "../snapshot/tree-lines.ts";

interface InspectOptions extends OpeningOptions {
  readonly device?: string;
  readonly as?: DeviceStateForm;
  readonly section?: string;
  readonly hex?: boolean;
  readonly html?: string;
  readonly showSecrets?: boolean;
}

const STDIN = 0;
/** As FormatError has it: what is damaged was shown, so nothing is thrown. */
const DAMAGED_STATUS = 3;

export function registerSnapshotInspect(parent: Command): void {
  const command = addCommand(parent, {
    usage: "inspect <file>",
    description: `show what is in a snapshot, and whether it can be loaded here

Reads the header, the manifest and the index, checks them against the root hash, and shows who made the
snapshot, of what machine and devices, what its memory is made of, and what is in the way of loading it on
this host. Costs little at any size. It does not read the memory itself: "vhu snapshot verify" does. FILE may
be "-" for stdin. Of a damaged file it shows what can be believed, each part by its own checksum, and what not; --html, too.
Secrets in command lines, labels and libvirt's XML are shown as "(redacted)", unless you give --show-secrets; the file
has them all the same. --device takes one device's state apart: those of vhu, virtiofsd, passt and crosvm. --section shows one part of the
file: ${sectionNames.join(", ")}.`,
    examples: [
      ["vhu snapshot inspect web.vhu", "a page about the snapshot"],
      [
        "vhu snapshot inspect web.vhu --json | jq '.checks[] | select(.ok | not)'",
        "what is in the way here?",
      ],
      ["vhu snapshot inspect --device share web.vhu", "a device's state as a tree"],
      ["vhu snapshot inspect --device share --hex web.vhu", "the same, as bytes"],
      ["vhu snapshot inspect --html web.html web.vhu", "a page for a browser as well"],
      ["vhu snapshot inspect --section manifest web.vhu --json", "one part of the file, for a program"],
      ["vhu snapshot inspect --show-secrets --json web.vhu", "with the passwords that are in it"],
      ["ssh host cat web.vhu | vhu snapshot inspect -", "a snapshot that comes through a pipe"],
    ],
    exitStatus: {
      0: "shown, whether it can be loaded here or not",
      3: "the file is no snapshot, or is damaged; the message names the place",
      4: "a newer vhu, or a key, is needed to read it",
    },
  });
  addOpeningOptions(command)
    .option("--device <name>", "take a device's state apart")
    .addOption(
      new Option("--as <form>", "with --device: whose form the state has").choices([...deviceStateForms]),
    )
    .option("--section <name>", "show one part of the file")
    .option("--html <file>", "write one page for a browser, which needs nothing else")
    .option("--hex", "with --device or --section: show the bytes")
    .option("--show-secrets", "show passwords that are in command lines and libvirt's XML; else they are not")
    .action(action((context, file: string, options: InspectOptions) => inspect(context, file, options)));
}

async function inspect(context: CommandContext, file: string, options: InspectOptions): Promise<number> {
  expectOptionsThatFit(options);
  const source = parseAddressOf(file, "snapshot", ["file", "stdio"]);
  // What is damaged is read twice, and a pipe only once.
  using spool = source.kind === "stdio" ? about(file, () => spoolPipe(STDIN)) : undefined;
  const path = source.kind === "stdio" ? (spool?.path ?? "") : source.path;
  if (showLocked(context, file, path, options)) return 0;
  return aboutLater(file, async () => {
    using reader = await openOrSalvage(context, file, path, options);
    if (options.device !== undefined) return await showDevice(context, reader, options.device, options);
    if (options.section !== undefined) return showSection(context, reader, options.section, options);
    return await showAll(context, reader, file, options);
  });
}

/** An encrypted file without a key has a page of its own. */
function showLocked(
  { output }: CommandContext,
  file: string,
  path: string,
  options: InspectOptions,
): boolean {
  const { identity, passphraseFile, device, section, html } = options;
  if ([identity, passphraseFile, device, section, html].some((option) => option !== undefined)) return false;
  let locked: LockedSnapshot | undefined;
  try {
    locked = lockedSnapshot(path);
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
  if (locked === undefined) return false;
  if (output.json) output.document({ isEncrypted: true, ...locked });
  else output.lines(lockedPage(file, locked));
  return true;
}

/** @throws FormatError for a damaged one, after what can be believed of it was shown */
async function openOrSalvage(
  { output }: CommandContext,
  file: string,
  path: string,
  options: InspectOptions,
): Promise<SnapshotReader> {
  try {
    return await openPath(path, options);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const salvaged = await salvageSnapshot(path, credentialsOf(options));
    if (salvaged === undefined) throw error;
    const damage = shownBy(options)(describeDamage(salvaged));
    if (options.html !== undefined) {
      const { path: page } = parseAddressOf(options.html, "page", ["file"]);
      const { writeDamagedPage } = await import("../snapshot/html/write-page.ts");
      writeDamagedPage(page, { file, damage, extents: salvaged.extents });
    }
    if (output.json) output.document(damage);
    else output.lines(damagedPage(file, damage));
    throw error;
  }
}

function expectOptionsThatFit({ device, section, hex, html, as: form }: InspectOptions): void {
  if (device !== undefined && section !== undefined) throw new UsageError("give --device or --section");
  if (hex && device === undefined && section === undefined)
    throw new UsageError("--hex goes with --device or --section: say which bytes");
  const isPart = device !== undefined || section !== undefined;
  if (html !== undefined && isPart) throw new UsageError("--html is about the whole snapshot");
  if (form !== undefined && device === undefined) throw new UsageError("--as goes with --device");
}

/** What people see has no secrets, unless they ask for them; the file keeps them. */
function shownBy({ showSecrets }: InspectOptions): <Value>(value: Value) => Value {
  return showSecrets ? (value) => value : withoutSecrets;
}

async function showAll(
  { output }: CommandContext,
  reader: SnapshotReader,
  file: string,
  options: InspectOptions,
): Promise<number> {
  const { html } = options;
  const description = shownBy(options)(describeSnapshot(reader));
  // What not every look needs is loaded when it is asked for.
  const { loadChecks } = await import("../../migrate/load-checks.ts");
  const found = await loadChecks(reader, {
    signedBy: description.signedBy,
    programs: localPrograms(),
  });
  const checks = shownBy(options)(found);
  if (html !== undefined) {
    const { path } = parseAddressOf(html, "page", ["file"]);
    const { writeHtmlPage } = await import("../snapshot/html/write-page.ts");
    await writeHtmlPage(path, { file, snapshot: description, checks, reader });
  }
  if (output.json) output.document({ ...description, canLoad: checks.every(({ ok }) => ok), checks });
  else output.lines(snapshotPage(file, description, checks));
  return description.devices.some(({ state }) => state.damage !== undefined) ? DAMAGED_STATUS : 0;
}

async function showDevice(
  { output }: CommandContext,
  reader: SnapshotReader,
  name: string,
  options: InspectOptions,
): Promise<number> {
  const { as: form, hex } = options;
  if (hex) {
    writeHexdump(reader.deviceState(deviceNamed(reader, name).id));
    return 0;
  }
  const tree = await deviceTreeNamed(reader, name, form);
  const device = reader.manifest.devices.find((candidate) => candidate.name === name);
  if (output.json) output.document({ device: shownBy(options)(device), state: treeDocument(tree) });
  else output.lines(treeLines(tree).map(printable));
  return 0;
}

function showSection(
  { output }: CommandContext,
  reader: SnapshotReader,
  name: string,
  { hex, showSecrets }: InspectOptions,
): number {
  const section = sectionNamed(reader, name, showSecrets);
  if (hex && section.hasHiddenSecrets) {
    throw new UsageError(`the bytes of the ${name} hold secrets: give --show-secrets to see them`);
  }
  if (hex) writeHexdump(section.bytes());
  else if (output.json) output.document(section.document());
  else output.lines(treeLines(section.tree()).map(printable));
  return 0;
}
