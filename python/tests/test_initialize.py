"""Starts: values, identity at step 0, and what is refused."""

import copy
import math

import pytest
import torch
from conftest import adapted, dense, disturb, gpt2, llama, logits, weights, worst
from torch import nn

import loram
from loram._layers import device_sums, layers, to_numpy

NAMES = [s["name"].replace("-k", "-4") for s in loram.schemes() if not s["calibrated_by"]]
CALIBRATED = [s["name"] for s in loram.schemes() if s["calibrated_by"]]
#: Largest difference of logits, of the largest logit: rounding of W − s·B₀A₀ to the base's type, in two blocks.
LIMITS = {torch.float32: 2e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def test_golden_case_of_the_paper():
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(3, 4, bias=False)

    base = Tiny()
    base.lin.weight.data = (torch.arange(12).reshape(4, 3) + 1) / 10
    w = dense(base.lin.weight)
    model = adapted(base, r=2, lora_alpha=2, target_modules=["lin"], task_type=None)
    recipe = loram.initialize(model)["lin"]
    assert recipe["beta"] == pytest.approx(1.1966470992, rel=1e-7)  # W is in float32
    assert recipe["gain"] == pytest.approx(math.log(2) / math.log(3))
    layer = layers(model, "default")[0]
    phi_4 = [[0.37174803, 0.60150096], [0.60150096, 0.37174803], [0.60150096, -0.37174803], [0.37174803, -0.60150096]]
    assert dense(layer.b) == pytest.approx(1.1966470992 * torch.tensor(phi_4).double().numpy(), abs=1e-7)
    assert dense(layer.weight()) == pytest.approx(w - dense(layer.b) @ dense(layer.a), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", list(LIMITS))
def test_every_scheme_leaves_the_output(name, dtype):
    base = llama(dtype)
    before, kept = logits(base), weights(base)
    model = adapted(base)
    loram.initialize(model, name)
    limit = LIMITS[dtype]
    if name == "lora-alpha":
        assert model.peft_config["default"].lora_alpha == 512 and layers(model, "default")[0].scaling == 128
    assert worst(logits(model), before) <= limit
    changes = next(s for s in loram.schemes() if s["name"] == name.replace("-4", "-k"))["changes_base"]
    for layer in layers(model, "default"):
        w, a, b = (x.detach().float() for x in (kept[layer.path], layer.a, layer.b))
        # the rounding order: factors as stored, product in f32, one rounding
        expected = torch.addmm(w, b, a, alpha=-layer.scaling).to(dtype) if changes else kept[layer.path]
        assert torch.equal(layer.weight(), expected)
        assert layer.a.requires_grad and layer.b.requires_grad == (name != "mica")


@pytest.mark.parametrize("name", CALIBRATED)
def test_schemes_that_need_data_are_refused_untouched(name):
    model = adapted(llama())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"`{name}` is initialised from the .* loram init MODEL"):
        loram.initialize(model, name)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_starts_are_those_of_peft(name):
    ours, theirs = adapted(llama(), lora_alpha=8), adapted(llama(), lora_alpha=8, init_lora_weights=name)
    loram.initialize(ours, name)
    for x, y in zip(layers(ours, "default"), layers(theirs, "default")):
        product = dense(y.b) @ dense(y.a)
        assert dense(x.b) @ dense(x.a) == pytest.approx(product, abs=1e-4 * abs(product).max())  # PEFT decomposes in float32
        assert dense(x.weight()) == pytest.approx(dense(y.weight()), abs=1e-5)


SETTINGS = {
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 8, "c_attn": 8}, "alpha_pattern": {"o_proj": 16, "c_fc": 16}},
    "dora": {"use_dora": True},
    "dora rslora": {"use_dora": True, "use_rslora": True, "lora_alpha": 2},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("make", [llama, gpt2])
def test_settings_of_peft(settings, make):
    base = make()
    before = logits(base)
    model = adapted(base, **SETTINGS[settings])
    recipes = loram.initialize(model)
    assert worst(logits(model), before) < 3e-6
    for layer in layers(model, "default"):
        recipe = recipes[layer.path]
        assert (recipe["r"], recipe["scaling"]) == (layer.r, layer.scaling)
        assert tuple(layer.a.shape) == (layer.r, layer.m) and tuple(layer.b.shape) == (layer.n, layer.r)
    assert {r["r"] for r in recipes.values()} == ({4, 8} if settings == "patterns" else {4})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_factors_in_16_bits_are_rounded_before_they_are_subtracted(dtype):
    base = llama(dtype)
    before, kept = logits(base), weights(base)
    model = adapted(base, autocast=False)
    loram.initialize(model)
    for layer in layers(model, "default"):
        assert layer.a.dtype == dtype
        product = layer.b.detach().float() @ layer.a.detach().float()
        assert torch.equal(layer.weight(), (kept[layer.path].float() - product).to(dtype))
    assert worst(logits(model), before) <= LIMITS[dtype]


@pytest.mark.parametrize("options", [{"gain": "exact"}, {"gain": "sketch"}, {"gain": 0.25}, {"gain": "track:pissa"},
                                     {"basis": "random-orthogonal"}, {"gain_statistic": "variance"}])  # fmt: skip
def test_options(options):
    model = adapted(llama())
    default = loram.initialize(adapted(llama()))
    before = logits(model)
    found = loram.initialize(model, **options)
    assert worst(logits(model), before) < 3e-6
    changed = [found[p]["beta"] != default[p]["beta"] or found[p]["basis"] != default[p]["basis"] for p in found]
    assert all(changed)


@pytest.mark.parametrize("dtype", list(LIMITS))
def test_a_frozen_branch_is_the_same_model(dtype):
    base = llama(dtype)
    before, kept = logits(base), weights(base)
    branch = adapted(copy.deepcopy(base))
    loram.initialize(branch, keep_base=True)
    # B·A·x − B₀·A₀·x is exactly 0, in any type
    assert torch.equal(logits(branch), before)
    for layer in layers(branch, "default"):
        assert torch.equal(layer.weight(), kept[layer.path])
    changed = adapted(base)
    loram.initialize(changed)
    disturb(branch)
    disturb(changed)
    assert worst(logits(branch), before) > 5 * LIMITS[dtype] or dtype == torch.bfloat16
    assert worst(logits(branch), logits(changed)) <= 2 * LIMITS[dtype]
    with branch.disable_adapter():
        assert torch.equal(logits(branch), before)
    expected = logits(branch)
    branch.merge_adapter()
    assert worst(logits(branch), expected) <= LIMITS[dtype]
    branch.unmerge_adapter()
    assert worst(logits(branch), expected) <= LIMITS[dtype]
    assert worst(logits(copy.deepcopy(branch)), logits(branch)) == 0
    assert not [k for k in branch.state_dict() if "loram" in k]


def test_several_adapters_keep_the_base():
    base = llama()
    before = logits(base)
    model = adapted(base)
    model.add_adapter("second", copy.deepcopy(model.peft_config["default"]))
    loram.initialize(model, adapter_name="default")
    loram.initialize(model, "pissa", adapter_name="second")
    for name in ("default", "second"):
        model.set_adapter(name)
        assert torch.equal(logits(model), before)
    model.base_model.set_adapter(["default", "second"])
    assert worst(logits(model), before) < 2e-6
    with pytest.raises(ValueError, match="adapters default, second, and a base"):
        loram.initialize(model, adapter_name="second", keep_base=False)


def test_again():
    model = adapted(llama())
    loram.initialize(model, "lora")
    loram.initialize(model, keep_base=True)
    loram.initialize(model)
    with pytest.raises(ValueError, match="cannot be initialised again.*load the base anew"):
        loram.initialize(model, "lora")
    model.add_adapter("second", copy.deepcopy(model.peft_config["default"]))
    with pytest.raises(ValueError, match="beside `default`.*keep_base=True"):
        loram.initialize(model, adapter_name="second")


def refused(model, match, **arguments):
    """`initialize` is refused, and nothing has changed."""
    before = {k: v.clone() for k, v in model.state_dict().items() if v.device.type != "meta"}
    with pytest.raises(ValueError, match=match):
        loram.initialize(model, **arguments)
    after = model.state_dict()
    assert all(torch.equal(before[k].nan_to_num(), after[k].nan_to_num()) for k in before)


def test_what_cannot_be_started_is_named():
    tied = adapted(llama(tied=True), target_modules=["q_proj", "lm_head"])
    refused(tied, "layer `lm_head`: its weight is tied to `model.embed_tokens`")
    before = logits(tied)
    loram.initialize(tied, keep_base=True)
    assert torch.equal(logits(tied), before)

    with torch.device("meta"):
        meta = llama()
    refused(adapted(meta), "layer `model.layers.0.self_attn.q_proj`: its weight is on the meta device")
    refused(adapted(llama(), r=40), r"r = 40 is larger than the smaller side of its weight \(32, 32\)")
    refused(adapted(llama()), "did you mean `loram`", scheme="loramm")
    refused(adapted(llama()), "gain", gain="logg")
    refused(adapted(llama()), "no adapter `x`; the model has default", adapter_name="x")
    refused(adapted(llama(), init_lora_weights="olora"), "PEFT has changed the base by `olora`")
    refused(adapted(llama(), target_modules=["embed_tokens", "q_proj"]), "adapted embedding cannot be initialised")
    refused(adapted(llama(), use_dora=True), "DoRA takes the norm", keep_base=True)
    merged = adapted(llama())
    merged.merge_adapter()
    refused(merged, "the adapter is merged")
    broken = llama()
    broken.model.layers[1].mlp.up_proj.weight.data[3, 4] = math.nan
    refused(adapted(broken), "layer `model.layers.1.mlp.up_proj`: its weight holds NaN")
    with pytest.raises(TypeError, match="expected a PeftModel"):
        loram.initialize(llama())


@pytest.mark.parametrize("dtype", list(LIMITS))
@pytest.mark.parametrize("shape", [(3, 5), (1000, 37), (3, 5_000_000)])
def test_sums_by_torch_are_those_of_rust(dtype, shape):
    torch.manual_seed(0)
    w = torch.randn(shape).to(dtype)
    for ours, theirs in zip(loram._loram.sums(to_numpy(w)), device_sums(w)):
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-6)
