# SPDX-License-Identifier: Apache-2.0
"""The picture of bench/attainment.py: share of budgets met against mean depth, fathom's own choice beside every fixed depth, a
panel for each result. An SVG for light and dark pages."""
import html
import json

STYLE = """
svg { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
text { fill: #4d5b67; } .name { fill: #16212b; } .title { fill: #16212b; font-weight: 650; font-size: 15px; }
.ours { fill: #0a6f92; font-weight: 650; } .dot { fill: #0a6f92; } .fixed { fill: #5d6f7e; } .line { stroke: #5d6f7e; fill: none; stroke-width: 1.5; }
.grid { stroke: #dde4ea; } .guide { stroke: #0a6f92; stroke-width: 1.5; stroke-dasharray: 2 4; stroke-linecap: round; }
.ring { fill: none; stroke: #0a6f92; stroke-width: 1.75; } .small { font-size: 12px; }
@media (prefers-color-scheme: dark) {
text { fill: #a9b7c2; } .name, .title { fill: #e6edf2; } .ours { fill: #4cb8dc; } .dot { fill: #4cb8dc; } .fixed { fill: #93a5b3; }
.line { stroke: #93a5b3; } .grid { stroke: #2a3843; } .guide, .ring { stroke: #4cb8dc; }
}
"""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 400, 58, 24, 84, 70


def escape(text):
    return html.escape(str(text), quote=True)


def percent(share, digits=0):
    return f"{100 * share:.{digits}f} %"


class Panel:
    def __init__(self, result, part, left):
        self.result, self.part, self.out = result, part, []
        self.x0, self.x1, self.y0, self.y1 = left + LEFT, left + WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
        self.fixed = sorted(part["fixed"], key=lambda f: f["depth"])
        depths = [f["depth"] for f in self.fixed]
        self.low, self.high = min(depths), max(depths)
        room = 0.06 * (self.high - self.low or 1)
        self.low, self.high = self.low - room, self.high + room
        least = min(f["share"] for f in self.fixed + [part["auto"]])
        self.floor = next((f for f in (0.9, 0.8, 0.5) if least >= f), 0.0)

    def x(self, depth):
        return self.x0 + (depth - self.low) / (self.high - self.low) * (self.x1 - self.x0)

    def y(self, share):
        return self.y1 - (share - self.floor) / (1 - self.floor) * (self.y1 - self.y0)

    def text(self, x, y, text, classes="", anchor="start"):
        self.out.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}" text-anchor="{anchor}">{escape(text)}</text>')

    def line(self, x0, y0, x1, y1, classes):
        self.out.append(f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="{classes}"/>')

    def dot(self, depth, share, radius, classes):
        self.out.append(f'<circle cx="{self.x(depth):.1f}" cy="{self.y(share):.1f}" r="{radius}" class="{classes}"/>')

    def frame(self):
        r, part = self.result, self.part
        lengths = "natural ends" if r["natural"] else "fixed lengths"
        self.text(self.x0 - 44, 18, f"{r['model']}, {percent(part['load'])} load in bursts, {lengths}", "title")
        self.text(self.x0 - 44, 46, "budgets met", "small")
        for i in range(6):
            share = self.floor + i * (1 - self.floor) / 5
            self.line(self.x0, self.y(share), self.x1, self.y(share), "grid")
            self.text(self.x0 - 9, self.y(share) + 4, percent(share), "small", "end")
        self.text(self.x1, self.y1 + 40, "mean depth, layers" + (" of both stacks" if isinstance(r["layers"], dict) else ""), "small", "end")

    def fixed_depths(self):
        points = " ".join(f"{self.x(f['depth']):.1f},{self.y(f['share']):.1f}" for f in self.fixed)
        self.out.append(f'<polyline points="{points}" class="line"/>')
        last = -99
        for f in self.fixed:
            self.dot(f["depth"], f["share"], 4, "fixed")
            if self.x(f["depth"]) - last > 26:
                last = self.x(f["depth"])
                self.text(last, self.y1 + 19, f["name"], "small", "middle")
        middle = self.fixed[2 * len(self.fixed) // 3]
        beside = self.y(middle["share"]) + (20 if middle["share"] > self.floor + 0.3 * (1 - self.floor) else -12)
        self.text(self.x(middle["depth"]) - 10, beside, "each depth, fixed", "name small", "end")

    def ours(self):
        auto, versus = self.part["auto"], self.part["against_fixed"]
        x, y = self.x(auto["depth"]), self.y(auto["share"])
        below = self.y(1 - versus["fixed_missed_share"])
        if below - y > 14:
            self.line(x, y + 9, x, below, "guide")
            self.text(x + 7, (y + below) / 2 + 4, f"{versus['times_fewer_misses']:.1f} x fewer missed", "small")
        equal = versus["fixed_depth_at_equal_share"]
        if equal is not None and x - self.x(equal) > 14:
            self.line(self.x(equal), y, x - 9, y, "guide")
        oracle = self.part.get("simulated", {}).get("clairvoyant")
        if oracle and self.low < oracle["depth"] < self.high:
            self.dot(oracle["depth"], oracle["share"], 6, "ring")
        self.dot(auto["depth"], auto["share"], 6.5, "dot")
        self.text(self.x1, self.y0 - 16, f"fathom: {percent(auto['share'], 1)} at {auto['depth']:.1f} layers", "ours", "end")

    def draw(self):
        self.frame()
        self.fixed_depths()
        self.ours()
        return "\n".join(self.out)


def write(paths, load, svg):
    panels, told, ringed = [], [], False
    for path in paths:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
        part = min(result["loads"], key=lambda p: abs(p["load"] - load))
        panels.append(Panel(result, part, WIDTH * len(panels)).draw())
        told.append(f"{result['model']}: fathom met {part['auto']['share']:.1%} of the budgets at a mean depth of {part['auto']['depth']:.1f}; "
                    + ", ".join(f"depth {f['name']} {f['share']:.1%}" for f in part["fixed"]))
        ringed = ringed or "clairvoyant" in part.get("simulated", {})
    width = WIDTH * len(panels)
    note = '<text x="14" y="%d" class="small">Ring: a scheduler that knows the whole trace, simulated.</text>' % (HEIGHT - 8) if ringed else ""
    with open(svg, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" role="img" '
                   f'aria-label="{escape(". ".join(told))}">\n<!-- Made by bench/attainment.py picture. -->\n<style>{STYLE}</style>\n'
                   + "\n".join(panels) + f"\n{note}\n</svg>\n")
