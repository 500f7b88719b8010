#!/usr/bin/env python3
"""Two builds of loram in turn: a training step and an initialisation, their time, memory and bits.

    python3 bench/builds/builds.py --old PROGRAM --new PROGRAM --model DIR --data FILE.jsonl
        [--steps 6] [--rounds 3] [--init-model DIR] [--gains log,sketch]

Each round trains --steps steps with either build (batches of 8 of varying length, r 16, all linear layers) and initialises
LoRAM for --init-model (default: --model) with each gain. Losses and gradient norms of all steps must be equal to the last
digit, and so must the files of the initialisations. Times are medians over rounds of the seconds per step after the first
one, and of whole commands for `init`; ratios are new / old."""
import argparse, hashlib, json, os, shutil, statistics, subprocess, sys, tempfile, time


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nexit {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def train(program, args, out):
    """Seconds per step after the first, peak memory, and the figures of all steps."""
    shutil.rmtree(out, ignore_errors=True)
    run(program, "train", "--model", args.model, "--data", args.data, "--output", out, "--r", 16, "--seed", 1,
        "--learning-rate", "2e-4", "--max-steps", args.steps, "--per-device-train-batch-size", 8, "--logging-steps", 1,
        "--set", "sample_prompts=0", "--set", "save_strategy=no", "--quiet")
    lines = [json.loads(line) for line in open(os.path.join(out, "metrics.jsonl"))]
    steps = [line for line in lines if "loss" in line]
    clock = [line["seconds"] for line in steps]
    summary = json.load(open(os.path.join(out, "summary.json")))
    figures = [(line["loss"], line["grad_norm"]) for line in steps]
    return (clock[-1] - clock[0]) / (len(clock) - 1), summary["peak_rss"], figures


def init(program, model, gain, out):
    """Seconds of the command and the hash of the factors."""
    shutil.rmtree(out, ignore_errors=True)
    clock = time.perf_counter()
    run(program, "init", model, "--output", out, "--init", "loram", "--gain", gain, "--r", 16, "--seed", 1, "--quiet")
    seconds = time.perf_counter() - clock
    with open(os.path.join(out, "adapter_model.safetensors"), "rb") as f:
        return seconds, hashlib.sha256(f.read()).hexdigest()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--old", "--new", "--model", "--data"):
        p.add_argument(name, required=True)
    p.add_argument("--init-model")
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--gains", default="log,sketch")
    args = p.parse_args()
    builds = {"old": args.old, "new": args.new}
    steps, memory, figures = ({"old": [], "new": []} for _ in range(3))
    inits = {gain: {"old": [], "new": []} for gain in args.gains.split(",") if gain}
    hashes = {gain: set() for gain in inits}
    with tempfile.TemporaryDirectory() as folder:
        for r in range(args.rounds):
            for name, program in builds.items():
                seconds, peak, found = train(program, args, os.path.join(folder, "run"))
                steps[name].append(seconds), memory[name].append(peak), figures[name].append(found)
                print(f"round {r + 1} {name}: {seconds:.3f} s per step, {peak / 1e6:.0f} MB", flush=True)
            for gain in inits:
                for name, program in builds.items():
                    seconds, digest = init(program, args.init_model or args.model, gain, os.path.join(folder, "init"))
                    inits[gain][name].append(seconds), hashes[gain].add(digest)
                    print(f"round {r + 1} {name}: init with gain {gain} {seconds:.3f} s", flush=True)
    ratio = lambda of: statistics.median(of["new"]) / statistics.median(of["old"])
    print(f"step: {statistics.median(steps['old']):.3f} s → {statistics.median(steps['new']):.3f} s, ratio {ratio(steps):.3f}")
    print(f"memory: ratio {ratio(memory):.3f}")
    for gain, of in inits.items():
        print(f"init, gain {gain}: {statistics.median(of['old']):.3f} s → {statistics.median(of['new']):.3f} s, ratio {ratio(of):.3f}")
    equal = all(f == figures["old"][0] for f in figures["old"] + figures["new"])
    print(f"losses and gradient norms of all steps are {'equal' if equal else 'NOT equal'}")
    print(f"factors are {'equal' if all(len(h) == 1 for h in hashes.values()) else 'NOT equal'}")
    sys.exit(0 if equal and all(len(h) == 1 for h in hashes.values()) else 1)


main()
