"""Loading an adapter, plain or native, of this package or of the program."""

from __future__ import annotations

import os
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

from ._files import WEIGHTS_FILE
from ._initialize import resume
from ._layers import PREFIX, layers
from ._state import RECIPE_FILE, read_recipe


def load(
    base: nn.Module,
    directory: str | os.PathLike,
    *,
    adapter_name: str = "default",
    is_trainable: bool = False,
    keep_base: bool | None = None,
) -> PeftModel:
    """Puts an adapter of this package, of the program `loram`, or of PEFT onto its base.

    A native one changes the base in memory by its start, as `initialize` does. A plain one, or one without `loram.json`,
    is loaded by PEFT.

    Args:
        base: the untouched base model, with weights (n, m) in the type that the adapter was initialised on.
        directory: an adapter folder or a trainer's checkpoint.
        adapter_name: name that it gets.
        is_trainable: whether to go on training.
        keep_base: as for `initialize`; for native adapters.

    Raises:
        ValueError: names the layer when the model is not the adapter's base.
    """
    directory = os.fspath(directory)
    recipe = read_recipe(directory) if os.path.exists(os.path.join(directory, RECIPE_FILE)) else None
    if recipe is None or not recipe["form"].startswith("native"):
        return PeftModel.from_pretrained(base, directory, adapter_name=adapter_name, is_trainable=is_trainable)
    config = LoraConfig.from_pretrained(directory)
    config.init_lora_weights = True
    config.inference_mode = not is_trainable
    tensors = load_file(os.path.join(directory, WEIGHTS_FILE))
    model = get_peft_model(base, config, adapter_name=adapter_name)
    for layer in layers(model, adapter_name):
        # the initial factors were rounded to the type of the factors; theirs is the file's
        stored = tensors.get(f"{PREFIX}{layer.path}.lora_A.weight")
        if stored is None:
            raise ValueError(f"{directory}: the layer `{layer.path}` of the model is not in {WEIGHTS_FILE}")
        layer.module.lora_A[adapter_name].to(stored.dtype)
        layer.module.lora_B[adapter_name].to(stored.dtype)
    resume(model, directory, adapter_name=adapter_name, keep_base=keep_base)
    set_peft_model_state_dict(model, tensors, adapter_name=adapter_name)
    return model if is_trainable else model.eval()
