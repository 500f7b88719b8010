"""LoRAM (arXiv 2507.06558) and other initialisations for PEFT's LoRA adapters.

    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"))
    loram.initialize(model)                # sets A and B; the model says what it said before
    ...                                    # train with any trainer
    loram.save(model, "adapter")           # a plain adapter of rank 2r for the untouched base

Shapes everywhere: a layer's weight W is (n, m) = (out_features, in_features), A is (r, m), B is (n, r), and s is PEFT's
`scaling`. `schemes` and `spectrum` need numpy only; everything else needs torch and peft.
"""

from importlib import import_module

from ._arrays import Spectrum, schemes, spectrum
from ._loram import __version__

_NEED_PEFT = {
    "initialize": "._initialize",
    "resume": "._initialize",
    "save": "._save",
    "load": "._load",
    "plan": "._plan",
    "Forecast": "._plan",
    "find_learning_rate": "._rate",
    "FoundRate": "._rate",
    "magnitudes": "._magnitude",
    "Magnitude": "._magnitude",
    "MagnitudeCallback": "._callback",
}

__all__ = ["Spectrum", "__version__", "schemes", "spectrum", *_NEED_PEFT]


def __getattr__(name):
    if name not in _NEED_PEFT:
        raise AttributeError(f"module 'loram' has no attribute {name!r}")
    return getattr(import_module(_NEED_PEFT[name], __name__), name)


def __dir__():
    return sorted(__all__)
