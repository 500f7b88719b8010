"""Magnitudes in a trainer's log."""

from __future__ import annotations

import math
from typing import Any

from transformers import Trainer, TrainerCallback

from ._magnitude import magnitudes


class MagnitudeCallback(TrainerCallback):
    """Adds the magnitude of the update to every training log, for transformers' Trainer and those of TRL.

    `loram/update` is ν[ΔW] over the entries of all adapted layers, `loram/relative` the largest ‖ΔW‖_F/‖W‖_F of a layer,
    `loram/spectral` the largest ‖ΔW‖₂. With `per_layer` there is also `loram/relative/<path>` for each layer.

    They are in `trainer.state.log_history` at any rate. Programs that report logs (TensorBoard, …) are called before
    callbacks that users pass; `attach` puts this one before them.
    """

    def __init__(self, *, adapter_name: str | None = None, per_layer: bool = False):
        self.adapter_name, self.per_layer = adapter_name, per_layer

    def attach(self, trainer: Trainer) -> Trainer:
        """Adds the callback to a trainer, before all that report its logs."""
        trainer.callback_handler.callbacks.insert(0, self)
        return trainer

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, model: Any = None, **kwargs: Any):
        if logs is None or "loss" not in logs or model is None:
            return
        found = magnitudes(model, adapter_name=self.adapter_name)
        squares = math.fsum(m.update * m.entries for m in found.values())
        values = {
            "loram/update": squares / sum(m.entries for m in found.values()),
            "loram/relative": max(m.relative for m in found.values()),
            "loram/spectral": max(m.spectral for m in found.values()),
        }
        if self.per_layer:
            values |= {f"loram/relative/{path}": m.relative for path, m in found.items()}
        logs.update(values)
        if state.log_history:
            state.log_history[-1].update(values)
