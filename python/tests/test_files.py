"""Saving and loading, and the program's files in both directions."""

import json
import os

import pytest
import torch
from conftest import TINY_LLAMA, adapted, disturb, gpt2, llama, logits, weights, worst
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import loram
from loram._layers import layers


def tiny(dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(TINY_LLAMA, dtype=dtype).eval()


CASES = {
    "loram": ({}, {}),
    "rslora": ({"use_rslora": True, "lora_alpha": 2}, {}),
    "patterns": ({"rank_pattern": {"q_proj": 8, "c_attn": 8}, "alpha_pattern": {"o_proj": 16, "c_proj": 16}}, {}),
    "dora": ({"use_dora": True}, {}),
    "branch": ({}, {"keep_base": True}),
    "pissa": ({"lora_alpha": 8}, {"scheme": "pissa"}),
    "random basis": ({}, {"basis": "random-orthogonal", "seed": 7}),
    "lora-alpha": ({}, {"scheme": "lora-alpha"}),
    "lora-alpha patterns": ({"rank_pattern": {"q_proj": 8, "c_attn": 8}}, {"scheme": "lora-alpha"}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("make", [llama, gpt2])
def test_plain_loads_in_peft_and_native_here(case, make, tmp_path):
    settings, arguments = CASES[case]
    model = adapted(make(), **settings)
    loram.initialize(model, **arguments)
    disturb(model)
    expected = logits(model)
    loram.save(model, tmp_path / "plain")
    # what was computed from W − s·B₀A₀ and what is computed from W: rounding of float32
    assert worst(logits(PeftModel.from_pretrained(make(), tmp_path / "plain")), expected) < 2e-5
    loram.save(model, tmp_path / "native", plain=False)
    assert worst(logits(loram.load(make(), tmp_path / "native")), expected) < 2e-5
    if case != "dora":
        assert worst(logits(loram.load(make(), tmp_path / "native", keep_base=True)), expected) < 2e-5
    again = loram.load(make(), tmp_path / "plain")
    assert worst(logits(again), expected) < 2e-5
    if "lora-alpha" not in case:
        with pytest.raises(ValueError, match="native"):
            PeftModel.from_pretrained(make(), tmp_path / "native")


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits(dtype, autocast, tmp_path):
    model = adapted(llama(dtype), autocast=autocast)
    loram.initialize(model)
    disturb(model)
    loram.save(model, tmp_path / "native", plain=False)
    again = loram.load(llama(dtype), tmp_path / "native", is_trainable=True)
    for x, y in zip(layers(model, "default"), layers(again, "default")):
        assert torch.equal(x.weight(), y.weight()) and torch.equal(x.a, y.a) and torch.equal(x.b, y.b)
    form = json.loads((tmp_path / "native" / "loram.json").read_text())["form"]
    assert form == ("native" if autocast else f"native-{'bf16' if dtype == torch.bfloat16 else 'f16'}")
    loram.save(model, tmp_path / "plain")
    plain = PeftModel.from_pretrained(llama(dtype), tmp_path / "plain", autocast_adapter_dtype=autocast)
    assert worst(logits(plain), logits(model)) < (0.06 if dtype == torch.bfloat16 else 0.01)


def test_save_pretrained_says_what_to_call(tmp_path):
    model = adapted(llama())
    loram.initialize(model)
    with pytest.warns(UserWarning, match=r"do not load onto the untouched base; for that, call loram.save"):
        model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["init_lora_weights"] == "loram-native"
    with pytest.raises(ValueError, match="loram-native"):
        PeftModel.from_pretrained(llama(), tmp_path)
    assert worst(logits(loram.load(llama(), tmp_path)), logits(model)) == 0


def test_another_base_is_refused(tmp_path):
    model = adapted(llama())
    loram.initialize(model)
    loram.save(model, tmp_path, plain=False)
    with pytest.raises(ValueError, match="layer `model.layers.0.self_attn.q_proj`: the adapter was initialised on other weights"):
        loram.load(llama(seed=5), tmp_path)
    with pytest.raises(ValueError, match="other weights"):
        loram.load(llama(torch.bfloat16), tmp_path)
    other = adapted(llama(), r=2)
    with pytest.raises(ValueError, match=r"expected \(n, m, r\) = \(32, 32, 4\) by the recipe, found \(32, 32, 2\)"):
        loram.resume(other, tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such file"):
        loram.resume(other, tmp_path / "nowhere")


@pytest.mark.parametrize("scheme", ["loram", "pissa", "init-ab"])
def test_the_program_reads_what_is_saved_here(scheme, program, tmp_path):
    model = adapted(tiny(), r=8, lora_alpha=8)
    loram.initialize(model, scheme)
    loram.save(model, tmp_path / "start", plain=False)
    program("verify", tmp_path / "start", "--base", TINY_LLAMA)
    disturb(model)
    loram.save(model, tmp_path / "native", plain=False)
    loram.save(model, tmp_path / "plain")
    # its own conversion of our native file is our plain file, bit for bit
    program("convert", tmp_path / "native", "--to", "plain", "--model", TINY_LLAMA, "--output", tmp_path / "converted")
    theirs = load_file(tmp_path / "converted" / "adapter_model.safetensors")
    ours = load_file(tmp_path / "plain" / "adapter_model.safetensors")
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[k], ours[k]) for k in ours)
    program("convert", tmp_path / "plain", "--to", "native", "--model", TINY_LLAMA, "--output", tmp_path / "back")
    theirs = load_file(tmp_path / "back" / "adapter_model.safetensors")
    ours = load_file(tmp_path / "native" / "adapter_model.safetensors")
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[k], ours[k]) for k in ours)


@pytest.mark.parametrize("dtype", ["auto", torch.float32])
@pytest.mark.parametrize("scheme", ["loram", "pissa", "lora"])
def test_the_program_s_starts_are_those_made_here(scheme, dtype, program, tmp_path):
    program("init", TINY_LLAMA, "--init", scheme, "--r", 8, "--set", "adapter_format=native", "--output", tmp_path / "theirs")
    base = tiny(dtype)
    before = logits(base)
    loaded = loram.load(base, tmp_path / "theirs", keep_base=True)
    assert worst(logits(loaded), before) < 1e-5
    ours = adapted(tiny(dtype), r=8, lora_alpha=8)
    recipes = loram.initialize(ours, scheme)
    theirs = json.loads((tmp_path / "theirs" / "loram.json").read_text())
    assert theirs["layers"] == recipes
    loram.save(ours, tmp_path / "ours", plain=False)
    mine = json.loads((tmp_path / "ours" / "loram.json").read_text())
    assert {k: mine[k] for k in mine if k != "loram_version"} == {k: theirs[k] for k in mine if k != "loram_version"}
    x, y = (load_file(tmp_path / f / "adapter_model.safetensors") for f in ("ours", "theirs"))
    assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def test_factors_in_16_bits_are_refused_by_the_program(program, tmp_path):
    model = adapted(tiny().bfloat16(), autocast=False)
    loram.initialize(model)
    loram.save(model, tmp_path, plain=False)
    assert "native-bf16" in program("verify", tmp_path, expect=2)


def test_a_trained_module_goes_along(tmp_path):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    def classifier():
        torch.manual_seed(0)
        sizes = dict(vocab_size=96, hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4)
        return LlamaForSequenceClassification(LlamaConfig(**sizes, num_labels=3, pad_token_id=0)).eval()

    model = adapted(classifier(), task_type="SEQ_CLS", target_modules=["q_proj", "v_proj"])
    loram.initialize(model)
    disturb(model)
    with torch.no_grad():
        model.base_model.model.score.modules_to_save["default"].weight.add_(0.1)
    expected = logits(model)
    loram.save(model, tmp_path)
    assert worst(logits(PeftModel.from_pretrained(classifier(), tmp_path)), expected) < 1e-5
    assert weights(classifier())
    assert not [f for f in os.listdir(tmp_path) if f.startswith(".loram-")]
