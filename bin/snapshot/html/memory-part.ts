import type { Extent } from "../../../migrate/snapshot/mod.ts";
import { formatBytes } from "../../output/format.ts";
import type { SnapshotDescription } from "../describe.ts";
import type { MemoryPlace } from "../lost-ranges.ts";
import { type MemoryCell, memoryCells } from "../memory-cells.ts";
import { html, type Markup } from "./markup.ts";

const COLUMNS = 128;
const MOST_ROWS = 32;
/** A cell stands for this much at least, so that a small region is not blown up. */
const LEAST_CELL_BYTES = 64 * 1024;
const CELL_WIDTH = 8;
const CELL_HEIGHT = 9;
const ONE_ROW_PIXELS = 22;
const MOST_PIXELS = 300;
const KINDS: readonly MemoryCell[] = ["data", "duplicate", "parent", "zero", "lost"];
const WORDS: Readonly<Record<MemoryCell, string>> = {
  data: "data",
  duplicate: "duplicates",
  parent: "as in the parent",
  zero: "zeros",
  lost: "lost",
};

type Region = Pick<SnapshotDescription["memory"]["regions"][number], "name" | "guestAddress" | "sizeBytes">;

/** The memory as a picture: a cell for each piece of a region, coloured by what most of it is. */
export function memoryPart(
  { memory }: SnapshotDescription,
  extentsOf: (regionId: number) => readonly Extent[],
): Markup {
  const ratio = memory.compressedBytes === 0 ? undefined : memory.totalBytes / memory.compressedBytes;
  return html`<section class="card" id="memory"><h2>Memory</h2>
    ${memory.regions.map((region) => regionPart(region, extentsOf(region.id)))}
    ${legend(kindBytes(memory))}
    <p class="sub" style="margin:14px 0 0">${formatBytes(memory.totalBytes)} as ${formatBytes(memory.compressedBytes)} of
    zstd frames${ratio === undefined ? "" : `, ${ratio.toFixed(1)} to 1`}.</p></section>`;
}

/** A region of a damaged file, with what of it is lost. */
interface DamagedRegion extends Region {
  readonly id: number;
  readonly lostBytes: number;
  readonly lost: readonly MemoryPlace[];
}

/** As `memoryPart`, of a file of which a part is lost. */
export function damagedMemoryPart(regions: readonly DamagedRegion[], extents: readonly Extent[]): Markup {
  if (regions.length === 0) return html``;
  const sum = (kind: Extent["kind"]) =>
    extents.reduce((total, extent) => (extent.kind === kind ? total + extent.sizeBytes : total), 0);
  const lost = regions.reduce((total, { lostBytes }) => total + lostBytes, 0);
  const bytes = {
    data: sum("data"),
    duplicate: sum("duplicate"),
    parent: sum("parent"),
    zero: sum("zero"),
    lost,
  };
  return html`<section class="card" id="memory"><h2>Memory</h2>
    ${regions.map((region) => {
      const own = extents.filter(({ regionId }) => regionId === region.id);
      return regionPart(region, own, region.lost);
    })}
    ${legend(bytes)}</section>`;
}

function regionPart(region: Region, extents: readonly Extent[], lost: readonly MemoryPlace[] = []): Markup {
  const { name, guestAddress, sizeBytes } = region;
  const end = guestAddress + sizeBytes;
  return html`<div class="region"><div class="region-head"><h3>${name}</h3>
    <span class="mono">${hex(guestAddress)} – ${hex(end)}</span><span>${formatBytes(sizeBytes)}</span></div>
    ${picture(region, extents, lost)}</div>`;
}

function picture(
  { name, guestAddress, sizeBytes }: Region,
  extents: readonly Extent[],
  lost: readonly MemoryPlace[],
): Markup {
  const wanted = Math.ceil(sizeBytes / LEAST_CELL_BYTES);
  const cells = memoryCells(
    extents,
    sizeBytes,
    Math.min(COLUMNS * MOST_ROWS, Math.max(COLUMNS, wanted)),
    lost,
  );
  const rows = Math.ceil(cells.length / COLUMNS);
  const columns = Math.min(COLUMNS, cells.length);
  const [width, height] = [columns * CELL_WIDTH, rows * CELL_HEIGHT];
  const cellBytes = sizeBytes / cells.length;
  const runs = runsOf(cells, columns).map(({ row, column, length, kind }) => {
    const from = guestAddress + (row * columns + column) * cellBytes;
    const title = `${hex(from)} – ${hex(from + length * cellBytes)}: ${WORDS[kind]}`;
    return html`<rect class="k-${kind}" x="${column * CELL_WIDTH}" y="${row * CELL_HEIGHT}" width="${length * CELL_WIDTH}" height="${CELL_HEIGHT - (rows > 1 ? 1 : 0)}"><title>${title}</title></rect>`;
  });
  const shownHeight = rows === 1 ? ONE_ROW_PIXELS : Math.min(rows * CELL_HEIGHT, MOST_PIXELS);
  return html`<svg class="map" role="img" aria-label="What ${name} is made of" viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" style="height:${shownHeight}px" shape-rendering="crispEdges">${runs}</svg>`;
}

interface Run {
  readonly row: number;
  readonly column: number;
  length: number;
  readonly kind: MemoryCell;
}

/** Neighbours of one kind in a row are one rectangle; zeros are the ground. */
function runsOf(cells: readonly MemoryCell[], columns: number): Run[] {
  const runs: Run[] = [];
  for (const [index, kind] of cells.entries()) {
    const [row, column] = [Math.floor(index / columns), index % columns];
    const last = runs.at(-1);
    if (last?.kind === kind && last.row === row && last.column + last.length === column) last.length += 1;
    else if (kind !== "zero") runs.push({ row, column, length: 1, kind });
  }
  return runs;
}

function kindBytes(memory: SnapshotDescription["memory"]): Readonly<Record<MemoryCell, number>> {
  const parent = memory.regions.reduce((sum, { parentBytes }) => sum + parentBytes, 0);
  const { dataBytes: data, duplicateBytes: duplicate, zeroBytes: zero } = memory;
  return { data, duplicate, parent, zero, lost: 0 };
}

function legend(bytes: Readonly<Record<MemoryCell, number>>): Markup {
  const shown = KINDS.filter((kind) => bytes[kind] > 0);
  return html`<div class="legend">${shown.map(
    (kind) => html`<span><i class="k-${kind}"></i>${WORDS[kind]} <b>${formatBytes(bytes[kind])}</b></span>`,
  )}</div>`;
}

function hex(address: number): string {
  return `0x${Math.round(address).toString(16)}`;
}
