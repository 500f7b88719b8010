"""The LoRA layers of a PEFT model, their weights, and the layers that cannot be initialised."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import Linear as PeftLinear
from peft.utils.integrations import dequantize_bnb_weight, dequantize_module_weight

from . import _loram

PREFIX = "base_model.model."
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass
class Layer:
    """One adapted layer. `path` is its module path in the base model."""

    path: str
    module: LoraLayer
    adapter: str

    @property
    def base(self) -> torch.nn.Module:
        return self.module.get_base_layer()

    @property
    def n(self) -> int:
        return self.module.out_features

    @property
    def m(self) -> int:
        return self.module.in_features

    @property
    def r(self) -> int:
        return self.module.r[self.adapter]

    @property
    def scaling(self) -> float:
        return float(self.module.scaling[self.adapter])

    @property
    def a(self) -> torch.nn.Parameter:
        """A, (r, m)."""
        return self.module.lora_A[self.adapter].weight

    @property
    def b(self) -> torch.nn.Parameter:
        """B, (n, r)."""
        return self.module.lora_B[self.adapter].weight

    @property
    def is_transposed(self) -> bool:
        """Conv1D stores (m, n)."""
        return type(self.base).__name__ == "Conv1D"

    @property
    def is_quantised(self) -> bool:
        """Whether the base's weight is anything but a plain tensor of floating point numbers of 16 or 32 bits."""
        weight = getattr(self.base, "weight", None)
        plain = type(weight) in (torch.nn.Parameter, torch.Tensor)
        return not plain or weight.dtype not in DTYPES

    def weight(self) -> torch.Tensor:
        """The base's weight as (n, m): a view of it, or a dequantised copy."""
        base = self.base
        if not self.is_quantised:
            weight = base.weight.detach()
            return weight.t() if self.is_transposed else weight
        stored = getattr(base, "weight", None)
        try:
            if hasattr(base, "dequantize_weight"):
                weight = base.dequantize_weight()  # GPTQ: (in, out)
                weight = weight.t() if tuple(weight.shape) == (self.m, self.n) != (self.n, self.m) else weight
            elif type(stored).__module__.startswith("torchao"):
                weight = stored.dequantize()
            elif type(stored).__name__ == "Int8Params":
                # on a copy of its state, which reading changes
                weight = dequantize_bnb_weight(stored, state=copy.copy(base.state))
            else:
                weight = dequantize_module_weight(base)
        except (TypeError, AttributeError, NotImplementedError) as e:
            kind = f"{type(base).__name__} with a weight of type {type(stored).__name__}"
            raise ValueError(f"layer `{self.path}`: cannot read the values of a {kind}: {e}") from e
        weight = weight.detach()
        return weight if weight.dtype in DTYPES else weight.float()


def unwrap(model: Any) -> PeftModel:
    """The PEFT model inside torch.compile and DistributedDataParallel."""
    while not isinstance(model, PeftModel):
        inner = getattr(model, "_orig_mod", None)
        inner = getattr(model, "module", None) if inner is None else inner
        if inner is None:
            raise TypeError(f"expected a PeftModel as get_peft_model makes it, found {type(model).__name__}")
        model = inner
    return model


def adapter_of(model: PeftModel, name: str | None) -> str:
    """The name given, or that of the only active adapter."""
    if name is None:
        active = model.active_adapters
        if len(active) != 1:
            raise ValueError(f"adapter_name: expected one of {active}, which are all active")
        name = active[0]
    if name not in model.peft_config:
        raise ValueError(f"adapter_name: no adapter `{name}`; the model has {', '.join(model.peft_config)}")
    kind = str(getattr(model.peft_config[name].peft_type, "value", model.peft_config[name].peft_type))
    if kind != "LORA":
        raise ValueError(f"adapter `{name}`: expected a LoRA adapter, found {kind}")
    return name


def layers(model: PeftModel, adapter: str) -> list[Layer]:
    """The layers that have this adapter, in the model's order. ValueError when there are none."""
    found = list(_layers(model, adapter))
    if not found:
        raise ValueError(f"adapter `{adapter}` has no layers")
    return found


def _layers(model: PeftModel, adapter: str) -> Iterator[Layer]:
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        path = name.replace("_fsdp_wrapped_module.", "").replace("_orig_mod.", "").removeprefix(PREFIX)
        if adapter in module.lora_embedding_A:
            raise ValueError(f"layer `{path}`: an adapted embedding cannot be initialised, only Linear and Conv1D layers")
        if adapter in module.lora_A:
            yield Layer(path, module, adapter)


def check(layer: Layer) -> None:
    """ValueError that names the layer when it is of a kind, or in a state, that cannot be initialised."""

    def refuse(what: str):
        raise ValueError(f"layer `{layer.path}`: {what}")

    module, adapter = layer.module, layer.adapter
    a = getattr(module.lora_A[adapter], "weight", None)
    if a is None or a.dim() != 2 or type(module).__name__.startswith(("Conv", "ParamWrapper", "MultiheadAttention")):
        refuse(f"{type(module).__name__} cannot be initialised, only Linear and Conv1D layers")
    tensors = [*layer.base.parameters(), a, layer.b]
    if any(t.device.type == "meta" for t in tensors):
        refuse(
            "its weight is on the meta device and has no values yet; call loram.initialize after the weights are loaded "
            "(with FSDP: before the model is sharded, on every rank, without cpu_ram_efficient_loading; "
            "with device_map: without offloading)"
        )
    if any(type(t).__name__ == "DTensor" or hasattr(t, "ds_id") for t in tensors) or a.shape != (layer.r, layer.m):
        refuse("its weights are sharded; call loram.initialize before FSDP or DeepSpeed wraps the model")
    if not layer.is_quantised and layer.weight().shape != (layer.n, layer.m):
        found = tuple(layer.weight().shape)
        refuse(f"expected a weight {(layer.n, layer.m)}, found {found}: sharded, or a layer of another kind")
    if module.merged:
        refuse("the adapter is merged; call unmerge_adapter first")
    if a.dtype not in DTYPES or layer.b.dtype != a.dtype:
        refuse(f"expected factors in float32, bfloat16 or float16, found {a.dtype} and {layer.b.dtype}")
    variant = module.lora_variant.get(adapter)
    if variant is not None and type(variant).__name__ not in ("DoraLinearVariant", "StartBranch"):
        refuse(f"PEFT's {type(variant).__name__} is not supported")


def refuse_calibrated(scheme: _loram.Scheme) -> None:
    """ValueError for a scheme that runs the model on data."""
    if scheme.calibrated_by is not None:
        raise ValueError(
            f"scheme `{scheme.name}` is initialised from the {scheme.calibrated_by} of each layer on calibration data, which this "
            f"package does not collect: use PEFT's own init_lora_weights=\"{scheme.name.replace('-', '_')}\", or the program: "
            f"loram init MODEL -o DIR --init {scheme.name} --calibration-data FILE"
        )


def refuse_tied(model: PeftModel, found: list[Layer]) -> None:
    """ValueError when a weight that would change is another module's too."""
    owners: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(p), []).append(name.removeprefix(PREFIX).replace(".base_layer", ""))
    for layer in found:
        names = owners.get(id(layer.base.weight), [])
        others = [n.removesuffix(".weight") for n in names if n != f"{layer.path}.weight"]
        if others:
            raise ValueError(
                f"layer `{layer.path}`: its weight is tied to `{others[0]}`, which would change with it; pass "
                "keep_base=True, or leave the layer out of target_modules"
            )
    repeated = [p for p, k in Counter(layer.path for layer in found).items() if k > 1]
    if repeated:
        raise ValueError(f"layer `{repeated[0]}` occurs more than once in the model")


def to_numpy(weight: torch.Tensor) -> np.ndarray:
    """A weight as the Rust side reads it: C-contiguous, bfloat16 as its bits in uint16. No copy of a contiguous one on
    the CPU."""
    weight = weight.detach().cpu().contiguous()
    if weight.dtype not in DTYPES:
        weight = weight.float()
    return (weight.view(torch.uint16) if weight.dtype == torch.bfloat16 else weight).numpy()


def rows_at_once(m: int) -> int:
    """Rows of a weight that are worked on together: some 4 million values."""
    return max(1, (1 << 22) // max(m, 1))


def device_sums(weight: torch.Tensor) -> tuple[float, float]:
    """(Σx, Σx²) of a weight in float64, by torch, on its device."""
    total = torch.zeros(2, dtype=torch.float64, device=weight.device)
    for part in weight.split(rows_at_once(weight.shape[-1])):
        part = part.to(torch.float64)
        total += torch.stack([part.sum(), part.square().sum()])
    return total[0].item(), total[1].item()


@contextmanager
def exact_products():
    """Products of float32 matrices without TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def is_plain_linear(module: LoraLayer) -> bool:
    """Whether PEFT's forward pass of this layer asks variants."""
    return isinstance(module, PeftLinear) or type(module).__name__ in (
        "Linear4bit",
        "Linear8bitLt",
        "GPTQLoraLinear",
        "HqqLoraLinear",
    )
