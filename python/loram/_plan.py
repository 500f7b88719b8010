"""Predictions of an initialisation before a run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _loram
from ._layers import adapter_of, check, layers, refuse_calibrated, to_numpy, unwrap


@dataclass(frozen=True)
class Forecast:
    """How fast a scheme moves the weights of a model (Proposition 2 of 2507.06558), over all adapted layers."""

    scheme: str
    #: ν[ΔW] after the first optimiser step at `lr`.
    step: float
    #: The rate at which that is what `reference` reaches at `lr`.
    matching_lr: float
    #: Mean over the layers of k₁ at s = 1; full fine-tuning has 1.
    k1: float
    #: Mean gain Q[r] of LoRAM's layers; None for other schemes.
    gain: float | None


def plan(
    peft_model: Any,
    schemes: Sequence[str] = ("lora", "loram"),
    *,
    lr: float = 2e-4,
    optimizer: str = "adamw",
    reference: str = "lora",
    gain: str | float = "log",
    grad_nu: float = 1.0,
    seed: int = 42,
    adapter_name: str | None = None,
) -> list[Forecast]:
    """Forecasts for schemes on a model, before `initialize`; the model is not touched.

    With Adam, whose steps have entries of about ±lr, ν[ΔW] ≈ s²·r·lr²·(ν[A] + ν[B]); with SGD, s⁴·k₁·lr²·ν[∇_W]. As
    magnitudes go with the square of the rate, `matching_lr` makes two schemes comparable.

    Args:
        peft_model: what `get_peft_model` gave.
        schemes: names of `loram.schemes()`.
        lr: learning rate.
        optimizer: `adamw` or `sgd`.
        reference: scheme whose first step is matched.
        gain: of `loram`.
        grad_nu: ν[∇_W], the second moment of a gradient's entries; counts with `sgd` only.
        seed: of random initialisations.
        adapter_name: the active adapter by default.

    Raises:
        ValueError: an unknown optimiser or scheme, or a scheme that needs calibration data; a layer that cannot be initialised, by name.
    """
    if optimizer not in ("adamw", "sgd"):
        raise ValueError(f"optimizer: expected adamw or sgd, found `{optimizer}`")
    model = unwrap(peft_model)
    adapter = adapter_of(model, adapter_name)
    found = layers(model, adapter)
    names = list(dict.fromkeys([*schemes, reference]))
    parsed = [_loram.Scheme(name, json.dumps({"gain": gain} if name == "loram" else {})) for name in names]
    for scheme in parsed:
        refuse_calibrated(scheme)
    sums: dict[str, list[float]] = {name: [0.0, 0.0] for name in names}
    gains: dict[str, list[float]] = {name: [] for name in names}
    entries = 0
    for layer in found:
        check(layer)
        weight = to_numpy(layer.weight())
        size = layer.n * layer.m
        entries += size
        alpha = float(layer.module.lora_alpha[adapter])
        for name, scheme in zip(names, parsed):
            start = scheme.start(layer.path, weight, layer.r, alpha, layer.scaling, seed)
            a, b, s = start["a"], start["b"], start["scaling"]
            k1 = _loram.k1(a, b, start["train_a"], start["train_b"])
            if optimizer == "sgd":
                step = _loram.sgd_growth(k1, s, lr, grad_nu, 1.0)
            else:
                lr_a, lr_b = (lr if start[key] else 0.0 for key in ("train_a", "train_b"))
                step = _loram.adam_step(s, layer.r, lr_a, lr_b, _nu(a), _nu(b))
            sums[name][0] += step * size
            sums[name][1] += k1
            recipe = json.loads(start["recipe"])
            if recipe.get("gain") is not None:
                gains[name].append(recipe["gain"])
    wanted = sums[reference][0] / entries
    rows = []
    for name in schemes:
        step = sums[name][0] / entries
        matching = _loram.matching_lr(lr, step, wanted) if step > 0 else math.nan
        mean = sum(gains[name]) / len(gains[name]) if gains[name] else None
        rows.append(Forecast(name, step, matching, sums[name][1] / len(found), mean))
    return rows


def _nu(x: np.ndarray) -> float:
    return float(np.mean(np.square(x, dtype=np.float64)))
