#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What bench/run measured, as a table on the terminal, as JSON, as Markdown and as a chart.

    bench/report.py BENCH.json [DOC.md]     print the Markdown table, or put it into DOC.md between its two marks and
                                            write the chart (guest-ENGINE.svg) beside it
"""
import html
import json
import math
import os
import platform
import re
import statistics
import sys


def geometric_mean(values):
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def spread(samples):
    """How far the samples are apart, as a share of their median."""
    return (max(samples) - min(samples)) / statistics.median(samples) if len(samples) > 1 else None


def guest_row(name, about, native_goal, samples):
    """One row of the guest's table from {side: samples}; what was not measured is None, never a guess."""
    row = {"name": name, "what": about.what, "unit": "s", "goal": about.goal, "stretch": about.stretch,
           "native_goal": native_goal, "samples": samples}
    for side in ("lodge", "tcg", "native"):
        row[side] = statistics.median(samples[side]) if samples.get(side) else None
    row["ahead_of_tcg"] = row["tcg"] / row["lodge"] if row["tcg"] and row["lodge"] else None
    row["behind_native"] = row["lodge"] / row["native"] if row["native"] and row["lodge"] else None
    row["spread"] = max(filter(None, map(spread, samples.values())), default=None)
    return row


def guest_summary(rows):
    ahead = [r["ahead_of_tcg"] for r in rows if r["ahead_of_tcg"] and r["goal"]]
    by = {r["name"]: r for r in rows}
    one, two = by.get("make-1", {}), by.get("make-2", {})
    gain = {s: one[s] / two[s] for s in ("lodge", "tcg", "native") if one.get(s) and two.get(s)}
    return {"geometric_mean_ahead_of_tcg": geometric_mean(ahead), "rows_in_mean": len(ahead), "gain_of_second_cpu": gain}


def event_costs(rows, texts, counts):
    """Microseconds of a single event, out of the rows that are about such events."""
    by, costs = {r["name"]: r for r in rows}, []
    for name, text in texts.items():
        if name in by and counts.get(name):
            cost = {side: 1e6 * by[name][side] / counts[name] if by[name][side] else None for side in ("lodge", "tcg", "native")}
            costs.append({"row": name, "what": text, "events": counts[name], "unit": "us", **cost})
    return costs


def code_size(counters):
    """Translated bytes per guest byte, if the engine counts them."""
    by = {c["name"]: c["value"] for c in counters}
    guest, host = by.get("guest bytes"), by.get("host bytes")
    return (host + by.get("cold bytes", 0)) / guest if guest and host else None


def number(v, suffix=""):
    return "-" if v is None else f"{v:.3g}{suffix}" if v < 100 else f"{v:.0f}{suffix}"


def print_guest(g):
    s, goals = g["summary"], g["goals"]
    print(f"\n  {'guest work (s)':<46} {'Lodge':>8} {'QEMU TCG':>8} {'native':>8} {'x TCG':>7} {'goal':>5} {'stretch':>7} "
          f"{'/native':>8} {'goal':>5}")
    for r in g["rows"]:
        print(f"  {r['what']:<46} {number(r['lodge']):>8} {number(r['tcg']):>8} {number(r['native']):>8} "
              f"{number(r['ahead_of_tcg']):>7} {number(r['goal']):>5} {number(r['stretch']):>7} "
              f"{number(r['behind_native']):>8} {number(r['native_goal']):>5}")
    print(f"  {'geometric mean of the rows with a goal':<46} {'':>26} {number(s['geometric_mean_ahead_of_tcg']):>7} "
          f"{goals['mean']:>5} {goals['mean_stretch']:>7}")
    for side, gain in s["gain_of_second_cpu"].items():
        print(f"  a second CPU makes the parallel make {gain:.2f} times as fast ({side}); goal {goals['second_cpu']}")
    if g["events"]:
        print(f"\n  {'cost of one event (us)':<76} {'Lodge':>8} {'QEMU TCG':>8} {'native':>8}")
    for e in g["events"]:
        print(f"  {e['what']:<76} {number(e['lodge']):>8} {number(e['tcg']):>8} {number(e['native']):>8}")
    if g["counters"]:
        print("\n  what the engine counted in the last round's boot with most rows")
    for c in g["counters"]:
        if c["value"]:
            print(f"  {c['name']:<20} {c['value']:>16} {c['text']}")
    if code_size(g["counters"]):
        print(f"  bytes of translated code per byte of the guest's: {code_size(g['counters']):.2f}")


def machine():
    cpu = next((x.split(":", 1)[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")), "?")
    memory = int(re.search(r"MemTotal:\s+(\d+)", open("/proc/meminfo").read())[1]) >> 20
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": memory, "kernel": platform.release()}


class Noise:
    """What else went on: the load when the run began and ended, and the time the hypervisor below took away."""

    def __init__(self):
        self.load, self.stat = os.getloadavg()[0], self.ticks()

    @staticmethod
    def ticks():
        f = list(map(int, open("/proc/stat").readline().split()[1:]))
        return sum(f[:8]), f[7]

    def so_far(self):
        total, stolen = (b - a for a, b in zip(self.stat, self.ticks()))
        return {"load_at_start": self.load, "load_at_end": os.getloadavg()[0], "stolen": stolen / total if total else 0}


def measure(bench):
    """What go() of it gives; its machines are ended in any case."""
    try:
        return bench.go()
    finally:
        bench.close()


# ---- Markdown ----


def host_and_load(doc):
    m, n = doc["machine"], doc["noise"]
    return (f"Host: {m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, Linux {m['kernel']}; load "
            f"{n['load_at_start']:.1f} when the run began and {n['load_at_end']:.1f} when it ended")


def markdown(doc):
    g, n = doc["guest"], doc["noise"]
    of = f"medians of {g['rounds']}" if g["rounds"] > 1 else "one"
    lines = [
        f"Engine `{g['engine']}`, {of} round{'s' if g['rounds'] > 1 else ''}, size {g['scale']}"
        f"{' (`--quick`: small sizes, one round)' if g.get('quick') else ''}, {doc['date']}, Lodge {doc['version']}, "
        f"{doc.get('tcg_version', 'QEMU')}. {host_and_load(doc)}, "
        f"{100 * n['stolen']:.0f} % of the processor time stolen by what is below. Guest: 1 CPU (but where 2 are named), "
        f"{g['memory_mib']} MiB.",
        "",
        "| guest work | Lodge | QEMU TCG | native | ahead of TCG | goal | stretch | of native | goal | spread |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for r in g["rows"]:
        lines.append("| " + " | ".join([
            r["what"], number(r["lodge"], " s"), number(r["tcg"], " s"), number(r["native"], " s"),
            number(r["ahead_of_tcg"], " ×"), number(r["goal"], " ×"), number(r["stretch"], " ×"),
            number(r["behind_native"], " ×"), number(r["native_goal"], " ×"),
            "-" if r["spread"] is None else f"{100 * r['spread']:.0f} %"]) + " |")
    s = g["summary"]
    goals = g["goals"]
    lines += [f"| geometric mean of the rows with a goal | | | | {number(s['geometric_mean_ahead_of_tcg'], ' ×')} "
              f"| {goals['mean']} × | {goals['mean_stretch']} × | | | |", ""]
    if s["gain_of_second_cpu"]:
        gains = ", ".join(f"{v:.2f} × ({k})" for k, v in s["gain_of_second_cpu"].items())
        lines += [f"A second CPU makes the parallel make faster by: {gains}; the goal is {goals['second_cpu']} ×.", ""]
    lines += markdown_events(g["events"]) + markdown_counters(g["counters"])
    for side, errors in g["errors"].items():
        lines += [f"Failed or differed ({side}): {', '.join(sorted({e.split(':')[0] for e in errors}))}.", ""]
    return "\n".join(lines)


def markdown_events(events):
    lines = ["| cost of one event, in µs | Lodge | QEMU TCG | native |", "|---|--:|--:|--:|"] if events else []
    lines += [f"| {e['what']} | {number(e['lodge'])} | {number(e['tcg'])} | {number(e['native'])} |" for e in events]
    return lines + [""]


def markdown_counters(counters):
    if not counters:
        return []
    lines = ["What the engine counted in the last round's boot with most rows, as `lodge boot --stats` names it (what is 0 is "
             "left out):", "", "| counter | value | |", "|---|--:|---|"]
    lines += [f"| {c['name']} | {c['value']} | {c['text'].replace('|', '/')} |" for c in counters if c["value"]]
    if code_size(counters):
        lines += ["", f"Bytes of translated code per byte of the guest's: {code_size(counters):.2f}."]
    return lines + [""]


# ---- the chart ----


def chart(rows, title, width=860):
    """Bars of how many times as fast as TCG, on a logarithmic scale that starts at 1, as SVG."""
    rows = [r for r in rows if r["ahead_of_tcg"]]
    left, right, step, top = 300, 70, 22, 72
    values = [v for r in rows for v in (r["ahead_of_tcg"], r["goal"], r["stretch"]) if v]
    low, high = min([0.5, *values]), max([2.0, *values])

    def x(v):
        return left + (width - left - right) * math.log(v / low) / math.log(high / low)

    zero = x(1)
    height = top + step * len(rows) + 34
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
           f'<text x="12" y="22" font-size="15" font-weight="bold">{html.escape(title)}</text>',
           '<text x="12" y="40" fill="#555" font-size="11">times as fast as QEMU TCG (logarithmic); ticks: goal (black) and '
           'stretch goal (grey)</text>',
           '<text x="12" y="56" fill="#555" font-size="11">green: the goal is reached; blue: ahead of TCG; red: behind; grey: no goal</text>']
    for v in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        if low <= v <= high:
            out.append(f'<line x1="{x(v):.1f}" x2="{x(v):.1f}" y1="{top - 6}" y2="{height - 28}" '
                       f'stroke="{"#444" if v == 1 else "#ddd"}"/>'
                       f'<text x="{x(v):.1f}" y="{height - 12}" text-anchor="middle" fill="#555">{v:g}</text>')
    for i, r in enumerate(rows):
        y, v = top + i * step, r["ahead_of_tcg"]
        a, b = sorted((zero, x(v)))
        colour = "#999999" if not r["goal"] else "#2e7d32" if v >= r["goal"] else "#1565c0" if v >= 1 else "#c62828"
        out.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{html.escape(r["what"])}</text>'
                   f'<rect x="{a:.1f}" y="{y + 1}" width="{max(b - a, 1):.1f}" height="{step - 8}" fill="{colour}"/>'
                   f'<text x="{width - right + 8}" y="{y + 12}">{number(v)} ×</text>')
        for mark, ink in ((r["goal"], "#000"), (r["stretch"], "#888")):
            if mark:
                out.append(f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{y - 2}" y2="{y + step - 4}" '
                           f'stroke="{ink}" stroke-width="2"/>')
    return "\n".join(out + ["</svg>"]) + "\n"


def write_chart(doc, path):
    g = doc["guest"]
    with open(path, "w") as f:
        f.write(chart(g["rows"], f"Debian 12 guest, engine {g['engine']}" + (", quick run" if g.get("quick") else "")))


def between_marks(path, name, text):
    """Replace what a document has between the marks of that name."""
    begin, end = f"<!-- bench/report.py: {name} -->", f"<!-- end: {name} -->"
    whole = open(path).read()
    if begin not in whole or end not in whole:
        sys.exit(f"report.py: {path} has no marks {begin} and {end}")
    head, rest = whole.split(begin, 1)
    tail = rest.split(end, 1)[1]
    with open(path, "w") as f:
        f.write(f"{head}{begin}\n{text}{end}{tail}")


def update_document(doc, path):
    """Replace what is between the marks of this engine."""
    engine = doc["guest"]["engine"]
    svg = f"guest-{engine}.svg"
    between_marks(path, engine, f"{markdown(doc)}\n![Times as fast as QEMU TCG]({svg})\n")
    write_chart(doc, os.path.join(os.path.dirname(path), svg))


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__.strip())
    with open(sys.argv[1]) as f:
        doc = json.load(f)
    if "guest" not in doc:
        sys.exit(f"report.py: {sys.argv[1]} has no guest rows; run bench/run without --only, or with --only guest")
    if len(sys.argv) == 3:
        update_document(doc, sys.argv[2])
    else:
        print(markdown(doc))


if __name__ == "__main__":
    main()
