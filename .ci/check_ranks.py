"""Two ranks over MPI against one process: python3 .ci/check_ranks.py LORAM

LORAM is a build with the feature `mpi`; `mpirun` is that of the same MPI. Nothing but the standard library is needed. Checked: losses, evaluations,
and the other commands; a rank that is killed, one that is asked to stop, another number of ranks; a full disk, other configurations and data.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LORAM = os.path.abspath(sys.argv[1])
ROOT = Path(__file__).resolve().parent.parent
ROOM = Path(tempfile.mkdtemp(prefix="loram-ranks-"))
MPIRUN = ["mpirun"]
ENV = {**os.environ, "LORAM_CPU_KERNEL": "f32", "NO_COLOR": "1"}
if "Open MPI" in subprocess.run(["mpirun", "--version"], capture_output=True, text=True).stdout:
    MPIRUN += ["--oversubscribe"]
    ENV |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

(ROOM / "run.yaml").write_text(f"""
model: {ROOT}/assets/tiny-llama-en
data: demo:restaurants?seed=0&n=64
eval_data: demo:restaurants?split=dev&n=16
r: 4
learning_rate: 2e-3
lora_dropout: 0.1
batch_size: 4
logging_steps: 1
eval_steps: 10
save_steps: 5
compute_dtype: float32
""")


def command(ranks, *arguments):
    return ([*MPIRUN, "-n", str(ranks)] if ranks else []) + [LORAM, *arguments]


def call(ranks, *arguments, code=0):
    done = subprocess.run(command(ranks, *arguments), capture_output=True, text=True, env=ENV, cwd=ROOM, timeout=300)
    assert (done.returncode == 0) == (code == 0), f"{arguments}: exit code {done.returncode}\n{done.stderr}"
    return done


def losses(folder):
    records = [json.loads(line) for line in (ROOM / folder / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], key, r[key]) for r in records for key in ("loss", "eval_loss") if key in r]


def assert_same(one, other):
    a, b = losses(one), losses(other)
    assert len(a) == len(b) and all(x[:2] == y[:2] for x, y in zip(a, b)), f"{one} and {other} have other lines"
    worst = max(abs(x[2] - y[2]) for x, y in zip(a, b))
    print(f"{one} and {other}: {len(a)} losses, largest difference {worst:.1e}")
    assert worst < 1e-6


def start(folder, steps):
    """A run of two ranks, once it has made a few checkpoints, with the ids of its processes by rank."""
    arguments = command(2, "train", "run.yaml", "-o", folder, "--max-steps", str(steps), "--resume")
    run = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ENV, cwd=ROOM)
    before = set((ROOM / folder).glob("checkpoint-*"))
    deadline = time.time() + 120
    while len(set((ROOM / folder).glob("checkpoint-*")) - before) < 2:
        assert run.poll() is None, run.stderr.read()
        assert time.time() < deadline, "no checkpoints"
        time.sleep(0.05)
    ranks = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "exe") == os.path.realpath(LORAM):
                variables = dict(v.split("=", 1) for v in (entry / "environ").read_text().split("\0") if "=" in v)
                rank = variables.get("OMPI_COMM_WORLD_RANK", variables.get("PMI_RANK"))
                if rank is not None and os.readlink(entry / "cwd") == str(ROOM.resolve()):
                    ranks[int(rank)] = int(entry.name)
        except OSError:
            continue
    assert sorted(ranks) == [0, 1], ranks
    return run, ranks


def ended(run):
    _, error = run.communicate(timeout=120)
    ours = [line for line in error.splitlines() if line.startswith("error: ")]
    return run.returncode, ours


def main():
    found = json.loads(call(2, "train", "--dist-info", "--json").stdout)
    assert found["engine"] == "MPI" and len(found["hosts"]) == 2, found

    call(0, "train", "run.yaml", "-o", "one", "--max-steps", "40", "--gradient-accumulation-steps", "2")
    call(2, "train", "run.yaml", "-o", "two", "--max-steps", "40")
    assert_same("one", "two")
    call(2, "train", "run.yaml", "-o", "again", "--max-steps", "40")
    weights = [(ROOM / name / "adapter/adapter_model.safetensors").read_bytes() for name in ("two", "again")]
    assert weights[0] == weights[1], "other bits in a repeated run"
    data = ["--adapter", "two/adapter", "--data", "demo:restaurants?split=dev&n=16", "--json"]
    evaluations = [json.loads(call(n, "eval", *data).stdout) for n in (0, 2, 3)]
    assert evaluations[0] == evaluations[1] == evaluations[2], evaluations
    print(f"evaluation with 1, 2 and 3 processes: loss {evaluations[0]['loss']}")

    # a rank that is killed, one that is asked to stop, and other numbers of ranks: the run ends as if nothing had happened
    run, ranks = start("faults", 40)
    os.kill(ranks[1], signal.SIGKILL)
    code, errors = ended(run)
    print("killed:", *errors)
    assert code != 0 and len(errors) <= 1 and all("rank 1 of 2 on " in e and "--resume" in e for e in errors)
    run, ranks = start("faults", 40)
    os.kill(ranks[1], signal.SIGTERM)
    code, errors = ended(run)
    assert code != 0 and not errors, errors
    assert json.loads((ROOM / "faults/summary.json").read_text())["status"] == "interrupted"
    call(0, "train", "run.yaml", "-o", "faults", "--max-steps", "40", "--resume")
    assert_same("two", "faults")

    # refused before the first step
    part = f"if [ ${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}} = 1 ]; then exec {LORAM} train run.yaml -o no --seed 7; fi; exec {LORAM} train run.yaml -o no"
    done = subprocess.run([*MPIRUN, "-n", "2", "sh", "-c", part], capture_output=True, text=True, env=ENV, cwd=ROOM, timeout=120)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    print("refused:", *errors)
    assert done.returncode and len(errors) == 1 and "rank 1 of 2" in errors[0] and "seed (7 there, 42 on rank 0)" in errors[0]
    assert not (ROOM / "no").exists()
    for arguments in (["init", "--model", f"{ROOT}/assets/tiny-llama-en", "-o", "no"], ["compare", "grid.yaml"]):
        errors = [line for line in call(2, *arguments, code=2).stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and "started 2 processes" in errors[0], errors

    # a full disk on rank 0
    small = ROOM / "small"
    small.mkdir()
    if os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", small], capture_output=True).returncode == 0:
        try:
            errors = call(2, "train", "run.yaml", "-o", "small/run", "--max-steps", "40", code=1).stderr.splitlines()
            errors = [line for line in errors if line.startswith("error: ")]
            print("full disk:", *errors)
            assert len(errors) == 1 and "rank 0 of 2 on " in errors[0]
        finally:
            subprocess.run(["umount", small], check=True)


try:
    main()
finally:
    shutil.rmtree(ROOM, ignore_errors=True)
