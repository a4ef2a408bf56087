import { printable } from "../../output/printable.ts";

/** HTML that is safe to put into a page as it is: `html` makes it, or it is a constant of ours. */
export class Markup {
  constructor(readonly text: string) {}
}

type Insertion = string | number | bigint | boolean | undefined | Markup | readonly Insertion[];

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/**
 * A piece of a page. Whatever is inserted is text, escaped, with control characters made visible; only Markup goes in as it is.
 *
 * @example html`<td title="${name}">${name}</td>`
 */
export function html(parts: TemplateStringsArray, ...insertions: readonly Insertion[]): Markup {
  return new Markup(parts.reduce((text, part, index) => text + textOf(insertions[index - 1]) + part));
}

function textOf(insertion: Insertion): string {
  if (insertion === undefined || insertion === false) return "";
  if (insertion instanceof Markup) return insertion.text;
  if (Array.isArray(insertion)) return insertion.map(textOf).join("");
  return printable(String(insertion)).replace(/[&<>"']/g, (character) => ENTITIES[character] as string);
}
