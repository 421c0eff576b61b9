# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draws ratios as an SVG: horizontal bars on a logarithmic scale, with a line
at 1.0, where both sides are equal.  No library beyond Python's own."""
import math
from xml.sax.saxutils import escape

BAR, GAP, LEFT, WIDTH, TOP = 11, 12, 340, 620, 62
COLOURS = {'cpu': '#31688e', 'wall': '#35b779', 'latency': '#e3962c'}
NAMES = {'cpu': 'work per server CPU second', 'wall': 'speed (IOPS, or 1/time)',
         'latency': '1/median latency'}


def ticks(low, high):
    """1, 2 and 5 times the powers of ten between the bounds."""
    out = []
    for exp in range(math.floor(math.log10(low)), math.ceil(math.log10(high))
                     + 1):
        out += [m * 10 ** exp for m in (1, 2, 5)]
    return [t for t in out if low <= t <= high]


def svg(title, groups):
    """groups: [(row name, [(label of the other side, metric, ratio)])]."""
    values = [r for _, bars in groups for _, _, r in bars]
    low = min([0.5] + [v * 0.9 for v in values])
    high = max([2.0] + [v * 1.1 for v in values])
    span = math.log(high / low)

    def x(v):
        return LEFT + WIDTH * math.log(v / low) / span

    out, y = [], TOP
    for name, bars in groups:
        out.append(f'<text x="{LEFT - 110}" y="{y + 9}" text-anchor="end" '
                   f'font-weight="bold">{escape(name)}</text>')
        for label, metric, ratio in bars:
            a, b = sorted((x(1.0), x(ratio)))
            out.append(f'<text x="{LEFT - 8}" y="{y + 9}" text-anchor="end" '
                       f'fill="#555">{escape(label)}</text>')
            out.append(f'<rect x="{a:.1f}" y="{y}" width="{b - a:.1f}" '
                       f'height="{BAR - 2}" fill="{COLOURS[metric]}"/>')
            out.append(f'<text x="{max(b, x(1.0)) + 4:.1f}" y="{y + 9}">'
                       f'{ratio:.2f}</text>')
            y += BAR
        y += GAP
    grid = []
    for t in ticks(low, high):
        colour, width = ('#c00', 2) if t == 1 else ('#ddd', 1)
        grid.append(f'<line x1="{x(t):.1f}" y1="{TOP - 6}" x2="{x(t):.1f}" '
                    f'y2="{y}" stroke="{colour}" stroke-width="{width}"/>')
        grid.append(f'<text x="{x(t):.1f}" y="{y + 14}" text-anchor="middle">'
                    f'{t:g}</text>')
    key = []
    for i, (metric, name) in enumerate(NAMES.items()):
        key.append(f'<rect x="{LEFT + i * 210}" y="32" width="12" height="10" '
                   f'fill="{COLOURS[metric]}"/>')
        key.append(f'<text x="{LEFT + i * 210 + 16}" y="41">{name}</text>')
    return '\n'.join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 60}" '
        f'height="{y + 26}" font-family="sans-serif" font-size="10">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">{escape(title)}</text>',
        *grid, *key, *out, '</svg>', ''])
