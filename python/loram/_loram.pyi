"""loram-core on numpy arrays. Weights are (n, m), C-contiguous: float32, float16, or bfloat16 as its bits in uint16."""

from typing import Any, TypedDict, final

import numpy as np
from numpy.typing import NDArray

__version__: str

class _Start(TypedDict):
    a: NDArray[np.float32]
    b: NDArray[np.float32]
    changes_base: bool
    lora_alpha: float
    scaling: float
    train_a: bool
    train_b: bool
    recipe: str

class _Scheme(TypedDict):
    name: str
    summary: str
    source: str
    needs_weight: bool
    changes_base: bool
    calibrated_by: str | None
    options: list[str]

@final
class Scheme:
    def __new__(cls, name: str, options: str) -> Scheme: ...
    @property
    def name(self) -> str: ...
    @property
    def options(self) -> str: ...
    @property
    def changes_base(self) -> bool: ...
    @property
    def sums_suffice(self) -> bool: ...
    @property
    def calibrated_by(self) -> str | None: ...
    def start(
        self, path: str, weight: NDArray[Any], r: int, lora_alpha: float, scaling: float, seed: int
    ) -> _Start: ...
    def start_from_sums(
        self,
        path: str,
        sums: tuple[float, float],
        n: int,
        m: int,
        r: int,
        lora_alpha: float,
        scaling: float,
        seed: int,
    ) -> _Start: ...

def from_recipe(recipe: str) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None: ...
def plain_settings(
    r: int, lora_alpha: float, rank_pattern: dict[str, int], alpha_pattern: dict[str, float], use_rslora: bool
) -> tuple[int, float, dict[str, int], dict[str, float]]: ...
def schemes() -> list[_Scheme]: ...
def sums(weight: NDArray[Any]) -> tuple[float, float]: ...
def singular_values(path: str, weight: NDArray[Any]) -> NDArray[np.float64]: ...
def exact_gain(sigma: list[float], r: int) -> float: ...
def log_gain(r: int, n: int, m: int) -> float: ...
def k1(a: NDArray[np.float32], b: NDArray[np.float32], train_a: bool, train_b: bool) -> float: ...
def sgd_growth(k1: float, scaling: float, lr: float, grad_nu: float, steps: float) -> float: ...
def adam_step(scaling: float, r: int, lr_a: float, lr_b: float, nu_a: float, nu_b: float) -> float: ...
def matching_lr(lr: float, own: float, wanted: float) -> float: ...
