"""Small models, and the program `loram` where it is built."""

import json
import os
import subprocess

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TINY_LLAMA = os.path.join(ROOT, "assets", "tiny-llama-en")
torch.set_num_threads(2)


def llama(dtype=torch.float32, tied=False, seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied, initializer_range=0.1,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).eval()


def gpt2(dtype=torch.float32):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return GPT2LMHeadModel(config).to(dtype).eval()


def adapted(base, adapter_name="default", autocast=True, **settings):
    settings = {"r": 4, "lora_alpha": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    return get_peft_model(base, LoraConfig(**settings), adapter_name=adapter_name, autocast_adapter_dtype=autocast)


IDS = torch.arange(1, 25).reshape(2, 12)


def logits(model, ids=IDS):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits.float()


def worst(x, y):
    """Largest difference, relative to the largest entry."""
    return ((x - y).abs().max() / y.abs().max()).item()


def disturb(model, std=0.02, seed=1):
    """What training might have done to the factors."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                p.add_(torch.randn_like(p) * std)


def weights(base):
    """Copies of all weights (n, m) of linear layers, by module path."""
    return {
        name: (m.weight.t() if type(m).__name__ == "Conv1D" else m.weight).detach().clone()
        for name, m in base.named_modules()
        if isinstance(m, torch.nn.Linear) or type(m).__name__ == "Conv1D"
    }


@pytest.fixture(scope="session")
def program():
    """Runs the program `loram` and gives its JSON. Skips where it is not built."""
    path = os.environ.get("LORAM_BIN") or os.path.join(ROOT, "target", "release", "loram")
    if not os.path.exists(path):
        pytest.skip(f"no program at {path}: build it with `cargo build --release`, or set LORAM_BIN")

    def run(*args, expect=0):
        command = [path, *map(str, args), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
        assert done.returncode == expect, f"{' '.join(command)}\n{done.returncode}: {done.stderr[-2000:]}"
        return json.loads(done.stdout) if expect == 0 else done.stderr

    return run


@pytest.fixture(scope="session")
def stories():
    """The folder of stories260K. Skips where there are no shared models."""
    shared = os.environ.get("LORAM_SHARED") or os.path.join(os.path.dirname(ROOT), "shared")
    path = os.path.join(shared, "models", "stories260K")
    if not os.path.isdir(path):
        message = f"no model at {path}: set LORAM_SHARED"
        assert not os.environ.get("LORAM_REQUIRE_SHARED"), message
        pytest.skip(message)
    return path


def dense(x):
    return np.asarray(x.detach().float().numpy(), dtype=np.float64)
