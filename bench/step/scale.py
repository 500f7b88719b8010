#!/usr/bin/env python3
"""What a token costs, and what memory a step takes, against length, rank and layers: loram alone, one factor at a time around
a Llama 512 wide with 8 layers (shape a of step.py), f32, two threads.

    python3 bench/step/scale.py [--threads 2] [--rounds 2] [--peft] [--json FILE] [--plot FILE.svg]

Lengths are those of single documents, so that the attention of a token grows with them; ranks and layers are measured on
4 x 256 tokens. With --peft, PEFT runs at every length beside it (4096 tokens take it some 6 GB). The Python that runs this,
or $LORAM_PYTHON, must have torch, transformers and peft, which make the weights; --plot needs matplotlib."""
import argparse, json, os, shutil, statistics, subprocess, sys, tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import step

LENGTHS = [128, 256, 512, 1024, 2048, 4096]
RANKS = [1, 4, 16, 64, 256]
LAYERS = [2, 4, 8, 16]


def points():
    """(what varies, its value, shape, r)."""
    for n in LENGTHS:
        yield "length", n, ("llama", step.LLAMA, 1, n, 5 if n < 2048 else 4), step.R
    for r in RANKS:
        yield "rank", r, ("llama", step.LLAMA, 4, 256, 5), r
    for n in LAYERS:
        yield "layers", n, ("llama", {**step.LLAMA, "num_hidden_layers": n}, 4, 256, 5), step.R


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--peft", action="store_true", help="PEFT at every length too")
    p.add_argument("--json", help="write all figures here")
    p.add_argument("--plot", help="write a plot here")
    args = p.parse_args()
    args.device = "cpu"
    if not os.path.exists(step.LORAM):
        subprocess.run(["cargo", "build", "--release", "--workspace", "--example", "step_bench"], cwd=step.ROOT, check=True)
    rows = []
    print(f"{'':8} {'':>6} {'side':6} {'ms/token':>9} {'GFLOP/s':>8} {'peak RSS':>9} {'above weights':>14}")
    for what, value, shape, r in points():
        sides = {"loram": [step.LORAM]}
        if args.peft and what == "length":
            sides["peft"] = [step.PYTHON, os.path.join(step.HERE, "peft_side.py")]
        scratch = tempfile.mkdtemp(prefix="loram-scale-")
        try:
            path, job = step.make("x", args, scratch, shape, r)
            weights = os.path.getsize(os.path.join(job["model"], "model.safetensors"))
            work = step.flops(job, job["batches"][0])
            runs = {side: [json.loads(step.run(*command, path)) for _ in range(args.rounds)] for side, command in sides.items()}
        finally:
            shutil.rmtree(scratch)
        tokens = sum(map(len, job["batches"][0]))
        for side, found in runs.items():
            seconds = statistics.median(t for f in found for t in f["seconds"][2:])
            rss = statistics.median(f["peak_rss"] for f in found)
            rows.append({"what": what, "value": value, "side": side, "tokens": tokens, "seconds": seconds, "rss": rss,
                         "above_weights": rss - weights, "gflops": work / seconds / 1e9})
            x = rows[-1]
            print(f"{what:8} {value:6} {side:6} {1e3 * seconds / tokens:9.3f} {x['gflops']:8.0f} {rss / 1e6:7.0f}MB "
                  f"{x['above_weights'] / 1e6:12.0f}MB", flush=True)
    linear(rows)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(rows, f, indent=1)
    if args.plot:
        plot(rows, args.plot)


def linear(rows):
    """Memory must follow the length, not its square: its growth from one length to the next, in bytes for a token."""
    own = [x for x in rows if x["what"] == "length" and x["side"] == "loram"]
    slopes = [(b["rss"] - a["rss"]) / (b["value"] - a["value"]) for a, b in zip(own, own[1:])]
    print("bytes for each further token: " + ", ".join(f"{s:.0f}" for s in slopes))
    if len(slopes) > 1 and slopes[-1] > 1.25 * max(slopes[:-1]):
        sys.exit("memory grows faster than the length")


def plot(rows, file):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "loram"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6))
    for axis, (what, of, label) in zip(axes, [
        ("length", lambda x: 1e3 * x["seconds"] / x["tokens"], "ms per token"),
        ("length", lambda x: x["above_weights"] / 1e6, "peak memory above the weights, MB"),
        ("rank", lambda x: 1e3 * x["seconds"] / x["tokens"], "ms per token"),
        ("layers", lambda x: 1e3 * x["seconds"] / x["tokens"], "ms per token"),
    ]):
        for side in ("loram", "peft"):
            own = [x for x in rows if x["what"] == what and x["side"] == side]
            if own:
                axis.plot([x["value"] for x in own], [of(x) for x in own], "o-", label=side)
        if what == "rank":
            axis.set_xscale("log", base=2)
        axis.set(xlabel=what, ylabel=label, ylim=(0, None))
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
