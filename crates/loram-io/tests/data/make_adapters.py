"""Small models, adapters that PEFT has trained on them (random, B not zero) and the weights after PEFT's own merge.

Run with transformers 5.23 and peft 0.21: python make_adapters.py, in this folder.
"""
import json
import os
import shutil

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

HERE = os.path.dirname(os.path.abspath(__file__))
os.chdir(HERE)
SMALL = dict(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)


def model(name, build, dtype=torch.float32, **save):
    torch.manual_seed(len(name))
    m = build()
    for p in m.parameters():
        p.data = torch.randn_like(p) * 0.1
    if hasattr(m, "tie_weights"):
        m.tie_weights()
    path = f"models/{name}"
    shutil.rmtree(path, ignore_errors=True)
    m.to(dtype).save_pretrained(path, **save)
    return path


def adapter(name, base, auto, merged=False, dtype=None, embeddings="auto", **lora):
    torch.manual_seed(len(name))
    task = "SEQ_CLS" if auto is AutoModelForSequenceClassification else "CAUSAL_LM"
    m = get_peft_model(auto.from_pretrained(base), LoraConfig(task_type=task, **lora))
    for n, p in m.named_parameters():
        if p.requires_grad:
            p.data = torch.randn_like(p) * 0.2
    if dtype is not None:
        m = m.to(dtype)
    path = f"adapters/{name}"
    shutil.rmtree(path, ignore_errors=True)
    m.save_pretrained(path, save_embedding_layers=embeddings)
    if os.path.exists(f"{path}/README.md"):
        os.remove(f"{path}/README.md")
    if merged:
        # from the files, in f32, as a user would
        m = PeftModel.from_pretrained(auto.from_pretrained(base, dtype=torch.float32), path)
        m = m.merge_and_unload()
        state = {k: v.contiguous().clone() for k, v in m.state_dict().items()}
        if m.config.tie_word_embeddings and task == "CAUSAL_LM":
            state.pop("lm_head.weight")
        save_file(state, f"{path}/merged.safetensors", metadata={"format": "pt"})
    return path


llama = AutoConfig.for_model("llama", **SMALL, num_key_value_heads=1, tie_word_embeddings=True, eos_token_id=2, pad_token_id=0)
tied = model("llama-tied-sharded", lambda: AutoModelForCausalLM.from_config(llama), torch.bfloat16, max_shard_size="4KB")
adapter("patterns", tied, AutoModelForCausalLM, merged=True, r=4, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"down_proj": 2, "layers.1.self_attn.q_proj": 3}, alpha_pattern={"v_proj": 5}, lora_dropout=0.1)
adapter("bf16", tied, AutoModelForCausalLM, dtype=torch.bfloat16, r=2, target_modules="all-linear")
adapter("dora", tied, AutoModelForCausalLM, r=2, use_dora=True, target_modules=["q_proj"])
adapter("embedding", tied, AutoModelForCausalLM, embeddings=False, r=2, target_modules=["embed_tokens", "q_proj"])

bert = AutoConfig.for_model("bert", **SMALL, max_position_embeddings=16, num_labels=3)
base = model("bert-base", lambda: AutoModel.from_config(bert))
adapter("classifier", base, AutoModelForSequenceClassification, merged=True, r=2, lora_alpha=4, target_modules=["query", "value"])
roberta = AutoConfig.for_model("roberta", **SMALL, max_position_embeddings=18, num_labels=2)
roberta_dir = model("roberta", lambda: AutoModelForSequenceClassification.from_config(roberta))
adapter("roberta", roberta_dir, AutoModelForSequenceClassification, merged=True, r=2, target_modules="all-linear")
distil = AutoConfig.for_model("distilbert", vocab_size=32, dim=16, hidden_dim=24, n_layers=2, n_heads=2, max_position_embeddings=16, num_labels=2)
distil_dir = model("distilbert", lambda: AutoModelForSequenceClassification.from_config(distil))
adapter("distilbert", distil_dir, AutoModelForSequenceClassification, r=2, target_modules=["q_lin", "v_lin"])

# which modules all-linear takes on the models, for linear_modules
names = {}
for path, auto in [(tied, AutoModelForCausalLM), (base, AutoModelForSequenceClassification), (roberta_dir, AutoModelForSequenceClassification), (distil_dir, AutoModelForSequenceClassification)]:
    m = auto.from_pretrained(path)
    names[os.path.basename(path)] = {n: list(x.weight.shape) for n, x in m.named_modules() if isinstance(x, torch.nn.Linear)}
json.dump(names, open("linears.json", "w"), indent=1)
for root, _, files in os.walk("adapters"):
    for f in files:
        if f == "adapter_config.json":
            p = os.path.join(root, f)
            c = json.load(open(p))
            c["base_model_name_or_path"] = "base"
            # sets have no order: sorted, so that the files are the same every time
            for k in ("target_modules", "modules_to_save"):
                if isinstance(c[k], list):
                    c[k].sort()
            json.dump(c, open(p, "w"), indent=2, sort_keys=True)
