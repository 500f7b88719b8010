"""Runs with transformers' Trainer, TRL's SFTTrainer, accelerate and torch.compile."""

import copy

import pytest
import torch
from conftest import adapted, llama, logits, worst
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

import loram
from loram._layers import layers

TEXTS = [f"Once upon a time there was a {a} {b}. It liked to {c} all day." for a in ("big", "small", "red", "sad")
         for b in ("dog", "cat", "bird") for c in ("run", "play")]  # fmt: skip


class Tokens(Dataset):
    def __init__(self, folder):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = [tokenizer(t)["input_ids"][:24] for t in TEXTS]
        length = min(map(len, rows))
        self.rows = [torch.tensor(r[:length]) for r in rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {"input_ids": self.rows[i], "labels": self.rows[i]}


def stories_model(folder, **settings):
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return adapted(base, r=8, lora_alpha=8, **settings)


def trainer(model, data, out, steps=12, **settings):
    args = TrainingArguments(
        output_dir=str(out), max_steps=steps, per_device_train_batch_size=4, learning_rate=2e-3, logging_steps=4,
        save_strategy="steps", save_steps=6, report_to=[], use_cpu=True, disable_tqdm=True, seed=1, weight_decay=0.0,
        **settings,
    )  # fmt: skip
    return Trainer(model=model, args=args, train_dataset=data)


def losses(t):
    return [h["loss"] for h in t.state.log_history if "loss" in h]


@pytest.mark.filterwarnings("ignore:.*loram.save.*")
@pytest.mark.parametrize("keep_base", [False, True])
def test_trainer_checkpointing_and_resume(stories, tmp_path, keep_base):
    data = Tokens(stories)
    model = stories_model(stories)
    loram.initialize(model, keep_base=keep_base)
    t = trainer(model, data, tmp_path / "whole", gradient_checkpointing=True)
    t.add_callback(loram.MagnitudeCallback(per_layer=True))
    t.train()
    found = losses(t)
    assert found[-1] < found[0]
    logged = [h for h in t.state.log_history if "loss" in h]
    assert logged[0]["loram/update"] > 0 and logged[-1]["loram/relative"] > logged[0]["loram/relative"]
    assert any(k.startswith("loram/relative/model.layers.0") for k in logged[0])

    # the run stops after the first checkpoint; a new process makes base and start again from the recipe in it
    checkpoint = tmp_path / "whole" / "checkpoint-6"
    assert (checkpoint / "loram.json").exists()
    again = stories_model(stories)
    loram.resume(again, checkpoint, keep_base=keep_base)
    set_seed(99)
    t2 = trainer(again, data, tmp_path / "again", gradient_checkpointing=True)
    t2.train(resume_from_checkpoint=str(checkpoint))
    for x, y in zip(layers(model, "default"), layers(again, "default")):
        assert torch.equal(x.weight(), y.weight()) and torch.equal(x.a, y.a) and torch.equal(x.b, y.b)

    # another start under the checkpoint's factors is refused
    other = stories_model(stories)
    loram.initialize(other, gain=0.1, keep_base=keep_base)
    with pytest.raises(ValueError, match="was initialised differently.*loram.resume"):
        trainer(other, data, tmp_path / "other").train(resume_from_checkpoint=str(checkpoint))

    loram.save(model, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert worst(logits(plain), logits(model)) < 1e-4


@pytest.mark.filterwarnings("ignore:.*loram.save.*")
def test_sft_trainer(stories, tmp_path):
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    tokenizer = AutoTokenizer.from_pretrained(stories)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = stories_model(stories)
    before = logits(model)
    loram.initialize(model)
    assert worst(logits(model), before) < 1e-4
    args = trl.SFTConfig(
        output_dir=str(tmp_path / "run"), max_steps=12, per_device_train_batch_size=4, learning_rate=2e-3, logging_steps=4,
        report_to=[], use_cpu=True, bf16=False, disable_tqdm=True, max_length=32, save_steps=6, weight_decay=0.0,
        gradient_checkpointing=True, dataset_num_proc=None,
    )  # fmt: skip
    data = datasets.Dataset.from_dict({"text": TEXTS})
    t = trl.SFTTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer)
    loram.MagnitudeCallback().attach(t)
    t.train()
    assert t.model is model
    assert losses(t)[-1] < losses(t)[0]
    assert [h for h in t.state.log_history if h.get("loram/update", 0) > 0]
    assert (tmp_path / "run" / "checkpoint-6" / "loram.json").exists()
    loram.save(model, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)
    assert worst(logits(PeftModel.from_pretrained(base, tmp_path / "adapter")), logits(model)) < 1e-4


@pytest.mark.parametrize("keep_base", [False, True])
def test_compile(keep_base):
    model = adapted(llama())
    before = logits(model)
    loram.initialize(torch.compile(model, backend="eager"), keep_base=keep_base)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert worst(logits(compiled), before) < 3e-6
    found = compiled(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None])
    found.loss.backward()
    assert all(layer.a.grad.abs().sum() > 0 for layer in layers(model, "default"))
    assert len(loram.magnitudes(compiled)) == 14


@pytest.mark.parametrize("keep_base", [False, True])
def test_accelerate(keep_base, tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    accelerator = accelerate.Accelerator(cpu=True)
    model = adapted(llama())
    before = logits(model)
    loram.initialize(model, keep_base=keep_base)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    assert worst(logits(prepared), before) < 3e-6
    loss = prepared(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss
    accelerator.backward(loss)
    optimizer.step()
    loram.save(prepared, tmp_path, state_dict=accelerator.get_state_dict(prepared))
    plain = PeftModel.from_pretrained(llama(), tmp_path)
    assert worst(logits(plain), logits(prepared)) < 1e-5
    assert all(m.update > 0 for m in loram.magnitudes(prepared).values())


def test_an_offloaded_model_is_refused():
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    model = adapted(llama())
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    with pytest.raises(ValueError, match="on the meta device.*without offloading"):
        loram.initialize(model)


def test_a_model_made_for_loading_by_fsdp_is_refused():
    """With cpu_ram_efficient_loading all ranks but the first hold their weights on the meta device."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    with accelerate.init_empty_weights():
        base = llama()
    model = get_peft_model(base, LoraConfig(target_modules="all-linear"), low_cpu_mem_usage=True)
    with pytest.raises(ValueError, match="with FSDP: before the model is sharded"):
        loram.initialize(model)
    assert copy.deepcopy(model.peft_config)
