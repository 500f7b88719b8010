"""Bases that cannot change: bitsandbytes and torchao on the CPU."""

import pytest
import torch
from conftest import adapted, disturb, logits, weights, worst
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

import loram
from loram._layers import layers

bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose sizes are multiples of bitsandbytes' block of 64."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=96, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4)
    path = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.1)).save_pretrained(path)
    return path


def quantised(folder, bits=4):
    config = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4")
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, device_map="cpu").eval()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("scheme", ["loram", "pissa"])
def test_a_quantised_base_gets_a_branch(scheme, bits, folder, tmp_path):
    # bitsandbytes packs weights for the CPU in the first pass: on a model of its own
    before = logits(quantised(folder, bits))
    model = adapted(quantised(folder, bits))
    assert all(layer.is_quantised for layer in layers(model, "default"))
    found = loram.initialize(model, scheme)
    assert torch.equal(logits(model), before)
    if scheme == "loram":
        # the norm is that of the weights before they were quantised, but for what that took away
        for path, w in weights(AutoModelForCausalLM.from_pretrained(folder)).items():
            if path in found:
                beta = (found[path]["gain"] * w.float().square().sum().item() / found[path]["r"]) ** 0.25
                assert found[path]["beta"] == pytest.approx(beta, rel=1e-2)
    disturb(model)
    expected = logits(model)
    assert worst(expected, before) > 1e-3
    loram.save(model, tmp_path / "plain")
    # products of 2r columns in bfloat16
    assert worst(logits(PeftModel.from_pretrained(quantised(folder, bits), tmp_path / "plain")), expected) < 2e-2
    loram.save(model, tmp_path / "native", plain=False)
    assert worst(logits(loram.load(quantised(folder, bits), tmp_path / "native")), expected) == 0
    assert all(m.update > 0 for m in loram.magnitudes(model).values())


def test_it_cannot_be_changed(folder):
    with pytest.raises(ValueError, match="layer `model.layers.0.self_attn.q_proj`: a quantised Linear4bit cannot change"):
        loram.initialize(adapted(quantised(folder)), keep_base=False)


def test_a_base_of_torchao_gets_a_branch(folder, tmp_path):
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")

    def base():
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        torchao.quantize_(model.model, torchao.Int8WeightOnlyConfig())
        return model

    before = logits(base())
    model = adapted(base())
    assert all(layer.is_quantised for layer in layers(model, "default"))
    loram.initialize(model)
    assert torch.equal(logits(model), before)
    disturb(model)
    expected = logits(model)
    assert worst(expected, before) > 1e-3
    loram.save(model, tmp_path / "plain")
    assert worst(logits(PeftModel.from_pretrained(base(), tmp_path / "plain")), expected) < 1e-5
    loram.save(model, tmp_path / "native", plain=False)
    assert worst(logits(loram.load(base(), tmp_path / "native")), expected) == 0
