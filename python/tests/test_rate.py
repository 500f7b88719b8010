"""`find_learning_rate`: the algorithm on known losses, the program's own search on the same records, and what it leaves behind."""

import json
import math

import pytest
import torch
from conftest import IDS, TINY_LLAMA, adapted, llama, logits
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import loram
from loram._layers import layers
from loram._rate import FACTOR, climb, optimum

TEXTS = ["The mill serves pancakes by the river, and the landlord knows everybody in town.",
         "Once upon a time there was a small red dog that liked to run all day long."]  # fmt: skip


def bowl(best):
    return lambda rate: 2.0 - math.exp(-(math.log(rate / best) ** 2) / 8)


@pytest.mark.parametrize("best", [1e-6, 3.3e-4, 1e-3, 2.2e-3, 0.4])
def test_the_ladder_finds_the_lowest_loss(best):
    rungs = climb(1e-3, 2.0, bowl(best))
    assert abs(math.log(optimum(rungs, 2.0) / best)) < 0.05
    assert rungs == sorted(rungs)


def test_without_a_step_that_helps_there_is_no_optimum():
    assert optimum(climb(1e-3, 2.0, lambda rate: 2.0 + rate), 2.0) is None
    assert optimum(climb(1e-3, 2.0, lambda rate: math.nan), 2.0) is None


def dataset(n=40, length=12, seed=3):
    torch.manual_seed(seed)
    return [{"input_ids": torch.randint(1, 96, (length + i % 3,)).tolist()} for i in range(n)]


@pytest.mark.parametrize("scheme", [None, "lora", "loram", "pissa"])
@pytest.mark.parametrize("keep_base", [False, True])
def test_the_model_is_as_before(scheme, keep_base):
    model = adapted(llama(), lora_dropout=0.1)
    if scheme:
        loram.initialize(model, scheme, keep_base=keep_base)
    model.train()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    out = logits(model)
    model.train()
    data = dataset()
    found = loram.find_learning_rate(model, data, batch_size=4)
    assert 1e-5 < found.learning_rate < 1 and found.optimum and float(found) == found.learning_rate
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert torch.equal(logits(model), out)
    assert loram.find_learning_rate(model, data, batch_size=4) == found, "deterministic"


def test_schemes_share_the_search_and_have_rates_of_equal_steps():
    data = dataset()
    found = {}
    for scheme in ("lora", "loram", "pissa"):
        model = adapted(llama())
        loram.initialize(model, scheme)
        found[scheme] = loram.find_learning_rate(model, data, batch_size=4)
    assert found["lora"].learning_rate > found["pissa"].learning_rate
    assert found["loram"].learning_rate == pytest.approx(FACTOR * found["loram"].optimum) or found["loram"].optimum
    for other in ("lora", "pissa"):
        # the bases of both differ by the rounding of W − s·B₀A₀
        assert found[other].step_size == pytest.approx(found["loram"].step_size, rel=1e-3)
        assert [r for r, _ in found[other].rungs] == pytest.approx([r for r, _ in found["loram"].rungs], rel=1e-6)
        assert [x for _, x in found[other].rungs] == pytest.approx([x for _, x in found["loram"].rungs], rel=1e-4)


def test_optimisers_and_ratios():
    def rate(**how):
        return loram.find_learning_rate(adapted(llama()), dataset(), batch_size=4, **how)

    plain, plus = rate(), rate(lora_plus_ratio=16.0)
    assert plus.learning_rate < plain.learning_rate / 4
    sgd, momentum = rate(optimizer="sgd"), rate(optimizer="sgd", momentum=0.9)
    assert sgd.step_size is None and sgd.learning_rate == pytest.approx(10 * momentum.learning_rate)


def test_records_as_trainers_take_them():
    labels = [{**r, "labels": r["input_ids"], "attention_mask": [1] * len(r["input_ids"])} for r in dataset()]
    as_is = loram.find_learning_rate(adapted(llama()), dataset(), batch_size=4)
    assert loram.find_learning_rate(adapted(llama()), labels, batch_size=4) == as_is
    masked = [{**r, "completion_mask": [0] * 6 + [1] * (len(r["input_ids"]) - 6)} for r in dataset()]
    assert loram.find_learning_rate(adapted(llama()), masked, batch_size=4).before != as_is.before

    def collate(records):
        ids = torch.tensor([r["input_ids"][:12] for r in records])
        return {"input_ids": ids, "labels": ids}

    assert loram.find_learning_rate(adapted(llama()), dataset(), data_collator=collate).optimum


def test_mistakes_are_named():
    model = adapted(llama())
    with pytest.raises(ValueError, match="at least one record"):
        loram.find_learning_rate(model, [])
    with pytest.raises(ValueError, match="tokenised records with `input_ids`, found text"):
        loram.find_learning_rate(model, [{"text": "x"}])
    with pytest.raises(ValueError, match="expected adamw or sgd"):
        loram.find_learning_rate(model, dataset(), optimizer="lion")
    with pytest.raises(ValueError, match="batch_size"):
        loram.find_learning_rate(model, dataset(), batch_size=0)
    with pytest.raises(TypeError, match="PeftModel"):
        loram.find_learning_rate(llama(), dataset())
    # what failed left nothing
    assert torch.equal(logits(model), logits(adapted(llama()))) and IDS.shape == (2, 12)


@pytest.mark.parametrize("scheme", ["loram", "lora", "pissa"])
@pytest.mark.parametrize("how", [{}, {"loraplus_lr_ratio": 4}, {"optim": "sgd", "momentum": 0.5}])
def test_the_program_finds_the_same(program, tmp_path, scheme, how):
    """Two records: both programs take them for the gradient and for the losses."""
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    keys = [f"--set={k}={v}" for k, v in {"compute_dtype": "float32", "device": "cpu", **how}.items()]
    theirs = program("plan", TINY_LLAMA, "--data", data, "--r", 4, "--init", scheme, *keys)["learning_rate"]
    tokenizer = AutoTokenizer.from_pretrained(TINY_LLAMA)
    records = [{"input_ids": tokenizer(t)["input_ids"] + [tokenizer.eos_token_id]} for t in TEXTS]
    model = AutoModelForCausalLM.from_pretrained(TINY_LLAMA, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=4, target_modules="all-linear"))
    loram.initialize(model, scheme)
    ours = loram.find_learning_rate(
        model, records, optimizer=how.get("optim", "adamw"), lora_plus_ratio=how.get("loraplus_lr_ratio", 1),
        momentum=how.get("momentum", 0.0),
    )  # fmt: skip
    search = theirs["search"]
    assert ours.before == pytest.approx(search["before"], rel=1e-4)
    assert [r for r, _ in ours.rungs] == pytest.approx([r["learning_rate"] for r in search["rungs"]], rel=1e-4)
    assert [x for _, x in ours.rungs] == pytest.approx([r["loss"] for r in search["rungs"]], rel=2e-3)
    assert ours.optimum == pytest.approx(search["optimum"], rel=1e-2)
    assert ours.learning_rate == pytest.approx(theirs["learning_rate"], rel=1e-2)
    assert len(layers(model, "default")) == 35
