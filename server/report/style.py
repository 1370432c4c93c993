"""The style sheet of the results page. In Python because the app bundle carries no `.css`.

Colours: a blue, an orange and a grey that stay apart with every common colour blindness; cohorts also
differ in marker and dash, verdicts also in sign and word.
"""

CSS = """
:root{color-scheme:light dark;
--paper:#fff;--ink:#1a1f26;--soft:#59636e;--line:#e2e5e9;--wash:#f5f7f9;
--federated:#0b61a4;--local:#c05a00;--pooled:#737c87;--alarm:#a3262a;--good:#0b61a4}
@media (prefers-color-scheme:dark){:root{
--paper:#14181d;--ink:#e4e8ec;--soft:#9aa5b1;--line:#2b323a;--wash:#1b2127;
--federated:#63b0ee;--local:#f39c4a;--pooled:#a4adb7;--alarm:#ff8a80;--good:#63b0ee}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main,header,footer{max-width:1080px;margin:0 auto;padding:0 24px}
header{padding-top:44px}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:0 0 4px;letter-spacing:-.005em}
h3{font-size:.95rem;margin:22px 0 4px}
p{margin:6px 0;max-width:74ch}
.soft,.caption,.note{color:var(--soft)}
.note{font-size:.875rem}
a{color:var(--federated)}
section{padding:30px 0 12px;border-top:1px solid var(--line);margin-top:26px}
nav{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:.875rem;margin-top:20px}
nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
.lead{font-size:1.125rem;line-height:1.55;margin:18px 0 0;max-width:68ch}
.status{display:inline-block;font-size:.8rem;font-weight:600;border:1px solid currentColor;border-radius:99px;
padding:1px 10px;vertical-align:middle;color:var(--soft);white-space:nowrap}
.status.completed{color:var(--good)}.status.failed{color:var(--alarm)}
.alert{border-left:3px solid var(--local);background:var(--wash);padding:10px 16px;margin:18px 0;
max-width:80ch}
.alert.failed{border-color:var(--alarm)}
.alert pre{margin:8px 0 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:1px;margin:26px 0 0;
padding:0;border:1px solid var(--line);border-radius:8px;overflow:hidden}
.tiles div{box-shadow:0 0 0 1px var(--line);padding:12px 16px}
.tiles dt{font-size:.8rem;color:var(--soft)}
.tiles dd{margin:0;font-size:1.35rem;font-weight:600;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.tiles small{display:block;font-size:.8rem;font-weight:400;color:var(--soft);letter-spacing:0}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;font-size:.875rem;margin:8px 0 2px;padding:0;list-style:none}
.legend li{display:flex;align-items:center;gap:6px}
.legend svg{width:24px;height:14px;flex:none}
.grid2{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:20px 32px;margin-top:12px}
.grid-main{display:grid;grid-template-columns:minmax(0,3fr) minmax(0,2fr);gap:20px 32px;margin-top:12px}
.grid-main figure+figure{margin-top:16px}
.small{display:grid;grid-template-columns:repeat(auto-fill,minmax(220px,1fr));gap:18px 22px;margin-top:8px}
figure{margin:0;min-width:0}
figcaption{font-size:.9rem;font-weight:600}
figcaption small{font-weight:400;color:var(--soft)}
.chart{display:block;width:100%;height:auto;margin-top:4px}
.scroll{overflow-x:auto;margin:10px 0}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;width:100%}
.caption{font-size:.875rem;margin:12px 0 -4px}
th,td{padding:5px 14px 5px 0;text-align:left;vertical-align:middle;border-bottom:1px solid var(--line)}
th:last-child,td:last-child{padding-right:0}
thead th{font-weight:500;color:var(--soft);vertical-align:bottom;font-size:.8125rem}
tbody th{font-weight:500;white-space:nowrap}
tr.total th,tr.total td{font-weight:600;border-bottom:1px solid var(--soft)}
.num{text-align:right;white-space:nowrap}
th.wide{white-space:normal}
.ci{color:var(--soft);font-weight:400;white-space:nowrap}
.why{color:var(--soft);font-size:.8125rem;white-space:normal}
.gained{color:var(--federated)}.lost{color:var(--local)}
.verdict{white-space:nowrap}
td.gained.cell{background:color-mix(in srgb,var(--federated) 13%,transparent);font-weight:600}
td.lost.cell{background:color-mix(in srgb,var(--local) 15%,transparent);font-weight:600}
td.cell,th.cell{padding:5px 8px;text-align:right;white-space:nowrap}
details{margin:10px 0}
summary{cursor:pointer;color:var(--federated);font-size:.875rem;width:fit-content}
pre,code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--wash);border:1px solid var(--line);border-radius:8px;padding:12px 16px;overflow-x:auto;
white-space:pre-wrap;overflow-wrap:anywhere;margin:10px 0}
svg{overflow:visible}
.grid{stroke:var(--line);stroke-width:1}
.axis{stroke:var(--soft);stroke-width:1}
.phase,.rule{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}
.tick{fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}
.label{font-size:12.5px;font-weight:600}
.label.federated{fill:var(--federated)}.label.local{fill:var(--local)}.label.pooled{fill:var(--pooled)}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.line.faint{stroke-width:1;opacity:.38}
.line.local{stroke-dasharray:5 3}.line.pooled{stroke-dasharray:1.5 3.5}
.line.site{stroke:var(--pooled)}.line.site.faint{opacity:.55}
.line.earlier.faint{stroke:var(--federated);stroke-width:1.4;stroke-dasharray:1 3;opacity:.9}
.line.federated,.whisker.federated{stroke:var(--federated)}
.line.local,.whisker.local{stroke:var(--local)}
.line.pooled,.whisker.pooled{stroke:var(--pooled)}
.whisker{stroke-width:2;stroke-linecap:round}
.whisker.soft{stroke-width:1.5;stroke-dasharray:1 3.5}
.band{stroke:none;opacity:.14}
.band.federated,.dot.federated{fill:var(--federated)}
.band.local,.dot.local{fill:var(--local)}
.band.pooled{fill:var(--pooled)}
.dot.pooled{fill:var(--paper);stroke:var(--pooled);stroke-width:1.6}
.line.up{stroke:var(--ink)}.line.down{stroke:var(--pooled);stroke-dasharray:5 3}
.dot.up,.label.up{fill:var(--ink)}.dot.down,.label.down{fill:var(--pooled)}
.intervals{display:block}
footer{color:var(--soft);font-size:.8125rem;padding-top:20px;padding-bottom:48px}
@media screen and (max-width:760px){main,header,footer{padding-left:16px;padding-right:16px}
header{padding-top:24px}
.grid2,.grid-main{grid-template-columns:minmax(0,1fr)}
.lead{font-size:1.05rem}.tiles dd{font-size:1.15rem}.tiles div{padding:10px 12px}
.pin th:first-child{position:sticky;left:0;background:var(--paper);z-index:1}}
@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--line:#ccc;--wash:#fff;
--federated:#0b61a4;--local:#c05a00;--pooled:#666;--alarm:#a3262a;--good:#0b61a4}
body{font-size:11px}table,thead th,.caption,.note,.legend,figcaption,.why{font-size:10px}
.scroll{margin:4px 0}.caption{break-inside:avoid}h3+.note{break-after:avoid}
.legend{break-after:avoid}.tiles{grid-template-columns:repeat(6,1fr)}
.tiles dd{font-size:15px}.tiles div{padding:6px 8px}
.small{grid-template-columns:repeat(4,1fr)}nav,summary{display:none}section{break-inside:auto}
h2,h3,.caption{break-after:avoid}figure,tr{break-inside:avoid}.scroll{overflow:visible}
main,header,footer{max-width:none;padding:0}}
"""
