"""Model configurations in the forms of transformers 4 and 5, each with what transformers reads from it.

Run with transformers 5.23: python make_configs.py > configs.json
"""
import json

from transformers import AutoConfig

SMALL = dict(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4)
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
YARN = dict(factor=4.0, original_max_position_embeddings=32768)

CASES = [
    # transformers 4 names
    dict(SMALL, model_type="llama", torch_dtype="float16"),
    dict(SMALL, model_type="llama", rope_theta=500000.0, rope_scaling=dict(LLAMA3, rope_type="llama3"), max_position_embeddings=131072, num_key_value_heads=2, eos_token_id=[5, 6, 7]),
    dict(SMALL, model_type="llama", rope_scaling=dict(type="linear", factor=2.0), attention_bias=True, mlp_bias=True, pad_token_id=None),
    dict(SMALL, model_type="llama", rope_scaling=dict(type="dynamic", factor=4.0), max_position_embeddings=4096),
    dict(SMALL, model_type="llama", rope_scaling=None, rope_theta=7000.0, head_dim=32, tie_word_embeddings=True),
    dict(SMALL, model_type="mistral", num_key_value_heads=2),
    dict(SMALL, model_type="mistral", num_key_value_heads=2, sliding_window=None),
    dict(SMALL, model_type="mistral", num_key_value_heads=4, sliding_window=17, rope_theta=1000000.0),
    dict(SMALL, model_type="qwen2", num_key_value_heads=2, use_sliding_window=False, sliding_window=4096, max_window_layers=3),
    dict(SMALL, model_type="qwen2", num_key_value_heads=2, use_sliding_window=True, sliding_window=32, max_window_layers=3, rope_scaling=dict(YARN, type="yarn")),
    dict(SMALL, model_type="qwen3", num_key_value_heads=2, rope_theta=1000000, tie_word_embeddings=True),
    dict(SMALL, model_type="qwen3", num_key_value_heads=2, head_dim=16, attention_bias=True),
    dict(SMALL, model_type="smollm3", num_key_value_heads=2, vocab_size=128256),
    dict(SMALL, model_type="smollm3", num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, use_sliding_window=True, sliding_window=16),
    dict(SMALL, model_type="smollm3", num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, no_rope_layers=[1, 1, 0, 1, 0, 1], rope_theta=5000000.0),
    # transformers 5 names
    dict(SMALL, model_type="llama", dtype="bfloat16", rope_parameters=dict(rope_theta=20000.0, rope_type="default")),
    dict(SMALL, model_type="llama", max_position_embeddings=131072, rope_parameters=dict(LLAMA3, rope_theta=500000.0, rope_type="llama3")),
    dict(SMALL, model_type="qwen2", num_key_value_heads=2, rope_parameters=dict(YARN, rope_theta=1e6, rope_type="yarn", mscale=1.0, mscale_all_dim=0.5, beta_fast=16)),
    dict(SMALL, model_type="qwen2", num_key_value_heads=2, rope_parameters=dict(YARN, rope_theta=1e6, rope_type="yarn", attention_factor=1.25, truncate=False)),
    dict(SMALL, model_type="qwen3", num_key_value_heads=2, use_sliding_window=True, sliding_window=8, layer_types=["full_attention", "sliding_attention"] * 3),
    dict(SMALL, model_type="smollm3", num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, sliding_window=8, layer_types=["full_attention", "sliding_attention"] * 3, rope_parameters=dict(rope_theta=2e6, rope_type="default")),
    # encoders
    dict(SMALL, model_type="bert"),
    dict(SMALL, model_type="bert", hidden_act="gelu_new", classifier_dropout=0.3, id2label={"0": "no", "1": "maybe", "2": "yes"}, problem_type="single_label_classification", type_vocab_size=1),
    dict(SMALL, model_type="roberta", max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, id2label={"0": "LABEL_0"}, problem_type="regression"),
    dict(SMALL, model_type="xlm-roberta", max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5),
    dict(model_type="distilbert", vocab_size=64, dim=64, hidden_dim=96, n_layers=3, n_heads=4, activation="relu", seq_classif_dropout=0.4, sinusoidal_pos_embds=False),
]


def expected(raw):
    raw = json.loads(json.dumps(raw))
    kind = raw.pop("model_type")
    c = AutoConfig.for_model(kind, **raw)
    get = lambda name: getattr(c, name, None)
    out = {
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "num_layers": c.num_hidden_layers,
        "num_heads": c.num_attention_heads,
        "max_position_embeddings": c.max_position_embeddings,
        "num_labels": c.num_labels,
        "labels": [c.id2label[i] for i in range(c.num_labels)],
        "pad": c.pad_token_id,
        "tied": c.tie_word_embeddings,
    }
    if kind in ("bert", "roberta", "xlm-roberta", "distilbert"):
        distil = kind == "distilbert"
        out["layer_norm_eps"] = 1e-12 if distil else c.layer_norm_eps
        out["type_vocab_size"] = 0 if distil else c.type_vocab_size
        out["intermediate_size"] = c.hidden_dim if distil else c.intermediate_size
        out["hidden_dropout"] = c.dropout if distil else c.hidden_dropout_prob
        out["classifier_dropout"] = c.seq_classif_dropout if distil else (c.hidden_dropout_prob if c.classifier_dropout is None else c.classifier_dropout)
        return out
    import importlib

    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    rope = next(v for k, v in vars(module).items() if k.endswith("RotaryEmbedding"))(c)
    out["intermediate_size"] = c.intermediate_size
    out["inv_freq"] = [float(x) for x in rope.inv_freq]
    out["attention_scaling"] = float(rope.attention_scaling)
    out["theta"] = c.rope_parameters["rope_theta"]
    out["num_kv_heads"] = c.num_key_value_heads
    out["rms_norm_eps"] = c.rms_norm_eps
    eos = c.eos_token_id
    out["eos"] = [] if eos is None else eos if isinstance(eos, list) else [eos]
    out["bos"] = c.bos_token_id
    import torch

    with torch.device("meta"):
        model = next(v for k, v in vars(module).items() if k.endswith("ForCausalLM"))(c)
    layer = model.model.layers[0]
    out["head_dim"] = layer.self_attn.head_dim
    out["qkv_bias"] = layer.self_attn.k_proj.bias is not None
    out["o_bias"] = layer.self_attn.o_proj.bias is not None
    out["mlp_bias"] = layer.mlp.up_proj.bias is not None
    out["qk_norm"] = hasattr(layer.self_attn, "q_norm")
    types = get("layer_types") or ["sliding_attention" if get("sliding_window") else "full_attention"] * c.num_hidden_layers
    if kind == "llama":
        types = ["full_attention"] * c.num_hidden_layers
    out["windows"] = [c.sliding_window if t == "sliding_attention" else None for t in types]
    out["rope_layers"] = [bool(x) for x in (get("no_rope_layers") or [1] * c.num_hidden_layers)]
    return out


if __name__ == "__main__":
    print(json.dumps([{"config": c, "expected": expected(c)} for c in CASES], indent=1))
