"""PEFT's own saving and loading on a model that was initialised here: adds the recipe and reports mistakes."""

from __future__ import annotations

import json
import os
import types
import warnings
from typing import Any

from peft import PeftModel

from ._files import CONFIG_FILE, replace_json
from ._state import RECIPE_FILE, UNTOUCHED, read_recipe, starts


def guard(model: PeftModel) -> None:
    """Puts `save_pretrained` and `load_adapter` on this instance, over those of its class. Bound methods, so that a deep
    copy of the model has its own."""
    model.save_pretrained = types.MethodType(save_pretrained, model)
    model.load_adapter = types.MethodType(load_adapter, model)


def save_pretrained(self: PeftModel, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
    """PEFT's `save_pretrained`, and `loram.json` beside its files. Trainers call this for their checkpoints."""
    type(self).save_pretrained(self, save_directory, *args, **kwargs)
    selected = kwargs.get("selected_adapters") or list(self.peft_config)
    for adapter in selected:
        start = starts(self).get(adapter)
        if start is None:
            continue
        native = start.mode != UNTOUCHED
        folder = os.path.join(save_directory, adapter) if adapter != "default" else os.fspath(save_directory)
        if kwargs.get("is_main_process", True):
            replace_json(os.path.join(folder, RECIPE_FILE), start.to_json(native))
            if native:
                path = os.path.join(folder, CONFIG_FILE)
                with open(path, encoding="utf-8") as f:
                    config = json.load(f)
                # PEFT stops at a name that it does not know, instead of computing with the untouched base
                config["init_lora_weights"] = f"{start.scheme.name}-native"
                replace_json(path, config)
        if native and not start.warned:
            start.warned = True
            warnings.warn(
                f"{folder}: these factors belong to a base without the initial product of `{start.scheme.name}`. They resume the run "
                "(loram.resume, loram.load) but do not load onto the untouched base; for that, call "
                "loram.save(model, directory)",
                stacklevel=2,
            )


def load_adapter(self: PeftModel, model_id: str | os.PathLike, adapter_name: str, *args: Any, **kwargs: Any) -> Any:
    """PEFT's `load_adapter`, which trainers call to resume, after a check that the initialisation is the checkpoint's."""
    start = starts(self).get(adapter_name)
    folder = os.fspath(model_id)
    if start is not None and os.path.exists(os.path.join(folder, RECIPE_FILE)):
        recipe = read_recipe(folder)
        here = start.to_json(start.mode != UNTOUCHED)
        ask = f"initialise the model with loram.resume(model, {folder!r}) instead of loram.initialize"
        if recipe["form"] != here["form"]:
            raise ValueError(f"{folder}: holds a {recipe['form']} adapter, the model has a {here['form']} one; {ask}")
        for path, entry in here["layers"].items():
            if recipe["layers"].get(path) != entry:
                raise ValueError(f"{folder}: layer `{path}` was initialised differently in this model; {ask}")
    return type(self).load_adapter(self, model_id, adapter_name, *args, **kwargs)
