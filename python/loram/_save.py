"""Saving an adapter: plain, for the untouched base, or native."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from . import _loram
from ._files import CONFIG_FILE, WEIGHTS_FILE, replace_file, replace_json
from ._layers import PREFIX, adapter_of, unwrap
from ._state import RECIPE_FILE, UNTOUCHED, AdapterStart, start_of


def save(
    peft_model: Any,
    directory: str | os.PathLike,
    *,
    plain: bool = True,
    adapter_name: str | None = None,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes an adapter that was initialised with `initialize` into a folder, with PEFT's two files and `loram.json`.

    The plain form has A' = [A; A₀] (2r, m) and B' = [B, −B₀] (n, 2r) and loads onto the untouched base with nothing but
    PEFT, vLLM or llama.cpp's converter; `lora_alpha` is such that s stays. The native form has A and B as trained, rank
    r, and is read by `loram.load` and by the program `loram`; PEFT refuses it. For schemes that leave the base alone both
    are the adapter of rank r. DoRA's magnitudes and fully trained modules are saved too.

    Args:
        peft_model: as for `initialize`.
        directory: made when it is not there; other files in it stay.
        plain: False for the native form.
        adapter_name: the active adapter by default.
        state_dict: the model's state dict, where it must be gathered first (`accelerator.get_state_dict(model)`).

    Raises:
        ValueError: an adapter that was not initialised here.
    """
    model = unwrap(peft_model)
    adapter = adapter_of(model, adapter_name)
    start = start_of(model, adapter)
    tensors = get_peft_model_state_dict(model, state_dict=state_dict, adapter_name=adapter)
    config = copy.deepcopy(model.peft_config[adapter])
    config.inference_mode = True
    config.init_lora_weights = True
    if config.base_model_name_or_path is None:
        config.base_model_name_or_path = getattr(model.base_model.model, "name_or_path", None) or None
    native = start.mode != UNTOUCHED and not plain
    if start.mode != UNTOUCHED and plain:
        _to_plain(tensors, start)
        _plain_settings(config)
    # without aliases, which safetensors cannot store
    tensors = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    settings = config.to_dict()
    settings["target_modules"] = _sorted(settings.get("target_modules"))
    settings["exclude_modules"] = _sorted(settings.get("exclude_modules"))
    if native:
        # PEFT stops at a name that it does not know, instead of computing with the untouched base
        settings["init_lora_weights"] = f"{start.scheme.name}-native"
    directory = os.fspath(directory)
    os.makedirs(directory, exist_ok=True)
    replace_file(os.path.join(directory, WEIGHTS_FILE), lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    replace_json(os.path.join(directory, RECIPE_FILE), start.to_json(native))
    replace_json(os.path.join(directory, CONFIG_FILE), settings)


def _sorted(names: Any) -> Any:
    return sorted(names) if isinstance(names, (set, list, tuple)) else names


def _to_plain(tensors: dict[str, torch.Tensor], start: AdapterStart) -> None:
    for path, one in start.layers.items():
        key_a, key_b = (f"{PREFIX}{path}.lora_{x}.weight" for x in "AB")
        a, b = tensors[key_a], tensors[key_b]
        a0, b0 = one.factors_on(a.device)
        tensors[key_a] = torch.cat([a, a0.to(a.dtype)], dim=0)
        tensors[key_b] = torch.cat([b, -b0.to(b.dtype)], dim=1)


def _plain_settings(config: Any) -> None:
    """The settings of the plain form. Patterns keep their order, in which PEFT matches them."""
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    config.r, alpha, r, by_pattern = _loram.plain_settings(config.r, config.lora_alpha, ranks, alphas, config.use_rslora)
    config.lora_alpha = _number(alpha)
    config.rank_pattern = {k: r[k] for k in ranks}
    config.alpha_pattern = {k: _number(by_pattern[k]) for k in alphas}


def _number(x: float) -> float | int:
    """An integer where it is one, as PEFT's files have it."""
    return int(x) if x.is_integer() else x
