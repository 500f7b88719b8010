"""Reference values for the unit tests of loram-train, from torch, transformers, peft, sklearn and scipy.

    python crates/loram-train/tests/reference.py

writes tests/reference/*. Needs torch, transformers, peft, scikit-learn, scipy, safetensors and seqeval.
"""

import json
from pathlib import Path

import numpy as np
import torch
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from seqeval.metrics import f1_score as entity_f1, precision_score as entity_precision, recall_score as entity_recall
from transformers import get_scheduler

OUT = Path(__file__).parent / "reference"
torch.set_num_threads(2)


def schedules():
    for kind in ["cosine", "linear", "constant_with_warmup"]:
        p = torch.nn.Parameter(torch.zeros(1))
        opt = torch.optim.SGD([p], lr=1e-3)
        sched = get_scheduler(kind, opt, num_warmup_steps=3, num_training_steps=8)
        rates = []
        for _ in range(8):
            rates.append(float(sched.get_last_lr()[0]))
            opt.step()
            sched.step()
        (OUT / f"{kind}.in").write_text("&[" + ", ".join(repr(r) for r in rates) + "]\n")


def metrics():
    rng = np.random.default_rng(0)
    classes = []
    for labels, n, skew in [(2, 40, 0.5), (2, 25, 0.9), (3, 60, 0.4), (5, 50, 0.2), (4, 12, 0.7)]:
        actual = rng.integers(0, labels, n)
        guess = rng.integers(0, labels, n)
        predicted = np.where(rng.random(n) < skew, actual, guess)
        average = "binary" if labels == 2 else "macro"
        classes.append({
            "labels": labels,
            "predicted": predicted.tolist(),
            "actual": actual.tolist(),
            "accuracy": accuracy_score(actual, predicted),
            "f1": f1_score(actual, predicted, average=average),
            "matthews": matthews_corrcoef(actual, predicted),
        })
    numbers = []
    for n, ties in [(30, False), (40, True), (7, True)]:
        x = rng.normal(size=n)
        y = 0.6 * x + rng.normal(size=n)
        if ties:
            x, y = np.round(x * 2) / 2, np.round(y)
        numbers.append({
            "x": x.tolist(), "y": y.tolist(),
            "pearson": float(pearsonr(x, y)[0]),
            "spearman": float(spearmanr(x, y)[0]),
            "mse": float(np.mean((x - y) ** 2)),
        })
    (OUT / "metrics.json").write_text(json.dumps({"classes": classes, "numbers": numbers}) + "\n")


def sets():
    rng = np.random.default_rng(1)
    cases = []
    for labels, n, share in [(3, 30, 0.4), (6, 40, 0.2), (2, 15, 0.5), (5, 20, 0.05)]:
        actual = (rng.random((n, labels)) < share).astype(int)
        actual[:, 0] = 0 if labels == 5 else actual[:, 0]
        predicted = np.where(rng.random((n, labels)) < 0.7, actual, rng.random((n, labels)) < share).astype(int)
        cases.append({
            "labels": labels,
            "predicted": [np.flatnonzero(row).tolist() for row in predicted],
            "actual": [np.flatnonzero(row).tolist() for row in actual],
            "micro": f1_score(actual, predicted, average="micro", zero_division=0),
            "macro": f1_score(actual, predicted, average="macro", zero_division=0),
            "accuracy": accuracy_score(actual, predicted),
        })
    (OUT / "sets.json").write_text(json.dumps(cases) + "\n")


def entities():
    rng = np.random.default_rng(2)
    iob = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    schemes = [iob, iob, iob, ["O", "I-PER", "I-LOC"], [*iob, "E-PER", "S-PER", "E-LOC", "S-LOC"], ["O", "NOUN", "VERB", "B"],
               ["O", "B-a-b", "I-a-b", "I-a"], [*iob, "B-MISC", "I-MISC"]]
    cases = []
    for tags, agree in zip(schemes, [0.9, 0.5, 1.0, 0.8, 0.7, 0.8, 0.7, 0.0]):
        actual = [rng.choice(tags, size=rng.integers(1, 14)).tolist() for _ in range(12)]
        predicted = [[t if rng.random() < agree else str(rng.choice(tags)) for t in text] for text in actual]
        cases.append({"predicted": predicted, "actual": actual, "precision": float(entity_precision(actual, predicted)),
                      "recall": float(entity_recall(actual, predicted)), "f1": float(entity_f1(actual, predicted))})
    # nothing found, and nothing to find
    for predicted, actual in [(["O", "O"], ["B-PER", "O"]), (["B-PER", "O"], ["O", "O"])]:
        cases.append({"predicted": [predicted], "actual": [actual], "precision": 0.0, "recall": 0.0, "f1": 0.0})
    (OUT / "entities.json").write_text(json.dumps(cases) + "\n")


class Linear(torch.nn.Module):
    """A LoRA layer by its names only: PEFT's groups go by names and shapes."""

    def __init__(self, g):
        super().__init__()
        self.lora_A = torch.nn.Parameter(torch.randn(2, 5, generator=g))
        self.lora_B = torch.nn.Parameter(torch.randn(4, 2, generator=g))
        self.weight = torch.nn.Parameter(torch.randn(3, 4, generator=g))
        self.bias = torch.nn.Parameter(torch.randn(3, generator=g))


def optimisers():
    """Six steps on a quadratic Σ c·(p − t)², whose gradient 2c(p − t) the Rust test computes itself."""
    tensors, runs = {}, []
    shapes = ["lora_A", "lora_B", "weight", "bias"]
    for name, make in {
        "adamw": lambda ps: torch.optim.AdamW(groups(ps, 0.1), lr=0.05, betas=(0.8, 0.95), eps=1e-6),
        "sgd": lambda ps: torch.optim.SGD(groups(ps, 0.1), lr=0.05, momentum=0.0),
        "momentum": lambda ps: torch.optim.SGD(groups(ps, 0.0), lr=0.05, momentum=0.9),
        "loraplus": None,
        "clipped": lambda ps: torch.optim.SGD(groups(ps, 0.0), lr=0.05),
    }.items():
        g = torch.Generator().manual_seed(1)
        m = Linear(g)
        target = {k: torch.randn(getattr(m, k).shape, generator=g) for k in shapes}
        curve = {k: torch.rand(getattr(m, k).shape, generator=g) + 0.1 for k in shapes}
        for k in shapes:
            tensors[f"start.{k}"] = getattr(m, k).detach().clone()
            tensors[f"target.{k}"], tensors[f"curve.{k}"] = target[k], curve[k]
        if name == "loraplus":
            opt = create_loraplus_optimizer(
                m, torch.optim.AdamW, lr=0.05, loraplus_lr_ratio=4.0, loraplus_weight_decay=0.1,
                betas=(0.9, 0.999), eps=1e-8)
        else:
            opt = make(m)
        norms = []
        for _ in range(6):
            opt.zero_grad()
            sum((curve[k] * (getattr(m, k) - target[k]) ** 2).sum() for k in shapes).backward()
            if name == "clipped":
                norms.append(float(torch.nn.utils.clip_grad_norm_(m.parameters(), 1.5)))
            opt.step()
        for k in shapes:
            tensors[f"{name}.{k}"] = getattr(m, k).detach().clone()
        runs.append({"name": name, "norms": norms})
    save_file(tensors, OUT / "optim.safetensors")
    (OUT / "optim.json").write_text(json.dumps(runs) + "\n")


def groups(m, decay):
    return [
        {"params": [m.lora_A, m.lora_B, m.weight], "weight_decay": decay},
        {"params": [m.bias], "weight_decay": 0.0},
    ]


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    schedules()
    metrics()
    sets()
    entities()
    optimisers()
