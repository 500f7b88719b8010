"""Magnitudes, spectra and forecasts against numpy on whole matrices."""

import math

import numpy as np
import pytest
import torch
from conftest import adapted, dense, disturb, gpt2, llama

import loram
from loram._layers import layers


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("arguments", [{}, {"keep_base": True}, {"scheme": "pissa"}, {"scheme": "lora"}])
def test_magnitudes_are_those_of_whole_matrices(make, arguments):
    model = adapted(make(), use_rslora=True)
    norms = {layer.path: np.linalg.norm(dense(layer.weight())) for layer in layers(model, "default")}
    loram.initialize(model, **arguments)
    start = {layer.path: dense(layer.b) @ dense(layer.a) for layer in layers(model, "default")}
    assert all(m.update == 0 and m.relative == 0 for m in loram.magnitudes(model).values())
    disturb(model, std=1e-3)
    for layer in layers(model, "default"):
        found = loram.magnitudes(model)[layer.path]
        update = layer.scaling * (dense(layer.b) @ dense(layer.a) - start[layer.path])
        assert found.update == pytest.approx(np.mean(update**2), rel=1e-5)
        assert found.relative == pytest.approx(np.linalg.norm(update) / norms[layer.path], rel=1e-5)
        assert found.spectral == pytest.approx(np.linalg.norm(update, 2), rel=1e-5)
        assert (found.a, found.b) == pytest.approx((np.mean(dense(layer.a) ** 2), np.mean(dense(layer.b) ** 2)))
        assert found.entries == layer.n * layer.m


def test_a_model_that_was_not_started():
    with pytest.raises(ValueError, match="was not initialised here; call loram.initialize first"):
        loram.magnitudes(adapted(llama()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_spectrum(dtype):
    torch.manual_seed(0)
    w = (torch.randn(40, 24) @ torch.randn(24, 24)).to(dtype)
    sigma = np.linalg.svd(dense(w), compute_uv=False)
    for given in [w] + ([w.numpy()] if dtype != torch.bfloat16 else []):
        found = loram.spectrum(given)
        assert found.sigma == pytest.approx(sigma, rel=1e-5, abs=1e-5 * sigma[0])
        assert found.gain(8) == pytest.approx(sigma[:8].sum() ** 2 / (8 * (sigma**2).sum()), rel=1e-5)
        assert found.log_gain(8) == pytest.approx(math.log(8) / math.log(24))
    for bad, match in [(torch.zeros(3), "two dimensions"), (torch.full((2, 2), math.inf), "infinite")]:
        with pytest.raises(ValueError, match=match):
            loram.spectrum(bad)
    with pytest.raises(ValueError, match="rank from 1 to 24"):
        found.gain(25)


def test_plan_foretells_the_first_step():
    """One step of sign descent, which is Adam's first: the forecast against the measured update."""
    lr = 1e-5
    model = adapted(llama(), target_modules=["q_proj", "o_proj", "down_proj"], r=8, lora_alpha=8)
    rows = {row.scheme: row for row in loram.plan(model, ["lora", "loram", "pissa", "mica"], lr=lr)}
    assert rows["lora"].matching_lr == pytest.approx(lr)
    assert rows["loram"].gain == pytest.approx(math.log(8) / math.log(32)) and rows["lora"].gain is None
    for name, row in rows.items():
        fresh = adapted(llama(), target_modules=["q_proj", "o_proj", "down_proj"], r=8, lora_alpha=8)
        loram.initialize(fresh, name)
        torch.manual_seed(3)
        with torch.no_grad():
            for key, p in fresh.named_parameters():
                if p.requires_grad:
                    p.add_(lr * torch.randn_like(p).sign())
        found = loram.magnitudes(fresh).values()
        step = sum(m.update * m.entries for m in found) / sum(m.entries for m in found)
        assert step == pytest.approx(row.step, rel=0.15), name
        matched = {r.scheme: r for r in loram.plan(model, [name], lr=row.matching_lr)}[name]
        assert matched.step == pytest.approx(rows["lora"].step, rel=1e-6)
    sgd = loram.plan(model, ["loram"], optimizer="sgd", lr=lr)[0]
    assert sgd.step == pytest.approx(sgd.k1 * lr**2, rel=0.5)
    with pytest.raises(ValueError, match="expected adamw or sgd"):
        loram.plan(model, optimizer="lion")
    with pytest.raises(ValueError, match="`eva` is initialised from the covariance of the inputs"):
        loram.plan(model, ["eva"])


def test_schemes():
    names = [s["name"] for s in loram.schemes()]
    assert names[0] == "loram" and {"lora", "pissa", "milora", "olora", "mica"} <= set(names)
    assert all(s["summary"] and s["source"] for s in loram.schemes())
