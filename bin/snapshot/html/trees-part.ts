import type { StateTree } from "../../../migrate/decode/mod.ts";
import { leafText } from "../tree-lines.ts";
import { html, type Markup } from "./markup.ts";

/** What a browser opens without a pause; `--device NAME --json` has all. */
const SHOWN_CHILDREN = 256;
const SHOWN_ENTRIES = 40_000;

/** Every state that the file holds, folded up. */
export function treesPart(trees: Iterable<StateTree>): Markup {
  const budget = { left: SHOWN_ENTRIES };
  const parts = Array.from(trees, (tree) => entry(tree, budget, "tree"));
  if (parts.length === 0) return html``;
  return html`<section class="card tree" id="states"><h2>States</h2>${parts}</section>`;
}

function entry(tree: StateTree, budget: { left: number }, className = ""): Markup {
  budget.left -= 1;
  const label = html`${tree.name}${value(tree)}${tree.note !== undefined && html` <span class="note">${tree.note}</span>`}`;
  const { children = [] } = tree;
  if (children.length === 0) {
    return className === ""
      ? html`<div class="leaf">${label}</div>`
      : html`<details class="${className}"><summary>${label}</summary></details>`;
  }
  const shown = children.slice(0, Math.min(SHOWN_CHILDREN, Math.max(0, budget.left)));
  const hidden = children.length - shown.length;
  const inside = shown.map((child) => entry(child, budget));
  const more =
    hidden > 0 &&
    html`<div class="leaf note">… and ${hidden} more: vhu snapshot inspect --device … --json</div>`;
  return html`<details class="${className}"><summary>${label}</summary><div class="inside">${inside}${more}</div></details>`;
}

function value(tree: StateTree): Markup | false {
  const text = leafText(tree);
  return text !== "" && html` <span class="value">${text}</span>`;
}
