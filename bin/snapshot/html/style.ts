/** The page's only style sheet. Colours are named once for each scheme; everything else uses the names. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #f4f5f8; --card: #ffffff; --line: #e1e4eb; --text: #1b2030; --soft: #5d6579; --faint: #8b93a7;
  --accent: #3a5bd9; --good: #14804a; --good-back: #e3f5ea; --bad: #b3261e; --bad-back: #fdeae8;
  --data: #3a5bd9; --duplicate: #1d9a8a; --parent: #b7791f; --zero: #e3e7ef; --lost: #d0483e; --track: #e3e7ef;
  --code: #f1f3f8; --shadow: 0 1px 2px rgba(20, 26, 44, .06), 0 6px 20px rgba(20, 26, 44, .05);
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #10131a; --card: #181c25; --line: #2a303d; --text: #e7eaf2; --soft: #a3abbd; --faint: #757e93;
    --accent: #8aa4ff; --good: #5fd39a; --good-back: #14301f; --bad: #ff8f86; --bad-back: #3a1a18;
    --data: #7c96ff; --duplicate: #41c4b2; --parent: #e0aa4e; --zero: #262c38; --lost: #ff7b72; --track: #262c38;
    --code: #11151c; --shadow: 0 1px 2px rgba(0, 0, 0, .4);
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; -webkit-font-smoothing: antialiased; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.015em; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 13px; font-weight: 650; letter-spacing: .07em; text-transform: uppercase; color: var(--soft); margin: 0 0 16px; }
h3 { font-size: 16px; font-weight: 650; margin: 0; overflow-wrap: anywhere; }
code, .mono { font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, "DejaVu Sans Mono", monospace; font-size: .88em; overflow-wrap: anywhere; }
.head { display: flex; flex-wrap: wrap; gap: 12px 16px; align-items: center; }
.sub { color: var(--soft); margin: 8px 0 28px; overflow-wrap: anywhere; }
.badge { display: inline-block; padding: 2px 11px; border-radius: 999px; font-size: 13px; font-weight: 600; border: 1px solid var(--line); color: var(--soft); background: var(--card); }
.badge.good { color: var(--good); background: var(--good-back); border-color: transparent; }
.badge.bad { color: var(--bad); background: var(--bad-back); border-color: transparent; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; box-shadow: var(--shadow); padding: 22px 24px; margin-bottom: 18px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px; margin-bottom: 18px; }
.figure { background: var(--card); border: 1px solid var(--line); border-radius: 14px; box-shadow: var(--shadow); padding: 16px 18px; }
.figure b { display: block; font-size: 23px; line-height: 1.25; font-weight: 650; letter-spacing: -.01em; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.figure span { color: var(--soft); font-size: 13px; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); gap: 18px; margin-bottom: 18px; }
.two > .card { margin: 0; }
dl { display: grid; grid-template-columns: minmax(90px, max-content) 1fr; gap: 7px 18px; margin: 0; }
dt { color: var(--soft); overflow-wrap: anywhere; }
dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
ul.checks { list-style: none; margin: 0; padding: 0; display: grid; grid-template-columns: 16px fit-content(38%) 1fr; column-gap: 12px; }
ul.checks li { display: grid; grid-column: 1 / -1; grid-template-columns: subgrid; padding: 7px 0; border-top: 1px solid var(--line); }
ul.checks li:first-child { border-top: 0; padding-top: 0; }
ul.checks i { font-style: normal; font-weight: 700; }
ul.checks .ok i { color: var(--good); } ul.checks .no i { color: var(--bad); }
ul.checks b { font-weight: 600; overflow-wrap: anywhere; } ul.checks span { color: var(--soft); min-width: 0; overflow-wrap: anywhere; }
.region { margin-top: 22px; } .region:first-of-type { margin-top: 0; }
.region-head { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline; margin-bottom: 9px; }
.region-head span { color: var(--soft); font-size: 13.5px; }
svg.map { display: block; width: 100%; border-radius: 7px; background: var(--zero); }
.k-data { fill: var(--data); background: var(--data); } .k-duplicate { fill: var(--duplicate); background: var(--duplicate); }
.k-parent { fill: var(--parent); background: var(--parent); } .k-zero { fill: var(--zero); background: var(--zero); }
.k-lost { fill: var(--lost); background: var(--lost); } dd.lost, td.lost { color: var(--bad); font-weight: 600; }
ul.places { margin: 0; padding-left: 20px; color: var(--soft); } ul.places li { padding: 2px 0; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 20px; margin-top: 10px; font-size: 13.5px; color: var(--soft); }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; vertical-align: -1px; }
.legend b { color: var(--text); font-weight: 600; font-variant-numeric: tabular-nums; }
.device + .device { border-top: 1px solid var(--line); margin-top: 22px; padding-top: 22px; }
.device-head { display: flex; flex-wrap: wrap; gap: 6px 12px; align-items: center; margin-bottom: 12px; }
.rings { display: flex; flex-wrap: wrap; gap: 12px; margin: 14px 0 4px; }
.ring { display: flex; gap: 12px; align-items: center; border: 1px solid var(--line); border-radius: 11px; padding: 9px 15px 9px 10px; font-size: 13px; color: var(--soft); }
.ring b { color: var(--text); display: block; font-size: 14px; font-weight: 600; }
.ring circle { fill: none; stroke: var(--track); stroke-width: 5; }
.ring path { fill: none; stroke: var(--accent); stroke-width: 5; stroke-linecap: round; }
.ring .dot { fill: var(--card); stroke: var(--accent); stroke-width: 2.5; }
.chips { display: flex; flex-wrap: wrap; gap: 5px; }
.chips code { background: var(--code); border: 1px solid var(--line); border-radius: 6px; padding: 1px 7px; font-size: 12px; color: var(--soft); }
details.tree { border-top: 1px solid var(--line); padding: 9px 0; }
details.tree:first-of-type { border-top: 0; }
.tree { font-size: 13.5px; } .tree summary { cursor: pointer; overflow-wrap: anywhere; padding: 1px 0; border-radius: 4px; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.tree summary::marker { color: var(--faint); }
.tree .inside { margin: 2px 0 2px 6px; padding-left: 15px; border-left: 1px solid var(--line); }
.tree .leaf { padding: 1px 0 1px 15px; overflow-wrap: anywhere; }
.tree .value { font-family: ui-monospace, Menlo, "DejaVu Sans Mono", monospace; font-size: 12.5px; color: var(--accent); }
.tree .note { color: var(--faint); }
table { width: 100%; border-collapse: collapse; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; padding: 0 14px 7px 0; border-bottom: 1px solid var(--line); }
td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; vertical-align: top; } tr:last-child td { border-bottom: 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td .bar { height: 7px; border-radius: 4px; background: var(--accent); min-width: 2px; }
footer { color: var(--faint); font-size: 13px; margin-top: 26px; overflow-wrap: anywhere; }
@media (max-width: 640px) { main { padding: 24px 14px 48px; } .two { grid-template-columns: 1fr; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 9px; } .card { padding: 18px 16px; } ul.checks { grid-template-columns: 16px 1fr; } ul.checks span { grid-column: 2; } }
@media print { body { background: none; } .card, .figure { box-shadow: none; break-inside: avoid; } }
`;
