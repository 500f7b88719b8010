"""Checks the run folder of the quick start: python3 .ci/check_quickstart.py RUN_FOLDER"""
import json, os, sys

folder = sys.argv[1]
with open(os.path.join(folder, "summary.json")) as f:
    s = json.load(f)
before, after = s["eval_before"]["loss"], s["eval_after"]["loss"]
print(f"{s['status']}: {s['steps']} steps in {s['seconds']:.0f} s, evaluation loss {before:.4f} -> {after:.4f}")
assert s["status"] == "finished" and s["steps"] == s["total_steps"], "the run did not finish"
assert after < before, "the loss after training is not below the loss before"
when = [sample["when"] for sample in s["samples"]]
assert len(set(when)) >= 2, f"samples before and after are expected, there are {when}"
for name in ("adapter_config.json", "adapter_model.safetensors"):
    assert os.path.getsize(os.path.join(folder, "adapter", name)) > 0
