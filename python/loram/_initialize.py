"""Starting an adapter, and starting it again as a recipe says."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

import torch
from peft import PeftModel

from . import _loram
from ._branch import StartBranch
from ._guard import guard
from ._layers import (
    Layer,
    adapter_of,
    check,
    device_sums,
    exact_products,
    is_plain_linear,
    layers,
    refuse_calibrated,
    refuse_tied,
    rows_at_once,
    to_numpy,
    unwrap,
)
from ._state import BRANCH, CHANGED, UNTOUCHED, AdapterStart, LayerStart, fingerprints, matches, read_recipe, starts

log = logging.getLogger("loram")

#: Initialisations of PEFT that change the loaded base.
_PEFT_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def initialize(
    peft_model: Any,
    scheme: str = "loram",
    *,
    gain: str | float = "log",
    basis: str = "dst",
    gain_statistic: str = "second-moment",
    seed: int = 42,
    adapter_name: str | None = None,
    keep_base: bool | None = None,
) -> dict[str, dict[str, Any]]:
    """Initialises an adapter with a scheme; the model's output does not change.

    Sets A (r, m) and B (n, r) of every layer of the adapter, Linear and Conv1D, in the type that they have. With schemes
    whose s·B₀A₀ is not 0, `loram` among them, the base's weight W (n, m) becomes W − s·B₀A₀ in memory: the factors are
    rounded to their stored type first, then their product is computed in float32 and subtracted. Where the base must not
    change, the initial product is a frozen branch instead, subtracted in the forward pass.

    Args:
        peft_model: what `get_peft_model` gave, with a LoRA configuration that is not initialised with PiSSA or the like.
            Ranks, alphas, patterns, rsLoRA and DoRA are the configuration's.
        scheme: a name of `loram.schemes()` whose `calibrated_by` is None; `pissa-niter-4` for 4 iterations.
        gain: of `loram`: `log`, `log-half`, `exact`, `sketch`, `track:<scheme>`, or a number in (0, 1]
            (`auto` needs gradients, which only the trainer has).
        basis: of `loram`: `dst`, `dct`, `random-orthogonal`, `gaussian`.
        gain_statistic: of `loram`: `second-moment` as in the paper, `variance` as in its authors' code.
        seed: of random initialisations and of `sketch`.
        adapter_name: the active adapter by default.
        keep_base: True for a frozen branch, False for a changed base. By default the base is changed unless it is
            quantised or the model has several adapters.

    Returns:
        By module path what `loram.json` says of the layer: scheme, path, n, m, r, scaling, seed, and β and the gain.

    Raises:
        ValueError: names the layer or the argument; nothing has been changed then. Among the reasons are an unknown
            scheme or one that needs calibration data, a rank above min(n, m), weights on the meta device, sharded or tied weights, and a base that another
            initialisation has changed.
    """
    options = json.dumps({"basis": basis, "gain": gain, "gain_statistic": gain_statistic.replace("_", "-")})
    parsed = _loram.Scheme(scheme, options)
    return _start(unwrap(peft_model), parsed, seed, adapter_name, keep_base, None)


def resume(
    peft_model: Any, checkpoint: str | os.PathLike, *, adapter_name: str | None = None, keep_base: bool | None = None
) -> dict[str, dict[str, Any]]:
    """Initialises an adapter from the `loram.json` of a checkpoint, so that the base is the one that the run had.

    For a run that stopped: make the base and `get_peft_model` as before, call this with the checkpoint, then
    `trainer.train(resume_from_checkpoint=checkpoint)`. A₀ and B₀ are those of the recipe, bit for bit; β is not computed
    again. The trained factors are loaded by the trainer.

    Args:
        peft_model: as for `initialize`.
        checkpoint: a folder with a `loram.json`, or the file.
        adapter_name: the active adapter by default.
        keep_base: as for `initialize`.

    Raises:
        ValueError: names the layer when the model does not fit the recipe, or is another base by its fingerprint.
    """
    recipe = read_recipe(checkpoint)
    parsed = _loram.Scheme(recipe["scheme"], json.dumps(recipe.get("options") or {}))
    return _start(unwrap(peft_model), parsed, recipe["seed"], adapter_name, keep_base, recipe)


def _start(
    model: PeftModel,
    scheme: _loram.Scheme,
    seed: int,
    adapter_name: str | None,
    keep_base: bool | None,
    recipe: dict[str, Any] | None,
) -> dict[str, dict[str, Any]]:
    refuse_calibrated(scheme)
    adapter = adapter_of(model, adapter_name)
    found = layers(model, adapter)
    for layer in found:
        check(layer)
    mode = _mode(model, adapter, found, scheme, keep_base)
    if recipe is not None:
        _check_recipe(recipe, found)
    prints = fingerprints(found)
    made, squares = {}, {}
    for layer in found:
        made[layer.path], squares[layer.path] = _make(layer, scheme, seed, recipe)
    # from here on nothing is refused
    start = AdapterStart(scheme, seed, mode, {}, prints)
    _set_alpha(model, adapter, found, made)
    with torch.no_grad(), exact_products():
        for layer in found:
            one = made.pop(layer.path)
            start.layers[layer.path] = _apply(layer, one, mode, squares[layer.path])
    starts(model)[adapter] = start
    guard(model)
    log.info("%s on %d layers of adapter `%s`, %s", scheme.name, len(found), adapter, mode)
    return {path: dict(s.recipe) for path, s in start.layers.items()}


def _mode(model: PeftModel, adapter: str, found: list[Layer], scheme: _loram.Scheme, keep_base: bool | None) -> str:
    """How the initial product is kept out of the output. Errors: a base that was changed before, or that cannot be."""
    config = model.peft_config[adapter]
    own = config.init_lora_weights
    if isinstance(own, str) and own.lower().startswith(_PEFT_CHANGES_BASE):
        raise ValueError(
            f"init_lora_weights: PEFT has changed the base by `{own}` already; make the adapter with "
            "init_lora_weights=True on a freshly loaded base"
        )
    changed = [name for name, s in starts(model).items() if s.mode == CHANGED]
    if changed:
        what = "again" if changed == [adapter] else f"beside `{changed[0]}`"
        raise ValueError(
            f"adapter `{adapter}` cannot be initialised {what}: the initialisation `{changed[0]}` has changed the base; load the "
            "base anew" + ("" if changed == [adapter] else ", and initialise both with keep_base=True")
        )
    if not scheme.changes_base:
        return UNTOUCHED
    quantised = next((layer for layer in found if layer.is_quantised), None)
    several = len(model.peft_config) > 1
    keep = keep_base if keep_base is not None else quantised is not None or several
    if not keep:
        if quantised is not None:
            kind = type(quantised.base).__name__
            raise ValueError(f"layer `{quantised.path}`: a quantised {kind} cannot change; leave keep_base at None or True")
        if several:
            raise ValueError(
                f"keep_base=False: the model has the adapters {', '.join(model.peft_config)}, and a base that was changed "
                "for one is wrong for the others"
            )
        refuse_tied(model, found)
        return CHANGED
    for layer in found:
        if adapter in layer.module.lora_magnitude_vector:
            raise ValueError(
                f"layer `{layer.path}`: DoRA takes the norm of W + s·B·A and so needs a base that changes; use a base that "
                "is not quantised and keep_base=False, or use_dora=False"
            )
        if not is_plain_linear(layer.module):
            kind = type(layer.module).__name__
            raise ValueError(f"layer `{layer.path}`: PEFT's {kind} has no place for a frozen branch, and its base cannot change")
    return BRANCH


def _make(layer: Layer, scheme: _loram.Scheme, seed: int, recipe: dict[str, Any] | None) -> tuple[dict[str, Any], float]:
    """The initialisation of a layer, by scheme or by recipe, and ‖W‖²_F."""
    weight = layer.weight()
    # on the CPU the Rust side reads torch's memory in place, and β has the bits that the program gives
    on_cpu = weight.device.type == "cpu"
    array = to_numpy(weight) if on_cpu or not scheme.sums_suffice else None
    sums = _loram.sums(array) if on_cpu else device_sums(weight)
    path, r, alpha, s = layer.path, layer.r, float(layer.module.lora_alpha[layer.adapter]), layer.scaling
    if recipe is not None:
        entry = recipe["layers"][path]
        seed = entry["seed"]
        arrays = _loram.from_recipe(json.dumps(entry))
        if arrays is not None:
            base = _loram.Scheme(entry["scheme"], "{}")
            zeros = base.start_from_sums(path, (0.0, 1.0), layer.n, layer.m, r, alpha, s, seed) if base.sums_suffice else {}
            made = {"lora_alpha": alpha, "scaling": s, "train_a": True, "train_b": True, **zeros}
            return {**made, "a": arrays[0], "b": arrays[1], "recipe": json.dumps(entry)}, sums[1]
    if scheme.sums_suffice:
        made = scheme.start_from_sums(path, sums, layer.n, layer.m, r, alpha, s, seed)
    else:
        made = scheme.start(path, array, r, alpha, s, seed)
    return made, sums[1]


def _check_recipe(recipe: dict[str, Any], found: list[Layer]) -> None:
    """ValueError that names the first layer for which the model and the recipe differ."""
    if recipe["form"] == "plain" and _loram.Scheme(recipe["scheme"], json.dumps(recipe.get("options") or {})).changes_base:
        raise ValueError(
            "the recipe belongs to a plain adapter, which loads onto the untouched base with PeftModel.from_pretrained; "
            "only checkpoints and native adapters are resumed"
        )
    known = (recipe.get("base") or {}).get("layers", {})
    for layer in found:
        entry = recipe["layers"].get(layer.path)
        if entry is None:
            raise ValueError(f"layer `{layer.path}`: the recipe has no entry for it")
        has, wants = (layer.n, layer.m, layer.r), (entry["n"], entry["m"], entry["r"])
        if has != wants:
            raise ValueError(f"layer `{layer.path}`: expected (n, m, r) = {wants} by the recipe, found {has}")
        if not layer.is_quantised and layer.path in known and not matches(layer, known[layer.path]):
            raise ValueError(
                f"layer `{layer.path}`: the adapter was initialised on other weights, of fingerprint {known[layer.path]}; load "
                "its base model, in the same dtype"
            )
    missing = sorted(set(recipe["layers"]) - {layer.path for layer in found})
    if missing:
        raise ValueError(f"layer `{missing[0]}`: the recipe has it, the model does not")


def _set_alpha(model: PeftModel, adapter: str, found: list[Layer], made: dict[str, dict[str, Any]]) -> None:
    """What a scheme sets itself (`lora-alpha`), in the layers and in the configuration that will be saved."""
    alphas = {layer.path: made[layer.path]["lora_alpha"] for layer in found}
    if all(alphas[layer.path] == layer.module.lora_alpha[adapter] for layer in found):
        return
    for layer in found:
        layer.module.lora_alpha[adapter] = alphas[layer.path]
        layer.module.scaling[adapter] = made[layer.path]["scaling"]
    config = model.peft_config[adapter]
    config.lora_alpha = next(iter(alphas.values()))
    config.alpha_pattern = alphas if len(set(alphas.values())) > 1 else {}


def _apply(layer: Layer, made: dict[str, Any], mode: str, squares: float) -> LayerStart:
    a, b = layer.a, layer.b
    a.copy_(torch.from_numpy(made["a"]))
    b.copy_(torch.from_numpy(made["b"]))
    a.requires_grad_(a.requires_grad and made["train_a"])
    b.requires_grad_(b.requires_grad and made["train_b"])
    StartBranch.detach(layer.module, layer.adapter)
    if mode == CHANGED:
        subtract(layer, a, b)
    elif mode == BRANCH:
        StartBranch.attach(layer.module, layer.adapter, a.detach().clone(), b.detach().clone())
    recipe = json.loads(made["recipe"])
    again = _loram.from_recipe(made["recipe"]) is not None
    kept = None if again else (a.detach().cpu().clone(), b.detach().cpu().clone())
    return LayerStart(recipe, squares, kept, a.dtype)


def subtract(layer: Layer, a: torch.Tensor, b: torch.Tensor) -> None:
    """W ← W − s·B·A for the factors as stored, computed in float32, in blocks of rows."""
    weight = layer.weight()
    a = a.detach().float()
    step = rows_at_once(layer.m)
    for at in range(0, layer.n, step):
        part = weight[at : at + step]
        part.copy_(torch.addmm(part.float(), b.detach()[at : at + step].float(), a, alpha=-layer.scaling))
    dora = layer.module.lora_magnitude_vector
    if layer.adapter in dora:
        # the norm of what the rounded weights add up to, so that DoRA's ratio is 1 exactly
        dora[layer.adapter].update_layer(
            base_layer=layer.base, lora_A=layer.a.data, lora_B=layer.b.data, scaling=layer.scaling
        )
