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
    # norms in other places, factors, caps; both forms
    dict(SMALL, model_type="gemma2", num_key_value_heads=2, head_dim=16, vocab_size=64),
    dict(SMALL, model_type="gemma2", num_key_value_heads=2, head_dim=32, sliding_window=7, attn_logit_softcapping=None, final_logit_softcapping=9.0, query_pre_attn_scalar=64, tie_word_embeddings=False, rope_parameters=dict(rope_theta=5000.0, rope_type="default")),
    dict(SMALL, model_type="gemma3_text", head_dim=16, num_key_value_heads=1, sliding_window=9, sliding_window_pattern=3, rope_theta=1000000.0, rope_local_base_freq=20000.0, rope_scaling=dict(rope_type="linear", factor=8.0), query_pre_attn_scalar=168),
    dict(SMALL, model_type="gemma3_text", head_dim=16, num_key_value_heads=2, layer_types=["sliding_attention", "full_attention"] * 3, rope_parameters=dict(full_attention=dict(rope_theta=30000.0, rope_type="default"), sliding_attention=dict(rope_theta=400.0, rope_type="default"))),
    dict(SMALL, model_type="granite", num_key_value_heads=2, embedding_multiplier=12.0, attention_multiplier=0.015625, residual_multiplier=0.22, logits_scaling=8.0, tie_word_embeddings=True, rope_theta=10000000.0),
    dict(SMALL, model_type="phi3", num_key_value_heads=2, rope_scaling=None, rope_theta=20000.0, sliding_window=33, pad_token_id=0, eos_token_id=1),
    dict(SMALL, model_type="phi3", max_position_embeddings=131072, original_max_position_embeddings=4096, partial_rotary_factor=0.75, pad_token_id=0, eos_token_id=1, rope_scaling=dict(type="longrope", short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5], long_factor=[1.0, 2.0, 4.0, 8.0, 16.0, 32.0])),
    dict(SMALL, model_type="phi3", max_position_embeddings=131072, original_max_position_embeddings=4096, pad_token_id=0, eos_token_id=1, rope_parameters=dict(rope_type="longrope", rope_theta=1e4, partial_rotary_factor=0.5, short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[1.0, 2.0, 4.0, 8.0])),
    dict(SMALL, model_type="olmo2", num_key_value_heads=2, rope_theta=500000.0),
    dict(SMALL, model_type="olmo3", sliding_window=9, max_position_embeddings=65536, rope_theta=500000, rope_scaling=dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=8192, attention_factor=1.2, beta_fast=32, beta_slow=1)),
    dict(SMALL, model_type="olmo3", layer_types=["full_attention", "sliding_attention"] * 3, rope_parameters=dict(full_attention=dict(rope_theta=30000.0, rope_type="linear", factor=2.0), sliding_attention=dict(rope_theta=400.0, rope_type="default"))),
    dict(SMALL, model_type="glm4", head_dim=16, num_key_value_heads=2, eos_token_id=[3, 4], pad_token_id=3),
    dict(SMALL, model_type="glm4", head_dim=32, num_key_value_heads=4, attention_bias=False, rope_parameters=dict(rope_theta=700.0, rope_type="default", partial_rotary_factor=0.25), pad_token_id=3),
    dict(SMALL, model_type="exaone4", num_key_value_heads=2, sliding_window=None, layer_types=["full_attention"] * 6),
    dict(SMALL, model_type="exaone4", num_key_value_heads=2, sliding_window=11, sliding_window_pattern=3, rope_theta=1000000),
    dict(SMALL, model_type="ministral3", head_dim=16, num_key_value_heads=2),
    dict(SMALL, model_type="ministral3", head_dim=16, num_key_value_heads=2, sliding_window=10, rope_parameters=dict(rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=1024, beta_fast=16.0, mscale=1.0, mscale_all_dim=0.5, llama_4_scaling_beta=0.2)),
    # mixtures of experts, convolutions, learnt positions
    dict(SMALL, model_type="mixtral", num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, rope_theta=5000.0),
    dict(SMALL, model_type="mixtral", num_key_value_heads=4, sliding_window=7, head_dim=32, rope_parameters=dict(rope_theta=5000.0, rope_type="default")),
    dict(SMALL, model_type="qwen3_moe", num_key_value_heads=2, head_dim=32, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=24, norm_topk_prob=True, mlp_only_layers=[3], decoder_sparse_step=2, rope_theta=1000000.0),
    dict(SMALL, model_type="qwen3_moe", attention_bias=True, use_sliding_window=True, sliding_window=5, rope_parameters=dict(rope_theta=5000.0, rope_type="default")),
    dict(SMALL, model_type="gpt_oss", num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, head_dim=32, sliding_window=9, rope_theta=5000.0, rope_scaling=dict(YARN, rope_type="yarn", truncate=False, beta_fast=32.0, beta_slow=1.0)),
    dict(SMALL, model_type="gpt_oss", num_key_value_heads=4, layer_types=["full_attention", "sliding_attention"] * 3, attention_bias=False, swiglu_limit=5.0),
    dict(SMALL, model_type="lfm2", num_key_value_heads=2, full_attn_idxs=[1, 4], block_ff_dim=90, block_multiple_of=16, block_ffn_dim_multiplier=1.3, tie_embedding=False, conv_L_cache=4, conv_bias=True, norm_eps=1e-4),
    dict(SMALL, model_type="lfm2", num_key_value_heads=4, layer_types=["conv", "full_attention"] * 3, block_auto_adjust_ff_dim=False, rope_parameters=dict(rope_theta=5000.0, rope_type="default")),
    dict(model_type="gpt2", vocab_size=64, n_embd=64, n_layer=3, n_head=4, resid_pdrop=0.2, embd_pdrop=0.0),
    dict(model_type="gpt2", vocab_size=64, n_embd=64, n_layer=3, n_head=4, n_inner=96, n_positions=50, layer_norm_epsilon=1e-4, scale_attn_weights=False, tie_word_embeddings=False, pad_token_id=3, eos_token_id=[4, 5]),
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
    if kind == "gpt2":
        out["intermediate_size"] = 4 * c.n_embd if c.n_inner is None else c.n_inner
        out["head_dim"] = c.n_embd // c.n_head
        out["scale"] = out["head_dim"] ** -0.5 if c.scale_attn_weights else 1.0
        out["rms_norm_eps"] = c.layer_norm_epsilon
        out["bos"], out["eos"] = c.bos_token_id, c.eos_token_id if isinstance(c.eos_token_id, list) else [c.eos_token_id]
        out["dropout"] = [c.embd_pdrop, c.resid_pdrop, c.attn_pdrop]
        out["inv_freq"] = out["attention_scaling"] = []
        return out
    import importlib

    name = kind.removesuffix("_text")
    module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    rope = next(v for k, v in vars(module).items() if k.endswith("RotaryEmbedding"))(c)
    out["intermediate_size"] = c.intermediate_size
    by_type = "full_attention" in c.rope_parameters
    kinds = ("full_attention", "sliding_attention") if by_type else (None,)
    of = lambda name: [getattr(rope, f"{k}_{name}" if k else name) for k in kinds]
    out["inv_freq"] = [[float(x) for x in f] for f in of("inv_freq")]
    out["attention_scaling"] = [float(x) for x in of("attention_scaling")]
    out["theta"] = [float((c.rope_parameters[k] if k else c.rope_parameters)["rope_theta"]) for k in kinds]
    out["num_kv_heads"] = c.num_key_value_heads
    out["rms_norm_eps"] = c.norm_eps if kind == "lfm2" else c.rms_norm_eps
    eos = c.eos_token_id
    out["eos"] = [] if eos is None else eos if isinstance(eos, list) else [eos]
    out["bos"] = c.bos_token_id
    import torch

    with torch.device("meta"):
        model = next(v for k, v in vars(module).items() if k.endswith("ForCausalLM"))(c)
    layers = model.model.layers
    layer = next(l for l in layers if hasattr(l, "self_attn"))
    out["head_dim"] = layer.self_attn.head_dim
    fused = get("model_type") == "phi3"
    out["qkv_bias"] = (layer.self_attn.qkv_proj if fused else layer.self_attn.k_proj).bias is not None
    output = layer.self_attn.out_proj if kind == "lfm2" else layer.self_attn.o_proj
    out["o_bias"] = output.bias is not None
    experts = [l for l in layers if hasattr(getattr(l, "mlp", None), "experts")]
    out["sparse"] = [l in experts for l in layers]
    if experts:
        own = experts[0].mlp.experts
        router = getattr(experts[0].mlp, "gate", None) or experts[0].mlp.router
        inner = own.intermediate_size if kind == "gpt_oss" else own.intermediate_dim
        out["experts"] = [own.num_experts, router.top_k, inner, kind != "qwen3_moe" or router.norm_topk_prob]
        out["clamp"] = [own.alpha, own.limit] if kind == "gpt_oss" else None
    elif kind == "lfm2":
        out["intermediate_size"] = layers[0].feed_forward.w1.out_features
        conv = next((l.conv for l in layers if hasattr(l, "conv")), None)
        out["convolves"] = [hasattr(l, "conv") for l in layers]
        out["convolution"] = [conv.conv_kernel_size, conv.bias]
    else:
        out["mlp_bias"] = layer.mlp.down_proj.bias is not None
    out["scale"] = layer.self_attn.scaling
    out["embedding"] = getattr(model.model.embed_tokens, "scalar_embed_scale", get("embedding_multiplier") or 1.0)
    out["residual"] = get("residual_multiplier") or 1.0
    out["logits"] = 1.0 / (get("logits_scaling") or 1.0)
    out["caps"] = [getattr(layer.self_attn, "attn_logit_softcapping", None), get("final_logit_softcapping")]
    out["qk_norm"] = hasattr(layer.self_attn, "q_norm") or hasattr(layer.self_attn, "q_layernorm")
    types = get("layer_types") or ["sliding_attention" if get("sliding_window") else "full_attention"] * c.num_hidden_layers
    if kind in ("llama", "lfm2"):
        types = ["full_attention"] * c.num_hidden_layers
    out["windows"] = [c.sliding_window if t == "sliding_attention" else None for t in types]
    out["rope_layers"] = [bool(x) for x in (get("no_rope_layers") or [1] * c.num_hidden_layers)]
    if kind == "exaone4" and c.sliding_window:
        out["rope_layers"] = [t == "sliding_attention" for t in types]
    return out


if __name__ == "__main__":
    print(json.dumps([{"config": c, "expected": expected(c)} for c in CASES], indent=1))
