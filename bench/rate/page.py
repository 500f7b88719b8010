"""Tables and figure of the comparison of `learning_rate: auto` with sweeps, from runs.csv alone."""

import csv
import math
import pathlib
import statistics
from collections import defaultdict

ARMS = ("loram", "lora", "pissa")


def read(path):
    """Mean loss by group, arm, kind and rate: {(model, task, r, steps): {(arm, kind): {rate: [loss by seed]}}}, and rows."""
    rows = list(csv.DictReader(pathlib.Path(path).open()))
    out = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for r in rows:
        place = (r["model"], r["task"], int(r["r"]), int(r["steps"]))
        # seeds of `auto` have rates of their own
        rate = "auto" if r["kind"] == "auto" else float(r["learning_rate"])
        out[place][r["arm"], r["kind"]][rate].append(float(r["loss"]))
    return out, rows


def verdicts(groups, rows):
    """One entry for each group and arm: losses of auto and of the oracle, and the share of the oracle's gain that auto misses."""
    before = defaultdict(list)
    for r in rows:
        if r["before"]:
            before[r["model"], r["task"], int(r["r"]), int(r["steps"])].append(float(r["before"]))
    out = []
    for place, kinds in sorted(groups.items()):
        start = statistics.fmean(before[place])
        for arm in ARMS:
            sweep = kinds.get((arm, "sweep"))
            auto = kinds.get((arm, "auto"))
            if not sweep or not auto:
                continue
            means = {rate: statistics.fmean(losses) for rate, losses in sweep.items()}
            best = min(means, key=means.get)
            found = statistics.fmean(auto["auto"])
            gain = start - means[best]
            own = [float(r["learning_rate"]) for r in rows
                   if (r["model"], r["task"], int(r["r"]), int(r["steps"])) == place and (r["arm"], r["kind"]) == (arm, "auto")]  # fmt: skip
            out.append({
                "place": place, "arm": arm, "start": start, "oracle": means[best], "oracle_rate": best, "auto": found,
                "auto_rate": math.exp(statistics.fmean(map(math.log, own))), "missed": (found - means[best]) / gain,
                "curve": means,
            })  # fmt: skip
    return out


def fixed(groups, found):
    """Share of the gain of `lora`'s oracle that each fixed rate misses, by group."""
    oracle = {v["place"]: v for v in found if v["arm"] == "lora"}
    out = defaultdict(dict)
    for place, kinds in groups.items():
        for (_, kind), rates in kinds.items():
            if kind not in ("auto", "sweep") and place in oracle:
                loss = statistics.fmean(next(iter(rates.values())))
                v = oracle[place]
                out[kind][place] = (loss - v["oracle"]) / (v["start"] - v["oracle"])
    return out


def percent(x):
    return "diverged" if math.isinf(x) else f"{100 * x:.1f} %".replace("-", "−")


def markdown(found, others, rows):
    out = ["# `learning_rate: auto` against the best rate of a sweep", ""]
    out += ["*Written by `bench/rate/rate.py` from [runs.csv](runs.csv), whatever the figures say.*", ""]
    missed = [v["missed"] for v in found]
    finite = [x for x in missed if math.isfinite(x)]
    groups = {v["place"] for v in found}
    models = ", ".join(sorted({v["place"][0] for v in found}))
    seeds = len({r["seed"] for r in rows})
    out += [
        f"{len(groups)} groups of model, task, rank and length ({models}), {seeds} seed{'s' if seeds > 1 else ''}, three schemes. "
        "The *oracle* is the best rate of a sweep in quarters of a decade, chosen by the held-out loss that is reported; *missed* is "
        "the part of its gain (loss before training minus loss after) that a run with `auto` does not reach. Below 0: `auto` is "
        "better than every rate of the sweep.",
        "",
        f"**`auto` misses {percent(statistics.fmean(missed))} of the oracle's gain in the mean, "
        f"{percent(max(missed))} at worst; at most 3 % in {sum(x <= 0.03 for x in missed)} of {len(missed)} cases, at most 1 % in "
        f"{sum(x <= 0.01 for x in missed)}; {len(missed) - len(finite)} diverged.**",
        "",
        "![Share of the best gain that is missed](missed.svg)",
        "",
        "| rate | missed in the mean | at worst | diverged |",
        "|---|---|---|---|",
    ]
    for arm in ARMS:
        own = [v["missed"] for v in found if v["arm"] == arm]
        if own:
            out.append(f"| `auto`, `{arm}` | {summary(own)} |")
    for kind, by in others.items():
        out.append(f"| {kind}, `lora` | {summary(list(by.values()))} |")
    out += ["", "The rate of the oracle over that of `auto` (geometric mean; decades between them, root mean square):", ""]
    out += ["| steps | scheme | ratio | decades |", "|---|---|---|---|"]
    for steps in sorted({v["place"][3] for v in found}):
        for arm in ARMS:
            own = [math.log10(v["oracle_rate"] / v["auto_rate"]) for v in found if (v["place"][3], v["arm"]) == (steps, arm)]
            if own:
                spread = math.sqrt(statistics.fmean(x * x for x in own))
                out.append(f"| {steps} | `{arm}` | {10 ** statistics.fmean(own):.2f} | {spread:.2f} |")
    out += ["", "## Every case", ""]
    out += ["| model | task | r | steps | scheme | before | oracle | its rate | auto | its rate | missed |", "|---|---|---|---|---|---|---|---|---|---|---|"]
    for v in found:
        model, task, r, steps = v["place"]
        cells = [model, task, str(r), str(steps), f"`{v['arm']}`", f"{v['start']:.3f}", f"{v['oracle']:.4f}", f"{v['oracle_rate']:.1e}",
                 f"{v['auto']:.4f}", f"{v['auto_rate']:.1e}", percent(v["missed"])]  # fmt: skip
        out.append(f"| {' | '.join(cells)} |")
    search = [float(r["search_seconds"]) / float(r["seconds"]) * int(r["steps"]) / 500
              for r in rows if r["kind"] == "auto" and r["seconds"] and float(r["search_seconds"]) > 0]  # fmt: skip
    if search:
        out += ["", f"A search took {100 * statistics.median(search):.1f} % of the time of 500 steps (median over runs that made one)."]
    return "\n".join(out) + "\n"


def summary(missed):
    finite = [x for x in missed if math.isfinite(x)]
    if not finite:
        return f"– | – | {len(missed)}"
    return f"{percent(statistics.fmean(finite))} | {percent(max(finite))} | {len(missed) - len(finite)}"


def figure(found, others):
    """A row for each way to choose a rate, a dot for each case: how much of the best possible gain is missed, in percent."""
    series = [(f"auto, {arm}", [v["missed"] for v in found if v["arm"] == arm], "#0b6e4f") for arm in ARMS]
    series += [(kind, list(by.values()), "#b23a48") for kind, by in others.items()]
    series = [s for s in series if s[1]]
    left, width, row = 190, 520, 30
    ticks = [0, 1, 3, 10, 30, 100]

    def x(share):
        # a scale that shows a percent and a hundred
        return left + width * math.log1p(max(100 * share, 0.0)) / math.log1p(100) if share < 1.0 else left + width

    height = 50 + row * len(series) + 40
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 60} {height}" font-family="sans-serif" font-size="13">']
    out.append(f'<text x="{left}" y="20" font-weight="bold">Share of the best possible gain that is missed</text>')
    bottom = 40 + row * len(series)
    for t in ticks:
        at = x(t / 100)
        out.append(f'<line x1="{at:.1f}" y1="34" x2="{at:.1f}" y2="{bottom}" stroke="#ddd"/>')
        label = "100 % or more" if t == 100 else f"{t} %"
        out.append(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555">{label}</text>')
    for i, (name, values, colour) in enumerate(series):
        y = 40 + row * i + row / 2
        out.append(f'<text x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
        for v in values:
            out.append(f'<circle cx="{x(v):.1f}" cy="{y:.1f}" r="4.5" fill="{colour}" fill-opacity="0.45"/>')
        middle = statistics.median(values)
        out.append(f'<line x1="{x(middle):.1f}" y1="{y - 10:.1f}" x2="{x(middle):.1f}" y2="{y + 10:.1f}" stroke="{colour}" stroke-width="3"/>')
    out.append(f'<text x="{left}" y="{height - 4}" fill="#555">A dot is one model, task, rank and length; the bar is their median.</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def write(folder):
    """Writes README.md and missed.svg beside runs.csv."""
    groups, rows = read(folder / "runs.csv")
    found = verdicts(groups, rows)
    if found:
        others = fixed(groups, found)
        (folder / "README.md").write_text(markdown(found, others, rows))
        (folder / "missed.svg").write_text(figure(found, others))
