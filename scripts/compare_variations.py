#!/usr/bin/env python3
"""Compares losses of small random models, checkpoints and adapters of many kinds with transformers and PEFT.

    python3 scripts/compare_variations.py --loram target/release/loram [--only TEXT] [--list]

Needs torch, transformers, peft, safetensors, numpy. Every variation is one option of a `config.json` that transformers
honours, one way in which checkpoints are stored, or one kind of adapter. The program must give the same loss to 1e-5, merged
adapters too, or refuse what it does not support with an error that names the field. Exit status 1 otherwise."""
import argparse, json, os, random, shutil, subprocess, sys, tempfile, time, traceback, warnings

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMIT = 1e-5
VOCAB = 97
DECODER = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
               num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
ENCODER = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
               max_position_embeddings=40, pad_token_id=0, num_labels=3)


def rope(kind, **more):
    return {"rope_scaling": {"rope_type": kind, **more}}


SCALINGS = [rope("linear", factor=3.0), rope("dynamic", factor=2.0), rope("yarn", factor=4.0, original_max_position_embeddings=16),
            rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)]
ANY_DECODER = [{}, {"tie_word_embeddings": True}, {"rope_theta": 500.0}, {"num_key_value_heads": 4}, *SCALINGS]

# family -> options beyond those of all decoders; the second part of a pair is what the program must refuse by name
DECODERS = {
    "llama": [{"attention_bias": True}, {"mlp_bias": True}, {"hidden_act": "gelu"}, {"hidden_act": "gelu_pytorch_tanh"},
              {"hidden_act": "quick_gelu"}, {"hidden_act": "relu"}, {"hidden_act": "tanh"}, ({"hidden_act": "relu2"}, "hidden_act"),
              ({"hidden_act": "mish"}, "hidden_act"), {"rms_norm_eps": 1e-2}, {"head_dim": 12}, {"partial_rotary_factor": 0.5},
              {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.25}},
              {"pad_token_id": None}, {"attention_dropout": 0.3}, {"pretraining_tp": 2}, {"num_key_value_heads": None},
              rope("yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=0.7, truncate=False),
              rope("yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=16, beta_slow=2, mscale=0.8, mscale_all_dim=0.5),
              (rope("longrope", factor=2.0, short_factor=[1.0] * 4, long_factor=[2.0] * 4), "rope_type")],
    "mistral": [{"sliding_window": 3}, {"sliding_window": None}, {"head_dim": 12}, {"hidden_act": "gelu"}],
    "qwen2": [{"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
              {"use_sliding_window": False, "sliding_window": 3}, {"hidden_act": "gelu_new"},
              {"layer_types": ["sliding_attention", "full_attention"], "use_sliding_window": True, "sliding_window": 4}],
    "qwen3": [{"head_dim": 12}, {"attention_bias": True}, {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}],
    "smollm3": [{"no_rope_layers": [0, 1]}, {"no_rope_layers": [0, 0]}, {"no_rope_layer_interval": 1}, {"mlp_bias": True},
                {"attention_bias": True}, {"use_sliding_window": True, "sliding_window": 3,
                                           "layer_types": ["sliding_attention", "full_attention"]}],
}
# what the defaults of a family would make large, and names of its own
OWN = {"mixtral": dict(num_local_experts=4, head_dim=8), "qwen3_moe": dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24),
       "gpt_oss": dict(num_local_experts=4, num_experts_per_tok=2, head_dim=16, swiglu_limit=0.5), "lfm2": dict(block_multiple_of=8)}
MIXTURES = {
    "mixtral": [{"num_experts_per_tok": 1}, {"num_experts_per_tok": 4}, {"sliding_window": 3}, {"head_dim": 12}, {"hidden_act": "gelu"},
                ({"output_router_logits": True}, "output_router_logits"), ({"router_jitter_noise": 0.1}, "router_jitter_noise")],
    "qwen3_moe": [{"norm_topk_prob": True}, {"mlp_only_layers": [0]}, {"decoder_sparse_step": 2}, {"attention_bias": True}, {"head_dim": 12},
                  {"use_sliding_window": True, "sliding_window": 3}],
    "gpt_oss": [{"num_experts_per_tok": 4}, {"attention_bias": False}, {"swiglu_alpha": 1.0, "swiglu_limit": 3.0}, {"sliding_window": 2},
                {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 3}],
    "lfm2": [{"layer_types": ["conv", "full_attention"]}, {"layer_types": ["conv", "full_attention"], "conv_L_cache": 5}, {"full_attn_idxs": [1], "conv_bias": True},
             {"block_auto_adjust_ff_dim": False}, {"block_ffn_dim_multiplier": 1.7}, {"norm_eps": 1e-2}, {"tie_word_embeddings": False}],
}
DECODERS |= MIXTURES
GPT2 = [{}, {"n_inner": 40}, {"n_layer": 3, "n_head": 2}, {"scale_attn_weights": False}, {"activation_function": "relu"}, {"layer_norm_epsilon": 1e-2},
        {"tie_word_embeddings": False}, {"attn_pdrop": 0.3, "resid_pdrop": 0.0},
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"), ({"activation_function": "mish"}, "activation_function")]
ANY_ENCODER = [{}, {"hidden_act": "relu"}, {"hidden_act": "quick_gelu"}, {"hidden_act": "gelu_new"}, {"num_labels": 1},
               {"layer_norm_eps": 1e-3}, {"pad_token_id": 3}, {"num_labels": 5}]
ENCODERS = {
    "bert": [*ANY_ENCODER, {"type_vocab_size": 3}, {"classifier_dropout": 0.3}, ({"is_decoder": True}, "is_decoder")],
    "roberta": [*ANY_ENCODER, {"type_vocab_size": 2}, {"pad_token_id": 1}],
    "xlm-roberta": [{}, {"type_vocab_size": 1}, {"hidden_act": "relu"}],
    "modernbert": [{}, {"local_attention": 4}, {"global_attn_every_n_layers": 1}, {"layer_types": ["sliding_attention"] * 2},
                   {"classifier_pooling": "mean"}, {"norm_bias": True}, {"attention_bias": True}, {"mlp_bias": True}, {"classifier_bias": True},
                   {"classifier_activation": "relu"}, {"hidden_activation": "silu"}, {"norm_eps": 1e-2}, {"attention_dropout": 0.3},
                   {"global_rope_theta": 500.0}, {"local_rope_theta": 30.0}, {"num_labels": 1}, ({"mlp_dropout": 0.1}, "mlp_dropout")],
    "deberta-v2": [{}, *({"relative_attention": True, "pos_att_type": ["p2c", "c2p"], **more} for more in (
                       {}, {"pos_att_type": ["c2p"]}, {"pos_att_type": ["p2c"]}, {"pos_att_type": "c2p|p2c"}, {"pos_att_type": None},
                       {"share_att_key": True}, {"share_att_key": True, "position_buckets": 8}, {"norm_rel_ebd": "layer_norm"},
                       {"max_relative_positions": 5}, {"type_vocab_size": 2}, {"position_biased_input": False}, {"pooler_hidden_act": "tanh"},
                       {"pooler_dropout": 0.2, "cls_dropout": 0.3}, {"num_labels": 1})),
                   ({"conv_kernel_size": 3}, "conv_kernel_size"), ({"embedding_size": 16}, "embedding_size")],
    "distilbert": [{}, {"activation": "relu"}, {"activation": "quick_gelu"}, {"num_labels": 1}, {"sinusoidal_pos_embds": True}],
}
CLASSIFIERS = {"mixtral": [{"pad_token_id": 2}], "llama": [{}, {"pad_token_id": 2}, {"pad_token_id": None}], "mistral": [{"pad_token_id": 2}],
               "qwen2": [{"pad_token_id": 5}], "qwen3": [{"pad_token_id": 2, "num_labels": 1}], "smollm3": [{"pad_token_id": 2}]}

# adapters: base -> (name, settings, field that is refused)
ADAPTERS = {
    "tied": [
        ("linear", dict(target_modules="all-linear")), ("rslora", dict(target_modules=["q_proj"], use_rslora=True)),
        ("patterns", dict(target_modules="all-linear", rank_pattern={"q_proj": 2}, alpha_pattern={r".*\.1\..*": 9})),
        ("layers", dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[1])),
        ("excluded", dict(target_modules="all-linear", exclude_modules=["down_proj"])),
        ("regex", dict(target_modules=r".*\.0\.self_attn\.(q|k)_proj")),
        ("norms saved", dict(target_modules=["q_proj"], modules_to_save=["norm", "input_layernorm"])),
        ("embedding", dict(target_modules=["embed_tokens", "q_proj"])),
        ("embedding rslora", dict(target_modules=["embed_tokens"], use_rslora=True, rank_pattern={"embed_tokens": 2})),
        ("embedding tied", dict(target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True)),
        ("head tied", dict(target_modules=["lm_head", "q_proj"], ensure_weight_tying=True)),
        ("head alone", dict(target_modules=["lm_head", "q_proj"])),
        ("embedding saved", dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
        ("embedding saved tied", dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
        ("head saved", dict(target_modules=["q_proj"], modules_to_save=["lm_head"])),
        ("tokens", dict(target_modules=["q_proj"], trainable_token_indices=[2, 7, 50])),
        ("tokens of both", dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [2, 7], "lm_head": [2, 7]})),
        ("tokens named", dict(target_modules=["q_proj"], trainable_token_indices={"model.embed_tokens": [9]})),
        ("bias of B", dict(target_modules=["q_proj", "k_proj"], lora_bias=True)),
        ("dora", dict(target_modules=["q_proj"], use_dora=True), "use_dora"),
        ("bias all", dict(target_modules=["q_proj"], bias="all"), "bias"),
        ("bias lora_only", dict(target_modules=["q_proj"], bias="lora_only"), "bias"),
        ("parameters", dict(target_modules=["q_proj"], target_parameters=["self_attn.v_proj.weight"]), "target_parameters"),
        ("alora", dict(target_modules=["q_proj"], alora_invocation_tokens=[5]), "alora_invocation_tokens"),
        ("replication", dict(target_modules=["q_proj"], layer_replication=[[0, 2], [1, 2]]), "layer_replication"),
    ],
    "untied": [
        ("head", dict(target_modules=["lm_head", "embed_tokens"])),
        ("tokens of each", dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [2, 7], "lm_head": [50, 4]})),
        ("embedding, ensured", dict(target_modules=["embed_tokens"], ensure_weight_tying=True)),
        ("both saved", dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])),
    ],
    "bert": [
        ("classifier", dict(target_modules=["query", "value"])), ("all", dict(target_modules="all-linear")),
        ("words", dict(target_modules=["word_embeddings", "query"])),
        ("positions", dict(target_modules=["position_embeddings", "token_type_embeddings"])),
        ("tokens", dict(target_modules=["query"], trainable_token_indices={"word_embeddings": [9, 4]})),
        ("bias of B", dict(target_modules=["query", "dense"], lora_bias=True)),
    ],
    "roberta": [("classifier", dict(target_modules=["query"])), ("words", dict(target_modules=["word_embeddings"]))],
}
# names of tensors in an adapter file, from PEFT's
KEYS = {
    "compiled": lambda k: k.replace("base_model.model.", "base_model.model._orig_mod.", 1),
    "compiled outside": lambda k: "_orig_mod." + k,
    "data parallel": lambda k: "module." + k,
    "twice": lambda k: "base_model.model." + k,
    "no prefix": lambda k: k.removeprefix("base_model.model."),
    "adapter's name": lambda k: k.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."),
    "without head": lambda k: k.replace("base_model.model.model.", "base_model.model.", 1),
}
STORED = {
    "compiled": lambda t: {"_orig_mod." + k: v for k, v in t.items()},
    "data parallel": lambda t: {"module." + k: v for k, v in t.items()},
    "blocks compiled": lambda t: {k.replace("mlp.", "_orig_mod.mlp."): v for k, v in t.items()},
    "merged by hand": lambda t: {"base_model.model." + k: v for k, v in t.items()},
    "extra tensors": lambda t: {**t, "model.layers.0.self_attn.rotary_emb.inv_freq": next(iter(t.values()))[0, :4].clone()},
}


class Run:
    def __init__(self, loram, scratch):
        self.loram, self.scratch, self.rows, self.count = os.path.abspath(loram), scratch, [], 0

    def folder(self):
        self.count += 1
        return os.path.join(self.scratch, str(self.count))

    def call(self, *args):
        """Exit code, JSON object or error text."""
        args = [self.loram, *(str(a) for a in args), "--json"]
        done = subprocess.run(args, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600)
        return done.returncode, json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip()

    def row(self, what, name, outcome, text):
        self.rows.append((what, outcome))
        print(f"{what:22} {name:58} {outcome:9} {text}", flush=True)

    def compare(self, what, name, args, expected, refused=None):
        """The loss of `eval`, or the refusal that names the field."""
        code, found = self.call("eval", *args)
        if refused and code == 2 and refused in found:
            return self.row(what, name, "refused", found.splitlines()[-1][:150])
        if code:
            return self.row(what, name, "FAILED", f"exit {code}: {found[-300:]}")
        apart = abs(found["loss"] - expected) / abs(expected)
        self.row(what, name, "same" if apart <= LIMIT else "DIFFERS", f"{found['loss']:.6f} {expected:.6f} {apart:.1e}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--loram", default="target/release/loram", help="the program")
    p.add_argument("--only", default="", help="run only variations whose name contains this")
    p.add_argument("--list", action="store_true", help="list the variations and stop")
    args = p.parse_args()
    os.chdir(ROOT)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    warnings.simplefilter("ignore")
    start = time.time()
    with tempfile.TemporaryDirectory(prefix="loram-variations-") as scratch:
        run = Run(args.loram, scratch)
        for what, name, job in variations(run):
            if args.only not in f"{what} {name}":
                continue
            if args.list:
                print(f"{what:22} {name}")
                continue
            try:
                job()
            except Exception:
                run.row(what, name, "FAILED", traceback.format_exc(limit=3).replace("\n", " | ")[-400:])
    outcomes = [outcome for _, outcome in run.rows]
    counts = {o: outcomes.count(o) for o in ("same", "refused", "skipped", "DIFFERS", "FAILED")}
    print(f"\n{len(outcomes)} variations in {time.time() - start:.0f} s: " + ", ".join(f"{n} {o}" for o, n in counts.items()))
    sys.exit(1 if counts["DIFFERS"] or counts["FAILED"] or not outcomes and not args.list else 0)


def variations(run):
    """Every comparison as (what, name, function)."""
    import torch, transformers as tf
    import reference as ref
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors.torch import load_file, save_file

    causal, classifies = tf.AutoModelForCausalLM, tf.AutoModelForSequenceClassification

    def build(family, kind, settings):
        """A folder of a random model with a tokenizer, or the reason why transformers does not make one."""
        torch.manual_seed(3)
        base = dict(DECODER if family in DECODERS else ENCODER)
        if family == "distilbert":
            base.update(dim=base.pop("hidden_size"), hidden_dim=base.pop("intermediate_size"), n_layers=2, n_heads=4)
        if family == "gpt2":
            tokens = {k: v for k, v in DECODER.items() if k.endswith("token_id")}
            base = dict(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, **tokens)
        base.update(OWN.get(family, {}) | settings)
        how = dict(attn_implementation="eager", experts_implementation="eager")
        model = kind.from_config(tf.AutoConfig.for_model(family, **base), **how)
        for name, p in model.named_parameters():
            with torch.no_grad():
                norm = "norm" in name.lower() or ".ln_" in name
                p.normal_(1.0 if p.dim() == 1 and norm and name.endswith("weight") else 0.0, 0.2)
        plain = run.folder()
        model.save_pretrained(plain)
        return with_tokenizer(plain, family)

    def with_tokenizer(plain, family):
        # what the file has, whatever transformers writes of it
        folder = run.folder()
        if family in ("xlm-roberta",):
            ref.SPECIALS.setdefault(family, ref.SPECIALS["roberta"])
        return ref.with_tokenizer(plain, folder)

    def load(folder, kind, adapter=None):
        how = dict(attn_implementation="eager", experts_implementation="eager")
        model = kind.from_pretrained(folder, dtype=torch.float32, **how)
        return (PeftModel.from_pretrained(model, adapter) if adapter else model).eval()

    def data(folder, kind, outputs, pad=False):
        """Records and their tokens; with `pad`, texts end in tokens of padding."""
        rng = random.Random(7)
        words = lambda: " ".join(f"w{rng.randint(6, 90)}" for _ in range(rng.randint(3, 12)))
        ends = ["", " </s>", " </s> </s>", " <pad> w9 </s>", " <pad>", " w5 </s> w5"] if pad else [""]
        records = []
        for i in range(8):
            r = {"text": words() + ends[i % len(ends)]}
            if kind is classifies:
                r["label"] = rng.uniform(-1, 1) if outputs == 1 else f"LABEL_{i % outputs}"
            records.append(r)
        path = run.folder() + ".jsonl"
        with open(path, "w") as f:
            f.writelines(json.dumps(r) + "\n" for r in records)
        labels = sorted({r["label"] for r in records if isinstance(r.get("label"), str)})
        return path, ref.examples(folder, records, labels)

    def model_job(what, family, kind, settings, refused=None):
        name = f"{family} " + " ".join(f"{k}={json.dumps(v)}" for k, v in settings.items())

        def job():
            folder = build(family, kind, settings)
            outputs = settings.get("num_labels", 2 if family in DECODERS or family == "gpt2" else 3)
            path, examples = data(folder, kind, outputs, pad=kind is classifies and family in DECODERS)
            try:
                expected = ref.loss(load(folder, kind), examples)
            except Exception as e:
                if not refused:
                    return run.row(what, name, "skipped", f"transformers: {type(e).__name__}: {str(e)[:80]}")
                expected = 1.0
            run.compare(what, name, ["--model", folder, "--data", path], expected, refused)

        return what, name, job

    for family, options in DECODERS.items():
        for option in ANY_DECODER + options:
            settings, refused = option if isinstance(option, tuple) else (option, None)
            yield model_job("config", family, causal, settings, refused)
    for family, options in [("gpt2", GPT2), *ENCODERS.items()]:
        for option in options:
            settings, refused = option if isinstance(option, tuple) else (option, None)
            yield model_job("config", family, causal if family == "gpt2" else classifies, settings, refused)
    for family, options in CLASSIFIERS.items():
        for settings in options:
            yield model_job("classifier", family, classifies, settings)

    def stored_job(name, change, tied, reference=None):
        """A checkpoint with other tensors; `reference` makes of its tensors what transformers reads, else the original counts."""

        def job():
            folder = build("llama", causal, {"tie_word_embeddings": tied})
            path, examples = data(folder, causal, None)
            file = os.path.join(folder, "model.safetensors")
            tensors = load_file(file)
            changed = {k: v.contiguous().clone() for k, v in change(dict(tensors)).items()}
            if reference:
                save_file(changed, file, metadata={"format": "pt"})
            expected = ref.loss(load(folder, causal), examples)
            save_file(changed, file, metadata={"format": "pt"})
            run.compare("checkpoint", name, ["--model", folder, "--data", path], expected)

        return "checkpoint", name, job

    for name, change in STORED.items():
        for tied in (True, False):
            yield stored_job(f"{name}, {'tied' if tied else 'untied'}", change, tied)
    embedding = "model.embed_tokens.weight"
    other = lambda t: {**t, "lm_head.weight": t[embedding].flip(0)}
    yield stored_job("tied, another head in the file", other, True, True)
    yield stored_job("tied, an equal head in the file", lambda t: {**t, "lm_head.weight": t[embedding]}, True, True)
    alone = lambda t: {("lm_head.weight" if k == embedding else k): v for k, v in t.items()}
    yield stored_job("tied, the head alone in the file", alone, True, True)

    bases = {"tied": ("qwen2", causal, {"tie_word_embeddings": True}), "untied": ("llama", causal, {}),
             "bert": ("bert", classifies, {"type_vocab_size": 2}), "roberta": ("roberta", classifies, {})}
    made = {}

    def base(name):
        if name not in made:
            family, kind, settings = bases[name]
            folder = build(family, kind, settings)
            made[name] = (folder, kind, *data(folder, kind, 3))
        return made[name]

    def adapter_of(name, settings):
        folder, kind, _, _ = base(name)
        torch.manual_seed(5)
        task = "SEQ_CLS" if kind is classifies else "CAUSAL_LM"
        peft = get_peft_model(load(folder, kind), LoraConfig(r=3, lora_alpha=5, task_type=task, **settings))
        tied = {}
        for key, p in peft.named_parameters():
            if p.requires_grad:
                with torch.no_grad():
                    p.copy_(p + torch.randn(p.shape) * 0.15)
        # tied factors share memory: what is written last counts for both
        out = run.folder()
        peft.save_pretrained(out)
        return out

    def adapter_job(name, label, settings, refused=None):
        title = f"{name}: {label}"

        def job():
            folder, kind, path, examples = base(name)
            try:
                adapter = adapter_of(name, settings)
                expected = ref.loss(load(folder, kind, adapter), examples)
            except Exception as e:
                return run.row("adapter", title, "skipped", f"PEFT: {type(e).__name__}: {str(e)[:80]}")
            args = ["--model", folder, "--data", path]
            run.compare("adapter", title, [*args, "--adapter", adapter], expected, refused)
            if refused:
                return
            merged = run.folder()
            code, text = run.call("merge", "--model", folder, "--adapter", adapter, "--output", merged)
            if code:
                return run.row("merged", title, "FAILED", text[-300:])
            run.compare("merged", title, ["--model", merged, "--data", path], expected)
            apart = abs(ref.loss(load(merged, kind), examples) - expected) / abs(expected)
            run.row("merged, transformers", title, "same" if apart <= LIMIT else "DIFFERS", f"{apart:.1e}")
            converted = run.folder()
            code, text = run.call("convert", adapter, "--fold-scaling", "--output", converted)
            if code:
                return run.row("converted, PEFT", title, "FAILED", text[-300:])
            apart = abs(ref.loss(load(folder, kind, converted), examples) - expected) / abs(expected)
            run.row("converted, PEFT", title, "same" if apart <= LIMIT else "DIFFERS", f"{apart:.1e}")

        return "adapter", title, job

    for name, list_of in ADAPTERS.items():
        for label, settings, *refused in list_of:
            yield adapter_job(name, label, settings, *refused)

    def keys_job(label, change):
        def job():
            folder, kind, path, examples = base("tied")
            adapter = adapter_of("tied", dict(target_modules=["q_proj", "v_proj"]))
            expected = ref.loss(load(folder, kind, adapter), examples)
            file = os.path.join(adapter, "adapter_model.safetensors")
            save_file({change(k): v.clone() for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
            run.compare("adapter's keys", label, ["--model", folder, "--data", path, "--adapter", adapter], expected)

        return "adapter's keys", label, job

    for label, change in KEYS.items():
        yield keys_job(label, change)

    def trained_job(label, *flags):
        """An adapter that the program trains, in PEFT."""

        def job():
            folder, kind, path, examples = base("tied")
            out = run.folder()
            code, text = run.call("train", "--model", folder, "--data", path, "--output", out, "--r", 2, "--max-steps", 6,
                                  "--learning-rate", 5e-3, *flags)
            if code:
                return run.row("trained", label, "FAILED", text[-300:])
            adapter = os.path.join(out, "adapter")
            expected = ref.loss(load(folder, kind, adapter), examples)
            base_loss = ref.loss(load(folder, kind), examples)
            if abs(expected - base_loss) < 1e-3:
                return run.row("trained", label, "FAILED", "the adapter changes nothing")
            run.compare("trained", label, ["--model", folder, "--data", path, "--adapter", adapter], expected)

        return "trained", label, job

    for init in ("lora", "loram", "pissa", "olora", "mica", "loftq", "gaussian", "milora", "orthogonal"):
        targets = ("--init", init, "--target-modules", "embed_tokens,q_proj")
        yield trained_job(f"embedding {init}", *targets)
        yield trained_job(f"embedding {init} tied", *targets, "--set", "ensure_weight_tying=true")
    yield trained_job("tokens", "--init", "loram", "--set", "trainable_token_indices=[9,30,2]")
    yield trained_job("bias of B", "--init", "loram", "--target-modules", "q_proj", "--set", "lora_bias=true")
    yield trained_job("embedding saved", "--init", "lora", "--set", "modules_to_save=embed_tokens", "--set", "ensure_weight_tying=true")


if __name__ == "__main__":
    main()
