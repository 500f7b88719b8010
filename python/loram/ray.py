"""Runs of a comparison as Ray tasks.

    import loram.ray
    found = loram.ray.compare("grid.yaml", num_cpus=4)       # in a script on a Ray cluster, or on one machine

Needs `ray` and the program `loram`. Each run is a process `loram compare GRID --only RUN`; a task that fails leaves its folder, and
the same call resumes it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Compared", "compare"]

# checkpoints of a run are not needed once it is scored
_LEFT_OUT = ("checkpoint-",)


@dataclass
class Compared:
    """The runs of a grid after :func:`compare`."""

    scored: list[str] = field(default_factory=list)
    """Names of the runs that this call scored, in the order in which they ended."""
    failed: dict[str, str] = field(default_factory=dict)
    """Names of the runs that failed, with the reason."""
    waiting: int = 0
    """Number of runs that wait for others that failed (successive halving)."""


def compare(
    grid: str | os.PathLike,
    *,
    num_cpus: float = 1,
    num_gpus: float = 0,
    program: str | None = None,
    shared: bool = True,
    on_run=None,
) -> Compared:
    """Trains and scores the remaining runs of a grid, each as a Ray task, and returns which were scored and which failed.

    :param grid: the grid file. Its folder must be at the same path on all machines.
    :param num_cpus: CPUs of a run; it gets as many threads.
    :param num_gpus: GPUs of a run; Ray sets ``CUDA_VISIBLE_DEVICES``. May be below 1: several runs then share a GPU.
    :param program: the program ``loram`` (default: that of ``PATH``), at the same path on all machines.
    :param shared: True if the output folder of the grid is on a file system that all machines share. If False, each scored run is sent to
        this machine and copied into the output folder here (``loram compare --gather``).
    :param on_run: called as ``on_run(name, error)`` when a run has ended; ``error`` is None for a run that was scored.
    :raises FileNotFoundError: there is no such grid, or no program ``loram``.
    :raises RuntimeError: the grid is not valid.
    """
    import ray

    grid = Path(grid).resolve()
    if not grid.is_file():
        raise FileNotFoundError(f"{grid}: there is no such grid file")
    program = shutil.which(program or "loram")
    if program is None:
        raise FileNotFoundError("there is no program `loram` on PATH: give its path as program=")
    if not ray.is_initialized():
        ray.init()
    threads = max(1, int(num_cpus))
    task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus)(_run)
    running, found = {}, Compared()
    while True:
        ready, found.waiting = _ready(program, grid)
        for name in ready:
            if name not in running.values() and name not in found.failed:
                running[task.remote(program, str(grid), name, threads, os.getcwd(), not shared)] = name
        if not running:
            return found
        done, _ = ray.wait(list(running), num_returns=1)
        for reference in done:
            name = running.pop(reference)
            try:
                packed = ray.get(reference)
                if packed:
                    _unpack(program, grid, packed)
                error = None
                found.scored.append(name)
            except Exception as e:  # a run that fails must not end the others
                error = str(getattr(e, "cause", None) or e)
                found.failed[name] = error
            if on_run is not None:
                on_run(name, error)


def _call(program, *arguments, cwd=None):
    """The JSON that the program prints."""
    done = subprocess.run([program, *arguments, "--json", "--quiet"], capture_output=True, text=True, cwd=cwd)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise RuntimeError(lines[-1].removeprefix("error: ") if lines else f"loram ended with {done.returncode}")
    return json.loads(done.stdout)


def _ready(program, grid):
    listed = _call(program, "compare", str(grid), "--list")
    return [run["run"] for run in listed["ready"]], listed["waiting"]


def _run(program, grid, name, threads, cwd, pack):
    """In a task: trains and scores one run. Returns its packed folder if asked for."""
    made = _call(program, "compare", grid, "--only", name, "--threads", str(threads), cwd=cwd)
    if not pack:
        return None
    folder = Path(cwd, made["folder"])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.add(folder, arcname=f"runs/{folder.name}", filter=_keep)
    return out.getvalue()


def _keep(entry):
    return None if Path(entry.name).name.startswith(_LEFT_OUT) else entry


def _unpack(program, grid, packed):
    with tempfile.TemporaryDirectory() as room:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(room, filter="data")
        # exit code 1: other runs are still missing
        subprocess.run([program, "compare", str(grid), "--gather", room, "--quiet"], capture_output=True)
    _check_gathered(program, grid, packed)


def _check_gathered(program, grid, packed):
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        name = archive.getnames()[0].split("/")[1]
    if name in _ready(program, grid)[0]:
        raise RuntimeError(f"{name}: its folder could not be copied into that of the grid")
