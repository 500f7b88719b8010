"""What works on arrays alone, without torch and PEFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _loram


def schemes() -> list[dict[str, Any]]:
    """All schemes of `initialize`, the default first.

    Each is a dict of `name`, `summary`, `source` (arXiv number or program), `needs_weight`, `changes_base` (B₀A₀ ≠ 0, so
    that the base becomes W − s·B₀A₀), `calibrated_by` (what it reads of calibration data, which only the program does, or
    None) and `options` (the keyword arguments of `initialize` that it takes).
    """
    return [dict(s) for s in _loram.schemes()]


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a weight (n, m), and what they say about gains."""

    shape: tuple[int, int]
    #: min(n, m) singular values in float64, descending.
    sigma: np.ndarray

    def gain(self, r: int) -> float:
        """The exact gain Q[r] = (Σ_{i≤r} σ_i)² / (r·Σ σ_i²), in (0, 1]."""
        self._check(r)
        return _loram.exact_gain(self.sigma.tolist(), r)

    def log_gain(self, r: int) -> float:
        """The logarithmic model of it, ln r / ln min(n, m), which needs no spectrum."""
        self._check(r)
        return _loram.log_gain(r, *self.shape)

    def _check(self, r: int) -> None:
        if not 1 <= r <= min(self.shape):
            raise ValueError(f"expected a rank from 1 to {min(self.shape)} for a weight {self.shape}, found {r}")


def spectrum(weight: Any) -> Spectrum:
    """The spectrum of a weight (n, m): a numpy array, or a torch tensor on any device, in float32, float16 or bfloat16.

    Raises ValueError for another shape and for values that are not finite.
    """
    if hasattr(weight, "detach"):
        from ._layers import to_numpy

        weight = to_numpy(weight)
    array = np.ascontiguousarray(weight, dtype=None if weight.dtype in (np.float16, np.uint16) else np.float32)
    if array.ndim != 2:
        raise ValueError(f"expected a weight with two dimensions, found the shape {tuple(array.shape)}")
    if not np.isfinite(_loram.sums(array)[1]):
        raise ValueError("the weight holds NaN or infinite values")
    n, m = array.shape
    return Spectrum((n, m), _loram.singular_values("weight", array))
