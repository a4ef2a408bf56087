import type { Extent } from "../../../migrate/snapshot/mod.ts";
import { formatBytes } from "../../output/format.ts";
import { believedRows, LOST, problemLines, stateRows } from "../damage-rows.ts";
import type { DamageDescription } from "../describe-damage.ts";
import { html, type Markup } from "./markup.ts";
import { damagedMemoryPart } from "./memory-part.ts";
import { pageText } from "./page-text.ts";

export interface DamagedPageContent {
  readonly file: string;
  readonly damage: DamageDescription;
  /** Those that can be believed. */
  readonly extents: readonly Extent[];
}

/** One page about a file that does not open: what can be believed, and what cannot. */
export function damagedHtmlPage({ file, damage, extents }: DamagedPageContent): string {
  const name = damage.header?.machine?.name ?? "a damaged snapshot";
  return pageText(
    name,
    html`<div class="head"><h1>${name}</h1><span class="badge bad">DAMAGED: nothing of it should be run</span></div>
    <p class="sub">${file}</p>${figuresPart(damage)}
    <section class="card" id="believed"><h2>What can be believed</h2><dl>${believedRows(damage).map(
      ([what, detail]) => html`<dt>${what}</dt><dd class="${detail === LOST ? "lost" : ""}">${detail}</dd>`,
    )}</dl></section>
    ${statesPart(damage)}${damagedMemoryPart(damage.memory, extents)}
    <section class="card" id="lost"><h2>What cannot</h2><ul class="places">${problemLines(damage).map(
      (line) => html`<li>${line}</li>`,
    )}</ul></section>
    <footer>Each part was believed by a checksum of its own. Nothing of this file is ever loaded.</footer>`,
  );
}

function figuresPart(damage: DamageDescription): Markup {
  const rows = stateRows(damage);
  const broken = rows.filter(([, verdict]) => verdict === "BROKEN" || verdict === LOST).length;
  const [total, lost] = damage.memory.reduce(
    ([all, gone], { sizeBytes, lostBytes }) => [all + sizeBytes, gone + lostBytes],
    [0, 0] as [number, number],
  );
  const figures: [string, string][] = [
    [formatBytes(damage.sizeBytes), "in the file"],
    [formatBytes(damage.lostBytes), "belong to no whole record"],
    [`${formatBytes(lost)} of ${formatBytes(total)}`, "of guest memory are lost"],
    [`${broken} of ${rows.length}`, "states are broken or lost"],
  ];
  return html`<div class="figures">${figures.map(([figure, what]) => html`<div class="figure"><b>${figure}</b><span>${what}</span></div>`)}</div>`;
}

function statesPart(damage: DamageDescription): Markup {
  const rows = stateRows(damage);
  if (rows.length === 0) return html``;
  return html`<section class="card" id="states"><h2>States</h2><table><thead><tr><th>State</th><th>Verdict</th><th class="number">Bytes</th></tr></thead><tbody>
    ${rows.map(([name, verdict, size]) => html`<tr><td>${name}</td><td class="${verdict.startsWith("whole") ? "" : "lost"}">${verdict}</td><td class="number">${size}</td></tr>`)}
    </tbody></table></section>`;
}
