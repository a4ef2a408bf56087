import type { StateTree } from "../../../migrate/decode/mod.ts";
import type { PreflightCheck } from "../../../migrate/mod.ts";
import type { Extent, RecordListing } from "../../../migrate/snapshot/mod.ts";
import { formatBytes, formatCount } from "../../output/format.ts";
import type { SnapshotDescription } from "../describe.ts";
import { machineText } from "../machine-text.ts";
import { deviceCount } from "../page.ts";
import { devicesPart } from "./device-part.ts";
import { html, type Markup } from "./markup.ts";
import { memoryPart } from "./memory-part.ts";
import { pageText } from "./page-text.ts";
import { treesPart } from "./trees-part.ts";

/** All that a page is made of. */
export interface PageContent {
  readonly file: string;
  readonly snapshot: SnapshotDescription;
  readonly checks: readonly PreflightCheck[];
  readonly trees: Iterable<StateTree>;
  readonly records: readonly RecordListing[];
  extentsOf(regionId: number): readonly Extent[];
}

/** One page about a snapshot, complete in itself, as a text. */
export function htmlPage(content: PageContent): string {
  const { file, snapshot, checks, trees, records } = content;
  return pageText(
    nameOf(snapshot),
    html`${headPart(file, snapshot, checks)}${figuresPart(snapshot)}
<div class="two">${factsPart(file, snapshot)}${checksPart(checks)}</div>
${memoryPart(snapshot, (id) => content.extentsOf(id))}${devicesPart(snapshot)}${treesPart(trees)}${recordsPart(records, snapshot)}
<footer>root <span class="mono">${snapshot.root}</span><br>Header, index, end and root hash are right. Every byte:
<code>vhu snapshot verify ${file}</code></footer>`,
  );
}

function nameOf({ machine, header }: SnapshotDescription): string {
  const name = machine?.name ?? header.machine?.name;
  return typeof name === "string" && name !== "" ? name : "a machine without a name";
}

function headPart(file: string, snapshot: SnapshotDescription, checks: readonly PreflightCheck[]): Markup {
  const { header } = snapshot;
  const failed = checks.filter(({ ok }) => !ok).length;
  const isDamaged = snapshot.devices.some(({ state }) => state.damage !== undefined);
  return html`<div class="head"><h1>${nameOf(snapshot)}</h1>
    ${header.runState !== undefined && html`<span class="badge">${header.runState}</span>`}
    ${isDamaged && html`<span class="badge bad">a state is damaged</span>`}
    <span class="badge ${failed === 0 ? "good" : "bad"}">${failed === 0 ? "can be loaded here" : "cannot be loaded here as it is"}</span></div>
    <p class="sub">${file} · ${header.createdAt} by ${header.writer.name} ${header.writer.version}</p>`;
}

function figuresPart(snapshot: SnapshotDescription): Markup {
  const { memory, sizeBytes, ratio, parent } = snapshot;
  const count = deviceCount(snapshot);
  const figures: [string, string][] = [
    [formatBytes(memory.totalBytes), "of guest memory"],
    [formatBytes(sizeBytes), "in the file"],
    [`${ratio.toFixed(1)} : 1`, "before to after"],
    [String(count), count === 1 ? "device" : "devices"],
    parent === undefined
      ? ["full", "needs no other file"]
      : [String(parent.depth), parent.depth === 1 ? "file below this one" : "files below this one"],
  ];
  return html`<div class="figures">${figures.map(([figure, what]) => html`<div class="figure"><b>${figure}</b><span>${what}</span></div>`)}</div>`;
}

function factsPart(file: string, snapshot: SnapshotDescription): Markup {
  const { header, machine, parent, isEncrypted, signedBy } = snapshot;
  const { host, vmm, labels } = header;
  const facts: [string, string | undefined | Markup][] = [
    ["file", file],
    ["id", html`<span class="mono">${header.id}</span>`],
    ["format", `version ${snapshot.formatVersion}, ${formatCount(snapshot.recordCount, "record")}`],
    ["host", `Linux ${host.kernel}, ${host.architecture}`],
    ["CPU", host.cpu],
    [
      "VMM",
      vmm &&
        html`${vmm.name} ${vmm.version}${vmm.commandLine !== undefined && html`<br><code>${vmm.commandLine.join(" ")}</code>`}`,
    ],
    ["machine", machineText(machine)],
    ["based on", parent && html`${parent.file}<br><span class="mono">${parent.root}</span>`],
    [
      "machine state",
      snapshot.machineStateBytes === undefined ? undefined : formatBytes(snapshot.machineStateBytes),
    ],
    [
      "QEMU stream",
      snapshot.qemuStreamBytes === undefined ? undefined : formatBytes(snapshot.qemuStreamBytes),
    ],
    ["encrypted", isEncrypted ? "yes, AES-256-GCM" : "no"],
    ["signed", signedBy === undefined ? "no" : html`says so, by <span class="mono">${signedBy}</span>`],
    ...Object.entries(labels).map(([key, label]): [string, string] => [`label ${key}`, label]),
  ];
  const shown = facts.filter(([, fact]) => fact !== undefined);
  return html`<section class="card" id="facts"><h2>Snapshot</h2><dl>${shown.map(([key, fact]) => html`<dt>${key}</dt><dd>${fact}</dd>`)}</dl></section>`;
}

function checksPart(checks: readonly PreflightCheck[]): Markup {
  const sorted = [...checks].sort((a, b) => Number(a.ok) - Number(b.ok));
  return html`<section class="card" id="checks"><h2>Can it be loaded here?</h2><ul class="checks">${sorted.map(
    ({ name, ok, detail }) =>
      html`<li class="${ok ? "ok" : "no"}"><i>${ok ? "✓" : "✗"}</i><b>${name}</b><span>${detail}</span></li>`,
  )}</ul></section>`;
}

function recordsPart(records: readonly RecordListing[], { sizeBytes }: SnapshotDescription): Markup {
  const sums = new Map<string, { count: number; bytes: number }>();
  for (const { typeName, payloadBytes } of records) {
    const sum = sums.get(typeName) ?? { count: 0, bytes: 0 };
    sums.set(typeName, { count: sum.count + 1, bytes: sum.bytes + payloadBytes });
  }
  const rows = [...sums].sort(([, a], [, b]) => b.bytes - a.bytes);
  return html`<section class="card" id="records"><h2>What the bytes are</h2><table><thead><tr><th>Record</th><th class="number">Count</th><th class="number">Bytes</th><th style="width:45%"></th></tr></thead><tbody>
    ${rows.map(([name, { count, bytes }]) => html`<tr><td>${name}</td><td class="number">${count}</td><td class="number">${formatBytes(bytes)}</td><td><div class="bar" style="width:${((100 * bytes) / sizeBytes).toFixed(1)}%"></div></td></tr>`)}
    </tbody></table></section>`;
}
