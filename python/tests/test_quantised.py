"""Bases that cannot change: bitsandbytes on the CPU."""

import pytest
import torch
from conftest import adapted, disturb, llama, logits, worst
from peft import PeftModel
from peft.utils.integrations import dequantize_module_weight

import loram
from loram._layers import layers

bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


def quantised(bits):
    model = llama()
    for name, module in list(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or name == "lm_head":
            continue
        shape = (module.in_features, module.out_features)
        if bits == 4:
            new = bnb.nn.Linear4bit(*shape, bias=False, compute_dtype=torch.float32, quant_type="nf4")
            new.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False, quant_type="nf4", module=new)
        else:
            new = bnb.nn.Linear8bitLt(*shape, bias=False, has_fp16_weights=False)
            new.weight = bnb.nn.Int8Params(module.weight.data, requires_grad=False, has_fp16_weights=False)
        model.set_submodule(name, new.to("cpu"))
    setattr(model, f"is_loaded_in_{bits}bit", True)
    return model


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("scheme", ["loram", "pissa"])
def test_a_quantised_base_gets_a_branch(bits, scheme, tmp_path):
    base = quantised(bits)
    before = logits(base)
    model = adapted(base)
    assert all(layer.is_quantised for layer in layers(model, "default"))
    found = loram.initialize(model, scheme)
    assert torch.equal(logits(model), before)
    layer = layers(model, "default")[0]
    if scheme == "loram":
        squares = dequantize_module_weight(layer.base).float().square().sum().item()
        recipe = found[layer.path]
        assert recipe["beta"] == pytest.approx((recipe["gain"] * squares / layer.r) ** 0.25, rel=1e-5)
    disturb(model)
    expected = logits(model)
    assert worst(expected, before) > 1e-3
    loram.save(model, tmp_path / "plain")
    assert worst(logits(PeftModel.from_pretrained(quantised(bits), tmp_path / "plain")), expected) < 1e-4
    loram.save(model, tmp_path / "native", plain=False)
    assert worst(logits(loram.load(quantised(bits), tmp_path / "native")), expected) < 1e-4
    assert all(m.update > 0 for m in loram.magnitudes(model).values())


def test_it_cannot_be_changed():
    with pytest.raises(ValueError, match="layer `model.layers.0.self_attn.q_proj`: a quantised Linear4bit cannot change"):
        loram.initialize(adapted(quantised(4)), keep_base=False)
