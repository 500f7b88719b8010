#!/usr/bin/env python3
"""The tables of README.md, from runs.csv and the JSON of the report.

    loram report runs/results/language runs/results/minilm -o report.json -o runs.csv
    python3 docs/results/tables.py report.json runs.csv
    python3 docs/results/tables.py runs.csv             # those of the short runs, from the committed file
"""
import csv, json, sys
from collections import defaultdict
from statistics import mean

ARMS = ["lora", "lora+rslora", "lora+plus", "pissa", "milora", "olora", "loram", "loram+rslora", "loram+auto", "lora-alpha", "full"]


def table(heads, rows):
    print("\n".join("| " + " | ".join(map(str, r)) + " |" for r in [heads, ["---"] * len(heads), *rows]) + "\n")


def best(report):
    """Scores at each arm's own rate, and how often an arm is better, level or worse."""
    groups = report["groups"]
    marks = {"better": " ▲", "worse": " ▽"}

    def cell(group, arm):
        found = next((a for a in group["arms"] if a["arm"] == arm and a["score"]), None)
        versus = found and found["versus"].get("lora")
        return f"{found['score']['mean']:.3f}{marks.get(versus['verdict'], '') if versus else ''}" if found else "–"

    def rate(group, arm):
        found = next((a for a in group["arms"] if a["arm"] == arm and a["best_rate"]), None)
        return f"{found['best_rate']:.3g}{'*' if found['edge'] else ''}" if found else "–"

    for name in sorted({g["score"]["name"] for g in groups}):
        same = [g for g in groups if g["score"]["name"] == name]
        heads = [f"{g['model']}<br>{g['task']}<br>r {g['r']}" for g in same]
        print(f"Test {name} at each arm's own rate:\n")
        table(["arm"] + heads, [[f"`{a}`"] + [cell(g, a) for g in same] for a in ARMS])
        print("The rate, * at an end of the grid:\n")
        table(["arm"] + heads, [[f"`{a}`"] + [rate(g, a) for g in same] for a in ARMS])
    standing = {(s["arm"], s["baseline"]): s["at_best"] for s in report["standings"]}
    tally = lambda key: "{better} · {level} · {worse}".format(**standing[key]) if key in standing else "–"
    table(["arm", "against `lora`", "against `pissa`"], [[f"`{a}`", tally((a, "lora")), tally((a, "pissa"))] for a in ARMS])


def short(rows):
    """Test losses of the short runs: group -> rate -> arm."""
    out = defaultdict(lambda: defaultdict(dict))
    for r in rows:
        if r["rung"] == "0" and r["r"] and r["test_loss"]:
            out[r["model"], r["task"], r["r"]][float(r["learning_rate"])][r["arm"]] = float(r["test_loss"])
    return out


def around(groups, reference, arms, steps):
    """Arms minus the reference, by the place of the rate relative to the reference's best."""
    for step in steps:
        found = {a: [] for a in arms}
        for by_rate in groups.values():
            rates = sorted(x for x in by_rate if reference in by_rate[x])
            i = rates.index(min(rates, key=lambda x: by_rate[x][reference])) + step
            if 0 <= i < len(rates):
                for a in arms:
                    if a in by_rate[rates[i]]:
                        found[a].append(by_rate[rates[i]][a] - by_rate[rates[i]][reference])
        yield [f"{step:+d}"] + [f"{mean(d):+.2f} (lower in {sum(x < 0 for x in d)} of {len(d)})" if d else "–" for d in found.values()]


def main():
    files = {f.rsplit(".", 1)[-1]: f for f in sys.argv[1:]}
    if "csv" not in files:
        sys.exit(__doc__)
    if "json" in files:
        with open(files["json"]) as f:
            best(json.load(f))
    with open(files["csv"]) as f:
        rows = list(csv.DictReader(f))
    arms = ["pissa", "milora", "olora", "loram", "loram+auto", "lora+rslora"]
    for kind, of in [("language models", lambda r: not r.get("test_accuracy")), ("classifiers", lambda r: r.get("test_accuracy"))]:
        groups = short(filter(of, rows))
        if groups:
            print(f"Short runs of {kind}. Loss minus that of `lora`, half decades from `lora`'s best rate:\n")
            table(["step"] + arms, around(groups, "lora", arms, range(-2, 1)))
            print("Loss of `loram+auto` minus that of `loram`, half decades from `loram`'s best rate:\n")
            table(["step", "loram+auto"], around(groups, "loram", ["loram+auto"], range(-1, 2)))


if __name__ == "__main__":
    main()
