"""Reference values for the statistics: python3 crates/loram-lab/tests/reference.py (numpy, scipy, sklearn).

Writes tests/reference/statistics.json: plain summaries by numpy, intervals by scipy's percentile bootstrap with many
replicates, of pooled differences by a loop over numpy's draws, and curve figures by numpy.trapezoid and numpy.interp.
"""
import json
import os

import numpy as np
from scipy import stats
from sklearn.metrics import log_loss

rng = np.random.default_rng(7)
out = {"summaries": [], "seeds": [], "examples": [], "curves": [], "cross_entropy": []}

for n in (2, 3, 10, 41):
    x = rng.normal(size=n) * 3 + 1
    q = [0.0, 0.025, 0.3, 0.5, 0.975, 1.0]
    out["summaries"].append({
        "x": x.tolist(), "mean": float(np.mean(x)), "std": float(np.std(x, ddof=1)),
        "q": q, "quantiles": [float(np.quantile(x, p)) for p in q],
    })

# seeds alone: paired differences of means
for n in (5, 12):
    a = rng.normal(size=n) + 0.4
    b = a - 0.3 + rng.normal(size=n) * 0.2
    found = stats.bootstrap(((a - b),), np.mean, n_resamples=200_000, method="percentile", rng=rng)
    ci = found.confidence_interval
    out["seeds"].append({"a": a.tolist(), "b": b.tolist(), "estimate": float(np.mean(a - b)),
                         "low": float(ci.low), "high": float(ci.high)})

# examples of one run: loss per token as a ratio of sums, and the difference of two runs on the same examples
tokens = rng.integers(5, 40, size=60)
a = tokens * rng.gamma(4.0, 0.25, size=60)
b = a * rng.normal(1.05, 0.1, size=60)


def difference(i):
    i = i.astype(int)
    return a[i].sum() / tokens[i].sum() - b[i].sum() / tokens[i].sum()


found = stats.bootstrap((np.arange(60),), difference, vectorized=False, n_resamples=20_000, method="percentile", rng=rng)
out["examples"].append({
    "tokens": tokens.tolist(), "a": a.tolist(), "b": b.tolist(), "estimate": float(difference(np.arange(60))),
    "low": float(found.confidence_interval.low), "high": float(found.confidence_interval.high),
})

steps = np.array([0.0, 10, 25, 40, 80])
values = np.array([3.0, 2.1, 1.4, 1.45, 0.9])
level = 1.6
out["curves"].append({
    "steps": steps.tolist(), "values": values.tolist(),
    "height": float(np.trapezoid(values, steps) / (steps[-1] - steps[0])),
    "level": level,
    # the curve falls from 2.1 to 1.4 between steps 10 and 25
    "reached": float(np.interp(-level, [-2.1, -1.4], [10, 25])),
})

logits = rng.normal(size=(4, 3)) * 2
classes = [0, 2, 1, 1]
for row, c in zip(logits.astype(np.float32), classes):
    p = np.exp(row.astype(float)) / np.exp(row.astype(float)).sum()
    out["cross_entropy"].append({"logits": row.tolist(), "class": c,
                                 "loss": float(log_loss([c], [p], labels=[0, 1, 2]))})

# tasks, seeds and examples: losses per token of two runs a seed, in percent of a loss
own = np.random.default_rng(11)
tasks = []
for t in range(5):
    seeds, n = 3 - t % 2, 30 + 10 * t
    tokens = own.integers(5, 40, size=n)
    a = tokens * own.gamma(4.0, 0.25, size=n) * own.normal(1.0, 0.03, size=(seeds, 1))
    b = a * own.normal(1.0 + 0.02 * t, 0.1, size=(seeds, n))
    tasks.append((tokens, a, b, -100 / 1.5))


def pooled(draw):
    values = []
    for t in draw(len(tasks)):
        tokens, a, b, scale = tasks[t]
        seeds, i = draw(len(a)), draw(len(tokens))
        values.append(scale * np.mean([(a[s][i].sum() - b[s][i].sum()) / tokens[i].sum() for s in seeds]))
    return np.mean(values)


drawn = np.sort([pooled(lambda n: own.integers(0, n, size=n)) for _ in range(40_000)])
out["pooled"] = {
    "tasks": [{"tokens": t.tolist(), "a": a.tolist(), "b": b.tolist(), "scale": s} for t, a, b, s in tasks],
    "estimate": float(pooled(np.arange)), "quantiles": [float(np.quantile(drawn, q)) for q in (0.025, 0.05, 0.95, 0.975)],
}

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference", "statistics.json")
with open(path, "w") as f:
    json.dump(out, f, indent=1)
    f.write("\n")
