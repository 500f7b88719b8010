#!/usr/bin/env python3
"""Runs with `learning_rate: auto` against the best rate of a sweep, and against fixed rates that other programs suggest.

    python3 bench/rate/rate.py run --models tiny-llama-en,stories260K --steps 100      # makes what is missing, then reports
    python3 bench/rate/rate.py report                                                  # tables, figure, runs.csv alone

A group is a model, a task and a rank. Each arm (`loram`, `lora`, `pissa`) has runs with `auto`, and a sweep over rates a
quarter of a decade apart: seven around the rate of `auto`, and more at an end while the best one lies there. Runs are folders
of `loram train`; a finished one is not made again, so that the script can be stopped and started at any time, and folders of
several machines can be put together. Needs the program (cargo build --release), and data and models in ../shared; MiniLM, SmolLM2
and Gemma are given by --at NAME=FOLDER.
"""

import argparse
import csv
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import page

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ARMS = ("loram", "lora", "pissa")
#: Rates of a sweep at first, an odd number, in quarters of a decade.
SWEEP = 7

LANGUAGE = {"per_device_train_batch_size": 8, "max_samples": 2000, "max_eval_samples": 120}
TASKS = {
    "e2e": {**LANGUAGE, "max_length": 128, "file": "train.jsonl", "dev": "dev.jsonl"},
    "gsm8k": {**LANGUAGE, "max_length": 384, "file": "train.jsonl", "dev": "dev.jsonl"},
    "tinyshakespeare": {**LANGUAGE, "max_length": 128, "file": "train.txt", "dev": "dev.txt"},
    "sst2": {"per_device_train_batch_size": 16, "max_samples": 4000, "max_length": 64, "max_eval_samples": 400,
             "file": "train.jsonl", "dev": "dev.jsonl"},
    "banking77": {"per_device_train_batch_size": 16, "max_samples": 4000, "max_length": 64, "max_eval_samples": 400,
                  "file": "train.jsonl", "dev": "dev.jsonl"},
}  # fmt: skip
MODELS = {
    "tiny-llama-en": {"at": "assets/tiny-llama-en", "tasks": ("e2e", "gsm8k"), "hidden": 128},
    "stories260K": {"at": "../shared/models/stories260K", "tasks": ("e2e", "tinyshakespeare"), "hidden": 64, "most": 32},
    "SmolLM2-135M": {"at": None, "tasks": ("e2e", "gsm8k"), "hidden": 576},
    "Gemma-3-270M": {"at": None, "tasks": ("e2e", "gsm8k"), "hidden": 640},
    "MiniLM": {"at": None, "tasks": ("sst2", "banking77"), "hidden": 384},
}


def fixed(hidden):
    """Rates that other programs suggest for LoRA: name, keys."""
    # Thinking Machines, "LoRA without regret": 10·5e-5·(2000/hidden)^0.781 for Llamas, lora_alpha 32
    without_regret = 5e-4 * (2000 / hidden) ** 0.781
    return {
        "transformers (5e-5)": {"learning_rate": 5e-5},
        "PEFT's examples (1e-4)": {"learning_rate": 1e-4},
        "TRL, Unsloth (2e-4)": {"learning_rate": 2e-4},
        "LoRA without regret": {"learning_rate": round(without_regret, 7), "lora_alpha": 32},
    }


def groups(args):
    for name in args.models.split(","):
        model = MODELS.get(name) or sys.exit(f"--models: no model `{name}`; there are {', '.join(MODELS)}")
        given = dict(pair.split("=", 1) for pair in args.at)
        at = given.get(name, model["at"]) or sys.exit(f"{name}: give its folder: --at {name}=FOLDER")
        for task in model["tasks"]:
            if args.tasks and task not in args.tasks.split(","):
                continue
            for rank in map(int, args.ranks.split(",")):
                yield {"model": name, "at": at, "task": task, "r": min(rank, model.get("most", rank)), "hidden": model["hidden"]}


def train(args, group, arm, steps, seed, keys):
    """The run's summary; None for one that diverged. An error ends the script."""
    rate = keys["learning_rate"]
    label = rate if isinstance(rate, str) else f"{rate:.3e}"
    extra = "".join(f".{k}-{v}" for k, v in keys.items() if k != "learning_rate")
    name = f"{group['model']}.{group['task']}.r{group['r']}.{arm}.lr-{label}{extra}.steps{steps}.s{seed}"
    folder = pathlib.Path(args.output) / name
    done = folder / "summary.json"
    failed = folder / "diverged.json"
    if failed.exists():
        return None
    if not done.exists():
        task = dict(TASKS[group["task"]])
        data = pathlib.Path(args.data) / group["task"]
        settings = {
            "model": group["at"], "data": data / task.pop("file"), "eval_data": data / task.pop("dev"),
            "init": arm, "r": group["r"], "max_steps": steps, "seed": seed, "max_grad_norm": 0, "eval_strategy": "no",
            "save_strategy": "no", "magnitude_steps": 0, "report_to": "none", "logging_steps": max(steps // 20, 1),
            "output_dir": folder, "overwrite_output_dir": "true", **task, **keys,
        }  # fmt: skip
        command = [args.program, "train", "--json"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        if args.threads:
            command += ["--threads", str(args.threads)]
        begun = time.monotonic()
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "LORAM_CACHE": f"{args.output}/cache"})
        if not done.exists():
            if "not finite" not in ended.stderr and "NaN" not in ended.stderr and "diverged" not in ended.stderr:
                raise SystemExit(f"{name}: exit code {ended.returncode}\n{ended.stderr[-3000:]}")
            folder.mkdir(parents=True, exist_ok=True)
            failed.write_text(json.dumps({"error": ended.stderr.strip().splitlines()[-1]}))
            print(f"{name}: diverged", flush=True)
            return None
        summary = json.loads(done.read_text())
        print(f"{name}: {summary['eval_after']['loss']:.4f} at {summary['learning_rate']:.2e}, {time.monotonic() - begun:.0f} s", flush=True)
    return json.loads(done.read_text())


def score(summary):
    return math.inf if summary is None or not math.isfinite(summary["eval_after"]["loss"]) else summary["eval_after"]["loss"]


def measure(args, group, steps):
    """All runs of a group, as rows of runs.csv."""
    rows = []
    seeds = range(args.seeds)

    def runs(arm, kind, keys):
        scores = []
        for seed in seeds:
            summary = train(args, group, arm, steps, seed, keys)
            scores.append(score(summary))
            environment = pathlib.Path(summary["output_dir"]) / "environment.json" if summary else None
            rate = json.loads(environment.read_text())["learning_rate"] if environment and environment.exists() else {}
            rows.append({
                "model": group["model"], "task": group["task"], "r": group["r"], "steps": steps, "arm": arm, "kind": kind,
                "seed": seed, "learning_rate": summary["learning_rate"] if summary else keys["learning_rate"],
                "loss": scores[-1], "before": summary["eval_before"]["loss"] if summary else "",
                "seconds": round(summary["seconds"], 2) if summary else "",
                "search_seconds": round((rate.get("search") or {}).get("seconds", 0), 2),
            })  # fmt: skip
        return statistics.fmean(scores)

    def arm_runs(arm):
        runs(arm, "auto", {"learning_rate": "auto"})
        own = [r["learning_rate"] for r in rows if r["arm"] == arm and r["kind"] == "auto" and not isinstance(r["learning_rate"], str)]
        middle = round(4 * statistics.fmean(map(math.log10, own))) if own else -12
        found = {}

        def at(k):
            if k not in found:
                found[k] = runs(arm, "sweep", {"learning_rate": float(f"{10 ** (k / 4):.3e}")})

        for k in range(middle - SWEEP // 2, middle + SWEEP // 2 + 1):
            at(k)
        for _ in range(8):
            best = min(found, key=found.get)
            if best == min(found):
                at(best - 1)
            elif best == max(found):
                at(best + 1)
            else:
                break

    def fixed_runs(_):
        for name, keys in fixed(group["hidden"]).items():
            runs("lora", name, keys)

    with ThreadPoolExecutor(args.jobs) as pool:
        # a failed run ends the script here
        list(pool.map(lambda job: job[0](job[1]), [*((arm_runs, arm) for arm in ARMS), (fixed_runs, None)]))
    # the order of the arms, whichever was ready first
    return sorted(rows, key=lambda r: (ARMS.index(r["arm"]), r["kind"], float(r["learning_rate"]), r["seed"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--models", default="tiny-llama-en,stories260K", help="names, separated by commas")
    parser.add_argument("--at", action="append", default=[], metavar="NAME=FOLDER", help="folder of a model")
    parser.add_argument("--tasks", default="", help="of the models' tasks, only these")
    parser.add_argument("--ranks", default="4,64")
    parser.add_argument("--steps", default="100,600")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="arms of a group that run side by side")
    parser.add_argument("--threads", type=int, default=0, help="threads of a run; 0: all")
    parser.add_argument("--program", default=str(ROOT / "target" / "release" / "loram"))
    parser.add_argument("--data", default=str(ROOT / ".." / "shared" / "data"))
    parser.add_argument("--output", default=str(ROOT / "runs" / "rate"), help="folder of the runs")
    parser.add_argument("--report", default=str(ROOT / "docs" / "results" / "rate"), help="folder of tables and figure")
    args = parser.parse_args()
    args.output = str(pathlib.Path(args.output).resolve())
    folder = pathlib.Path(args.report)
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "runs.csv"
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    if args.command == "run":
        # horizon by horizon, so that something whole is there early
        for steps in map(int, args.steps.split(",")):
            for group in groups(args):
                new = measure(args, group, steps)
                where = {(r["model"], r["task"], str(r["r"]), str(r["steps"])) for r in new}
                rows = [r for r in rows if (r["model"], r["task"], str(r["r"]), str(r["steps"])) not in where] + new
                with table.open("w", newline="") as f:
                    writer = csv.DictWriter(f, fieldnames=list(new[0]))
                    writer.writeheader()
                    writer.writerows(rows)
                page.write(folder)
    page.write(folder)


if __name__ == "__main__":
    main()
