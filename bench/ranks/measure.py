"""Sums and steps of two ranks on one machine: python3 bench/ranks/measure.py LORAM MODEL DATA.jsonl

LORAM is a release build with the feature `mpi` (Open MPI). Prints the time of sums over two ranks, and of steps of one process with two threads and of
two ranks with one thread each.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LORAM, MODEL, DATA = sys.argv[1:4]
ENV = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
ROOM = Path(tempfile.mkdtemp())
STEPS = 6


def launched(arguments):
    return ["mpirun", "-n", "2", *arguments]


def call(command):
    done = subprocess.run(command, capture_output=True, text=True, env=ENV)
    assert done.returncode == 0, done.stderr
    return done.stdout


def step(ranks, threads, r):
    """Median seconds of a step of 8 examples, and the bytes of its gradients."""
    out = ROOM / f"{ranks}-{r}"
    flags = {"model": MODEL, "data": DATA, "r": r, "learning-rate": 1e-4, "max-steps": STEPS, "logging-steps": 1, "batch-size": 4,
             "gradient-accumulation-steps": 2 // ranks, "save-strategy": "no", "report-to": "none", "max-length": 128, "output-dir": out}
    command = [LORAM, "train", "--threads", str(threads), "--json"]
    command += [part for key, value in flags.items() for part in (f"--{key}", str(value))]
    summary = json.loads(call(launched(command) if ranks > 1 else command))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    times = [record["seconds"] for record in lines if "loss" in record]
    return statistics.median(b - a for a, b in zip(times[1:], times[2:])), 4 * summary["trainable_parameters"]


try:
    for sum_ in json.loads(call(launched([LORAM, "train", "--dist-info", "--json", "--threads", "1"])))["sums"]:
        print(f"sum of {sum_['bytes'] / 1e6:.1f} MB: {1e3 * sum_['seconds']:.1f} ms", flush=True)
    for r in (16, 64):
        for ranks, threads in ((1, 2), (2, 1)):
            seconds, size = step(ranks, threads, r)
            print(f"r {r} ({size / 1e6:.1f} MB): {ranks} × {threads} threads: {seconds:.3f} s a step", flush=True)
finally:
    shutil.rmtree(ROOM)
