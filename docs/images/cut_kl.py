#!/usr/bin/env python3
"""Cuts the picture of KL by position out of an HTML report: cut_kl.py REPORT.html OUT.svg

    build/bin/dsa-verify golden data/samples/v32/checkpoint data/samples/v32/logits.safetensors \
        --candidate data/broken/v32-rope-interleaved.safetensors --html report.html
    python docs/images/cut_kl.py report.html docs/images/kl-by-position.svg
"""
import re
import sys

STYLE = """<style>
text { fill: #5a656e; font: 12px sans-serif; } .sup { font-size: 9px; }
.end { text-anchor: end; } .mid { text-anchor: middle; } .strong { fill: #1b2126; }
.grid { stroke: #e1e5e8; } .axis { stroke: #8b959d; } .border { stroke: #8b959d; stroke-dasharray: 2 3; }
.limit { stroke: #be2f28; stroke-width: 1.5; fill: none; } .above { fill: #be2f2810; stroke: none; }
.good { fill: #2a6cb0; } .bad { fill: #be2f28; } .open { fill: #ffffff; stroke: #8b959d; }
</style>"""
LEGEND = """<circle cx="430" cy="{y}" r="4" class="good"/><text x="440" y="{t}">row within its limit</text>
<circle cx="600" cy="{y}" r="4" class="bad"/><text x="610" y="{t}">row above its limit</text>
<line x1="770" y1="{y}" x2="790" y2="{y}" class="limit"/><text x="797" y="{t}">limit of the row</text>
<text x="76" y="{t}" class="strong">KL of every row of logits, in nats</text>"""


def main(report, out):
    with open(report, encoding="utf-8") as file:
        html = file.read()
    svg = re.search(r'<svg viewBox="0 0 1000 (\d+)"[^>]*KL[^>]*>(.*?)</svg>', html, re.S)
    if not svg:
        sys.exit(f"{report} has no picture of KL by position")
    height, body = int(svg[1]), re.sub(r"<title>.*?</title>", "", svg[2])
    with open(out, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -30 1000 {height + 30}" role="img">\n{STYLE}\n'
                   f'<rect x="0" y="-30" width="1000" height="{height + 30}" fill="#ffffff"/>\n'
                   f'{LEGEND.format(y=-14, t=-10)}\n{body.strip()}\n</svg>\n')


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
