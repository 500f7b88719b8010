"""The initialisations of a PEFT model's adapters, and the file `loram.json` that records them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel

from . import _loram
from ._layers import DTYPES, Layer, rows_at_once

RECIPE_FILE = "loram.json"
#: How an initial product that is not 0 is kept out of the model's output.
CHANGED, BRANCH, UNTOUCHED = "changed base", "frozen branch", "untouched base"


@dataclass
class LayerStart:
    """The initialisation of one layer."""

    #: The layer's entry in `loram.json`.
    recipe: dict[str, Any]
    #: ‖W‖²_F of the untouched base.
    weight_squares: float
    #: A₀ (r, m) and B₀ (n, r) as stored, on the CPU, for schemes whose recipe does not make them again.
    factors: tuple[torch.Tensor, torch.Tensor] | None
    #: The type that the factors had when they were subtracted.
    dtype: torch.dtype

    def factors_on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """A₀ (r, m) and B₀ (n, r) on a device, bit for bit as they were subtracted."""
        made = self.factors
        if made is None:
            arrays = _loram.from_recipe(json.dumps(self.recipe))
            if arrays is None:
                raise ValueError(f"layer `{self.recipe['path']}`: its recipe does not reproduce its initialisation")
            made = tuple(torch.from_numpy(x).to(self.dtype) for x in arrays)
        return made[0].to(device), made[1].to(device)


@dataclass
class AdapterStart:
    """The initialisation of an adapter."""

    scheme: _loram.Scheme
    seed: int
    #: `CHANGED`, `BRANCH` or `UNTOUCHED`.
    mode: str
    layers: dict[str, LayerStart]
    fingerprint: dict[str, str] = field(default_factory=dict)
    #: Whether the warning of `save_pretrained` was given.
    warned: bool = False

    def __deepcopy__(self, memo: dict) -> AdapterStart:
        # nothing in it changes once it is made, and the scheme belongs to Rust
        return AdapterStart(self.scheme, self.seed, self.mode, self.layers, self.fingerprint, self.warned)

    def to_json(self, native: bool) -> dict[str, Any]:
        """The object of `loram.json`."""
        dtypes = {s.dtype for s in self.layers.values()}
        return {
            "format": 1,
            "loram_version": _loram.__version__,
            "form": native_form(dtypes) if native else "plain",
            "scheme": self.scheme.name,
            "options": json.loads(self.scheme.options),
            "seed": self.seed,
            "layers": {path: s.recipe for path, s in sorted(self.layers.items())},
            "base": {"algorithm": "sha256-blocks", "layers": dict(sorted(self.fingerprint.items()))}
            if self.fingerprint
            else None,
        }


def native_form(dtypes: set[torch.dtype]) -> str:
    """`native` for factors in float32. A recipe gives A₀ and B₀ in float32, and the program takes them as they are; where
    they were rounded before they were subtracted, the form has a name that it refuses rather than computes wrongly with."""
    if dtypes <= {torch.float32}:
        return "native"
    return "native-" + "-".join(sorted(DTYPES[d].lower() for d in dtypes))


def starts(model: PeftModel) -> dict[str, AdapterStart]:
    """The initialisations of a model's adapters, by adapter name; empty if loram made none."""
    return model.__dict__.setdefault("_loram_starts", {})


def start_of(model: PeftModel, adapter: str) -> AdapterStart:
    """The initialisation of an adapter. ValueError if loram did not make it."""
    found = starts(model).get(adapter)
    if found is None:
        raise ValueError(f"adapter `{adapter}` was not initialised here; call loram.initialize first")
    return found


def read_recipe(path: str | os.PathLike) -> dict[str, Any]:
    """The object of a `loram.json`, or of the one in a folder. ValueError when it is none that this version reads."""
    path = os.fspath(path)
    path = os.path.join(path, RECIPE_FILE) if os.path.isdir(path) else path
    try:
        with open(path, encoding="utf-8") as f:
            recipe = json.load(f)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; it records an adapter's initialisation") from None
    except ValueError as e:
        raise ValueError(f"{path}: no valid recipe: {e}") from e
    missing = [k for k in ("format", "form", "scheme", "seed", "layers") if k not in recipe]
    if missing:
        raise ValueError(f"{path}: no valid recipe: `{missing[0]}` is missing")
    if recipe["format"] != 1:
        raise ValueError(f"{path}: recipe layout {recipe['format']} is newer than this package, which reads 1")
    return recipe


#: As loram-io's `Fingerprint`: dtype, shape, and 64 evenly spaced blocks of 4 KiB, or all of a small tensor.
_BLOCK, _BLOCKS = 4096, 64


def fingerprints(layers: list[Layer]) -> dict[str, str]:
    """The digests of all weights that are not quantised, as `loram.json` has them: of the type that the base's file has.
    A base that was loaded in float32 from a file in 16 bits is told by values that all fit those 16 bits."""
    plain = [layer for layer in layers if not layer.is_quantised]
    narrow = (d for d in (torch.bfloat16, torch.float16) if plain and all(_fits(layer, d) for layer in plain))
    dtype = next(narrow, None)
    return {layer.path: fingerprint(layer, dtype) for layer in plain}


def matches(layer: Layer, digest: str) -> bool:
    """Whether a digest is that of a layer's weight, in any type that holds its values."""
    return any(fingerprint(layer, d) == digest for d in DTYPES if _fits(layer, d))


def _fits(layer: Layer, dtype: torch.dtype) -> bool:
    """Whether all values of a weight are values of this type."""
    weight = layer.base.weight.detach()
    if dtype in (weight.dtype, torch.float32):
        return True
    if weight.dtype != torch.float32:
        return False
    # most weights that do not fit show it at once
    parts = [weight[:1], *weight.split(rows_at_once(weight.shape[1]))]
    return all(torch.equal(part.to(dtype).to(weight.dtype), part) for part in parts)


def fingerprint(layer: Layer, dtype: torch.dtype | None = None) -> str:
    """The digest of a layer's weight in a type. Hashes 256 KiB of it, on any device."""
    weight = layer.base.weight.detach()
    weight = weight if dtype is None else weight.to(dtype)
    flat = weight.contiguous().view(-1)
    digest = hashlib.sha256(f"{DTYPES[weight.dtype]} [{', '.join(map(str, weight.shape))}]\n".encode())
    data = flat.view(torch.uint8)
    if data.numel() > _BLOCK * _BLOCKS:
        step = (data.numel() - _BLOCK) // (_BLOCKS - 1)
        data = torch.cat([data[step * i : step * i + _BLOCK] for i in range(_BLOCKS)])
    digest.update(data.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
