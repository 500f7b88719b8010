"""How far an adapter has moved its weights, without forming n × m products."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from ._layers import Layer, adapter_of, layers, unwrap
from ._state import UNTOUCHED, LayerStart, start_of


@dataclass(frozen=True)
class Magnitude:
    """What an adapter does to the weight W (n, m) of one layer. ν[X] = ‖X‖²_F / entries."""

    #: n·m.
    entries: int
    #: ν[ΔW] of ΔW = s·(B·A − B₀·A₀).
    update: float
    #: ‖ΔW‖_F / ‖W‖_F.
    relative: float
    #: ‖ΔW‖₂, the largest singular value.
    spectral: float
    #: ν[A] and ν[B].
    a: float
    b: float


def magnitudes(peft_model: Any, *, adapter_name: str | None = None) -> dict[str, Magnitude]:
    """The magnitude of every layer's update, by module path, in O((n+m)·r²) for each, on the model's device.

    Args:
        peft_model: initialised with `initialize`, `resume` or, natively, `load`.
        adapter_name: the active adapter by default.

    Raises:
        ValueError: an adapter that was not initialised here.
    """
    model = unwrap(peft_model)
    adapter = adapter_of(model, adapter_name)
    start = start_of(model, adapter)
    with torch.no_grad():
        return {
            layer.path: _magnitude(layer, start.layers[layer.path], start.mode != UNTOUCHED)
            for layer in layers(model, adapter)
        }


def _magnitude(layer: Layer, start: LayerStart, subtracted: bool) -> Magnitude:
    a, b = _whole(layer.a), _whole(layer.b)
    tall, wide = a, b
    if subtracted:
        a0, b0 = (x.to(a.dtype) for x in start.factors_on(a.device))
        # (B − B₀)·A + B₀·(A − A₀): a small update beside large initial factors keeps its digits
        tall, wide = torch.cat([a, a - a0]), torch.cat([b - b0, b0], dim=1)
    of_a, of_b = tall @ tall.T, wide.T @ wide
    s = layer.scaling
    squares = s * s * max((of_a * of_b).sum().item(), 0.0)
    entries = layer.n * layer.m
    return Magnitude(
        entries=entries,
        update=squares / entries,
        relative=math.sqrt(squares / start.weight_squares) if start.weight_squares > 0 else math.nan,
        spectral=abs(s) * _largest(of_a, of_b),
        a=a.square().mean().item(),
        b=b.square().mean().item(),
    )


def _whole(x: torch.Tensor) -> torch.Tensor:
    """A factor in float64, gathered where it is sharded; on the CPU where the device has no float64."""
    x = x.full_tensor() if hasattr(x, "full_tensor") else x.detach()
    return x.cpu().double() if x.device.type == "mps" else x.double()


def _largest(of_a: torch.Tensor, of_b: torch.Tensor) -> float:
    """‖B·A‖₂ from AAᵀ and BᵀB: the root of the largest eigenvalue of √(AAᵀ)·BᵀB·√(AAᵀ)."""
    if not (torch.isfinite(of_a).all() and torch.isfinite(of_b).all()):
        return math.nan
    values, vectors = torch.linalg.eigh(of_a)
    root = vectors * values.clamp(min=0).sqrt()
    return math.sqrt(max(torch.linalg.eigvalsh(root.T @ of_b @ root)[-1].item(), 0.0))
