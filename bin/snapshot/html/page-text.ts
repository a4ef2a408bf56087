import { html, Markup } from "./markup.ts";
import { STYLE } from "./style.ts";

/** No script, and nothing from elsewhere: the browser is told to refuse both. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
const STYLE_MARKUP = new Markup(STYLE);

/** A whole page, complete in itself, around its content. */
export function pageText(title: string, content: Markup): string {
  const page = html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${POLICY}"><meta name="referrer" content="no-referrer">
<title>${title} – vhu snapshot</title><style>${STYLE_MARKUP}</style></head><body><main>
${content}</main></body></html>`;
  return `${page.text}\n`;
}
