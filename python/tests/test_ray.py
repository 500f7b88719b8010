"""`loram.ray.compare` on a Ray cluster of one machine."""

import json
import shutil
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

import loram.ray  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BUILT = [ROOT / "target" / kind / "loram" for kind in ("release", "debug")]
PROGRAM = shutil.which("loram") or next((str(p) for p in BUILT if p.exists()), None)

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="the program loram is not built")

GRID = """
models: ["{root}/assets/tiny-llama-en"]
tasks: {{restaurants: {{train_data: "demo:restaurants?n=32", eval_data: "demo:restaurants?split=dev&n=16"}}}}
schemes: {{lora: {{init_lora_weights: lora}}, loram: {{init_lora_weights: loram}}}}
learning_rate: [1e-3, 2e-3]
seed: [0]
max_steps: 2
output_dir: {out}
"""


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("shared", [True, False])
def test_all_runs_of_a_grid(cluster, tmp_path, shared):
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID.format(root=ROOT, out=tmp_path / "out"))
    ended = []
    found = loram.ray.compare(grid, program=PROGRAM, shared=shared, on_run=lambda name, error: ended.append((name, error)))
    assert not found.failed and len(found.scored) == 4 and found.waiting == 0
    assert ended == [(name, None) for name in found.scored]
    for name in found.scored:
        scores = json.loads((tmp_path / "out" / "runs" / name / "scores.json").read_text())
        assert scores["outcome"] == "finished"
    assert loram.ray.compare(grid, program=PROGRAM) == loram.ray.Compared(), "nothing is left"


def test_a_run_that_fails_does_not_end_the_others(cluster, tmp_path):
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID.format(root=ROOT, out=tmp_path / "out") + "r: [4, 100000]\n")
    found = loram.ray.compare(grid, program=PROGRAM)
    assert len(found.scored) == 4 and len(found.failed) == 4, found


def test_mistakes(cluster, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such grid"):
        loram.ray.compare(tmp_path / "nowhere.yaml", program=PROGRAM)
    bad = tmp_path / "bad.yaml"
    bad.write_text("schemas: [lora]\n")
    with pytest.raises(RuntimeError, match="schemas"):
        loram.ray.compare(bad, program=PROGRAM)
