import { formatBytes } from "../../output/format.ts";
import type { DeviceDescription, SnapshotDescription } from "../describe.ts";
import { qemuRows } from "../qemu-part.ts";
import { html, type Markup } from "./markup.ts";

const RADIUS = 17;
const SIZE = 46;
/** Features that are listed for one device. */
const SHOWN_FEATURES = 80;

/** The devices with their back-ends, and where each ring stands. */
export function devicesPart({ devices, machine }: SnapshotDescription): Markup {
  const rows = qemuRows(machine);
  if (devices.length === 0 && rows.length === 0) return html``;
  return html`<section class="card" id="devices"><h2>Devices</h2>${devices.map(devicePart)}
    ${
      rows.length > 0 &&
      html`<table><thead><tr><th>What</th><th>Name</th><th>Known of it</th></tr></thead><tbody>
      ${rows.map(({ what, name, detail }) => html`<tr><td>${what}</td><td class="mono">${name}</td><td>${detail}</td></tr>`)}
    </tbody></table>`
    }</section>`;
}

function devicePart(device: DeviceDescription): Markup {
  const { name, type, backend, state, queues, featureNames, protocolFeatureNames, socket, config } = device;
  const isDamaged = state.damage !== undefined;
  const size = state.isStored ? formatBytes(state.sizeBytes) : "no state stored";
  const features = [...featureNames, ...protocolFeatureNames].slice(0, SHOWN_FEATURES);
  return html`<div class="device"><div class="device-head"><h3>${name}</h3><span class="badge">${type}</span>
    <span class="badge${isDamaged ? " bad" : ""}">${isDamaged ? "state damaged" : size}</span></div>
    <dl><dt>back-end</dt><dd>${backend.identity}${backend.executable !== undefined && html` <code>${backend.executable}</code>`}${backend.version !== undefined && ` ${backend.version}`}</dd>
    <dt>state</dt><dd>${state.damage ?? state.format}</dd>
    ${socket !== undefined && html`<dt>socket</dt><dd><code>${socket}</code></dd>`}
    ${config !== "" && html`<dt>config</dt><dd><code>${config}</code></dd>`}
    ${features.length > 0 && html`<dt>features</dt><dd class="chips">${features.map((feature) => html`<code>${feature}</code>`)}</dd>`}</dl>
    ${queues.length > 0 && html`<div class="rings">${queues.map(ringPart)}</div>`}</div>`;
}

/** A ring as a circle, filled up to its position: where the next request is taken from. */
function ringPart({ index, size, base }: DeviceDescription["queues"][number]): Markup {
  const position = size === 0 ? 0 : (base & 0x7fff) % size;
  const share = size === 0 ? 0 : position / size;
  const [x, y] = pointAt(share);
  const [topX, topY] = pointAt(0);
  const path = `M ${topX} ${topY} A ${RADIUS} ${RADIUS} 0 ${share > 0.5 ? 1 : 0} 1 ${x} ${y}`;
  return html`<div class="ring"><svg width="${SIZE}" height="${SIZE}" viewBox="0 0 ${SIZE} ${SIZE}" role="img" aria-label="ring ${index} at ${position} of ${size}">
    <circle cx="${SIZE / 2}" cy="${SIZE / 2}" r="${RADIUS}"></circle>${share > 0 && html`<path d="${path}"></path>`}<circle class="dot" cx="${x}" cy="${y}" r="4"></circle></svg>
    <div><b>ring ${index}</b>at ${position} of ${size}<br>base ${base}</div></div>`;
}

function pointAt(share: number): [string, string] {
  const angle = 2 * Math.PI * share - Math.PI / 2;
  return [SIZE / 2 + RADIUS * Math.cos(angle), SIZE / 2 + RADIUS * Math.sin(angle)].map((value) =>
    value.toFixed(2),
  ) as [string, string];
}
