// verify/report/style.hpp — the style sheet of the HTML report: light, dark and printed.
#pragma once

#include <string_view>

namespace dsa::verify {

// System fonts only: the page loads nothing.
inline constexpr std::string_view style_sheet = R"css(
:root {
  color-scheme: light dark;
  --bg: #f6f7f7; --panel: #ffffff; --ink: #1b2126; --soft: #5a656e; --faint: #8b959d;
  --line: #e1e5e8; --stripe: #f3f5f6;
  --pass: #14774a; --fail: #be2f28; --open: #8f6400;
  --pass-bg: #e8f4ee; --fail-bg: #fbeae8; --open-bg: #faf1dc;
  --data: #2a6cb0; --limit: #be2f28; --above: #be2f2810;
  --series1: #b4560b; --series2: #2b8a6b; --series3: #8a4fa3; --series4: #a3872a; --series5: #5a656e;
  --heat0: #e3e8ec; --heat1: #fbd7a1; --heat2: #f0a052; --heat3: #d1622a; --heat4: #8a2410;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #12161a; --panel: #191e23; --ink: #e3e8ec; --soft: #a0abb4; --faint: #76828c;
    --line: #2b333a; --stripe: #1f252b;
    --pass: #4cc48a; --fail: #f4776c; --open: #e0b04a;
    --pass-bg: #16301f; --fail-bg: #3a1d1b; --open-bg: #332a14;
    --series1: #f0a052; --series2: #57c9a2; --series3: #c493dc; --series4: #d8bd5c; --series5: #a0abb4;
    --data: #6aaef2; --limit: #f4776c; --above: #f4776c14;
    --heat0: #2a323a; --heat1: #634a22; --heat2: #a3691f; --heat3: #e08a3a; --heat4: #ffc48a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--bg); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 64px; }
h1, h2, h3, h4, p, dl, dd, figure { margin: 0; }
h2 { font-size: 21px; line-height: 1.3; font-weight: 650; letter-spacing: -.005em;
  overflow-wrap: anywhere; }
h3 { font-size: 17px; line-height: 1.35; font-weight: 650; overflow-wrap: anywhere; }
h4 { font-size: 15px; font-weight: 650; }
code, .mono { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.small { font-size: 13px; }
a { color: var(--data); }

.verdict { background: var(--panel); border: 1px solid var(--line); border-left: 8px solid;
  border-radius: 8px; padding: 24px 28px; }
.verdict.pass { border-left-color: var(--pass); }
.verdict.fail { border-left-color: var(--fail); }
.verdict.inconclusive { border-left-color: var(--open); }
.verdict h1 { font-size: 44px; line-height: 1.1; font-weight: 700; letter-spacing: -.02em;
  margin: 2px 0 10px; }
.pass h1, .word.pass { color: var(--pass); }
.fail h1, .word.fail { color: var(--fail); }
.inconclusive h1, .word.inconclusive { color: var(--open); }
.eyebrow { color: var(--soft); font-size: 13px; }
.why { font-size: 18px; line-height: 1.45; max-width: 62em; overflow-wrap: anywhere; }
.advice { margin-top: 14px; padding: 10px 14px; border-radius: 6px; overflow-wrap: anywhere; }
.pass .advice { background: var(--pass-bg); }
.fail .advice { background: var(--fail-bg); }
.inconclusive .advice { background: var(--open-bg); }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin-top: 18px;
  font-size: 14px; }
.facts dt { color: var(--soft); }
.facts dd { overflow-wrap: anywhere; }

.golden { margin-top: 56px; }
.golden .verdict h1 { font-size: 32px; }
.judgement { margin-top: 30px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 1px;
  margin-top: 14px; background: var(--line); border: 1px solid var(--line); border-radius: 8px;
  overflow: hidden; }
.tiles div { background: var(--panel); padding: 12px 16px; }
.tiles dt { color: var(--soft); font-size: 13px; }
.tiles dd { font-size: 21px; line-height: 1.35; font-weight: 600; letter-spacing: -.01em; }
.tiles dd.bad { color: var(--fail); }
.tiles span { display: block; color: var(--soft); font-size: 12.5px; font-weight: 400;
  letter-spacing: 0; }

figure, .box { background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  margin-top: 16px; padding: 16px 18px 12px; }
figcaption p { color: var(--soft); font-size: 13px; max-width: 72em; overflow-wrap: anywhere; }
.picture { overflow-x: auto; margin-top: 8px; }
.picture svg { display: block; width: 100%; min-width: 720px; height: auto; }
.picture.narrow svg { min-width: 0; max-width: 620px; }
.picture.narrow svg text { font-size: 15px; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 0 24px; }
.panels h5 { margin: 10px 0 0; font-size: 13px; font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 20px; margin-top: 6px; color: var(--soft);
  font-size: 13px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 50%;
  margin-right: 7px; }
.legend i.square { border-radius: 2px; }
.legend i.turned { border-radius: 0; transform: rotate(45deg) scale(.8); }
.legend i.stroke { height: 0; width: 16px; border-radius: 0; border-top: 2px solid var(--limit);
  vertical-align: 4px; }
.legend i.good { background: var(--data); }
.legend i.series0 { background: var(--data); }
.legend i.series1 { background: var(--series1); }
.legend i.series2 { background: var(--series2); }
.legend i.series3 { background: var(--series3); }
.legend i.series4 { background: var(--series4); }
.legend i.series5 { background: var(--series5); }
.legend i.bad { background: var(--fail); }
.legend i.open { border: 1.5px solid var(--faint); }
.legend i.heat0 { background: var(--heat0); } .legend i.heat1 { background: var(--heat1); }
.legend i.heat2 { background: var(--heat2); } .legend i.heat3 { background: var(--heat3); }
.legend i.heat4 { background: var(--heat4); }
.matrix td { padding: 1px 10px 1px 0; }
.matrix th { padding-right: 10px; }
.matrix td[class^="heat"], .matrix td.none { min-width: 22px; padding: 0;
  border: 1px solid var(--panel); }
td.heat0 { background: var(--heat0); } td.heat1 { background: var(--heat1); }
td.heat2 { background: var(--heat2); } td.heat3 { background: var(--heat3); }
td.heat4 { background: var(--heat4); }
.matrix th { position: sticky; top: 0; }

svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .sup { font-size: 9px; }
svg .end { text-anchor: end; }
svg .mid { text-anchor: middle; }
svg .strong { fill: var(--ink); }
svg .title { font-size: 12.5px; }
svg .flag { fill: var(--fail); font-weight: 600; paint-order: stroke; stroke: var(--panel);
  stroke-width: 5px; stroke-linejoin: round; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--faint); stroke-width: 1; }
svg .border { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 2 3; }
svg .departure { stroke: var(--fail); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .limit { stroke: var(--limit); stroke-width: 1.5; fill: none; }
svg .above { fill: var(--above); stroke: none; }
svg .stripe { fill: var(--stripe); }
svg .series0 { fill: var(--data); stroke: var(--data); }
svg .series1 { fill: var(--series1); stroke: var(--series1); }
svg .series2 { fill: var(--series2); stroke: var(--series2); }
svg .series3 { fill: var(--series3); stroke: var(--series3); }
svg .series4 { fill: var(--series4); stroke: var(--series4); }
svg .series5 { fill: var(--series5); stroke: var(--series5); }
svg path.mean { fill: none; stroke-width: 2; }
svg line.mean { stroke-width: 2; }
svg circle.run { fill-opacity: .35; stroke-width: 0; }
svg .good { fill: var(--data); }
svg .bad { fill: var(--fail); }
svg .open { fill: var(--panel); stroke: var(--faint); stroke-width: 1.2; }
svg .cross { fill: none; stroke: var(--fail); stroke-width: 2; }
svg .cross.open { stroke: var(--faint); }
svg .heat0 { fill: var(--heat0); } svg .heat1 { fill: var(--heat1); }
svg .heat2 { fill: var(--heat2); } svg .heat3 { fill: var(--heat3); }
svg .heat4 { fill: var(--heat4); }

.scroll { overflow-x: auto; margin-top: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th { color: var(--soft); font-weight: 500; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--faint); padding: 5px 14px 5px 0; }
td { border-bottom: 1px solid var(--line); padding: 5px 14px 5px 0; vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
tr:last-child td { border-bottom: 0; }
td.name { font: 12.5px/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; min-width: 14em; }
td.name span { font: 13px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
td.mono { white-space: nowrap; }
td.num, th.num { text-align: right; white-space: nowrap; }
tr.first td { background: var(--fail-bg); }
.word { font-weight: 600; white-space: nowrap; }
details.box > summary { cursor: pointer; font-weight: 650; }
details.box[open] > summary { margin-bottom: 4px; }
.sources { margin: 12px 0 4px; padding: 0; list-style: none; font-size: 13px; color: var(--soft); }
.sources li { display: flex; gap: 10px; margin-top: 3px; }
.sources b { flex: none; min-width: 1.2em; color: var(--ink); font-weight: 600; }
.notes { margin: 6px 0 4px; padding-left: 18px; }

@media (max-width: 640px) {
  .facts { grid-template-columns: 1fr; }
  .facts dd { margin-bottom: 6px; }
  .verdict { padding: 18px; }
}
@media print {
  :root {
    color-scheme: light;
    --bg: #ffffff; --panel: #ffffff; --ink: #000000; --soft: #444c53; --faint: #7a848c;
    --line: #d5dade; --stripe: #f3f5f6;
    --pass: #14774a; --fail: #be2f28; --open: #8f6400;
    --pass-bg: #e8f4ee; --fail-bg: #fbeae8; --open-bg: #faf1dc;
    --data: #2a6cb0; --limit: #be2f28; --above: #be2f2810;
    --series1: #b4560b; --series2: #2b8a6b; --series3: #8a4fa3; --series4: #a3872a; --series5: #5a656e;
    --heat0: #e3e8ec; --heat1: #fbd7a1; --heat2: #f0a052; --heat3: #d1622a; --heat4: #8a2410;
  }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 11pt; }
  main { max-width: none; padding: 0; }
  .picture svg { min-width: 0; }
  figure, .verdict, tr { break-inside: avoid; }
  h2, h3, summary { break-after: avoid; }
}
)css";

}  // namespace dsa::verify
