"""An initialisation as a frozen branch, for bases that must not change."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import LoraVariant
from torch import nn


class Start(nn.Module):
    """A₀ (r, m) and B₀ (n, r) as buffers that move with the model and are in no state dict."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor):
        super().__init__()
        self.register_buffer("a", a, persistent=False)
        self.register_buffer("b", b, persistent=False)


class StartBranch(LoraVariant):
    """y = Wx + s·B·A·dropout(x) − s·B₀·A₀·x, through PEFT's own way of varying a layer: it holds for the active adapter,
    stops with `disable_adapter`, and takes part in merging."""

    @staticmethod
    def attach(module, adapter: str, a: torch.Tensor, b: torch.Tensor) -> None:
        if not hasattr(module, "loram_starts"):
            module.loram_starts = nn.ModuleDict()
        module.loram_starts[adapter] = Start(a, b)
        module.lora_variant[adapter] = StartBranch()

    @staticmethod
    def detach(module, adapter: str) -> None:
        if adapter in getattr(module, "loram_starts", {}):
            del module.loram_starts[adapter]
            del module.lora_variant[adapter]

    @staticmethod
    def init(module, adapter_name: str, **kwargs) -> None:
        """Nothing: `attach` is called on a layer that PEFT has made."""

    @staticmethod
    def forward(module, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs) -> torch.Tensor:
        s = module.scaling[active_adapter]
        start = module.loram_starts[active_adapter]
        lora_a, lora_b = module.lora_A[active_adapter], module.lora_B[active_adapter]
        dropped = module.lora_dropout[active_adapter](x)
        at_start = F.linear(F.linear(x, start.a.to(x.dtype)), start.b.to(x.dtype))
        return result + (lora_b(lora_a(dropped)) - at_start) * s

    @staticmethod
    def delta(module, adapter: str) -> torch.Tensor:
        """s·(B·A − B₀·A₀) in float32, in the layout of the base's weight."""
        start = module.loram_starts[adapter]
        a, b = module.lora_A[adapter].weight.float(), module.lora_B[adapter].weight.float()
        delta = (b @ a - start.b.float() @ start.a.float()) * module.scaling[adapter]
        return delta.t() if getattr(module, "fan_in_fan_out", False) else delta

    @staticmethod
    def merge_safe(module, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:
        return (orig_weight.float() + StartBranch.delta(module, active_adapter)).to(orig_weight.dtype)

    @staticmethod
    def merge_unsafe(module, active_adapter: str, orig_weight: torch.Tensor) -> None:
        orig_weight.data += StartBranch.delta(module, active_adapter).to(orig_weight.dtype)

    @staticmethod
    def unmerge(module, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:
        return (orig_weight.float() - StartBranch.delta(module, active_adapter)).to(orig_weight.dtype)

    def supports_lora_conversion(self) -> bool:
        return False

    def __deepcopy__(self, memo: dict) -> StartBranch:
        return copy.copy(self)
