#!/usr/bin/env python3
"""Training steps of loram and of PEFT in turn, on the same weights, tokens and adapter: in f32 on the CPU, in bf16 with
f32 adapters on an NVIDIA GPU.

    python3 bench/step/step.py [--shape a,b,c] [--threads 2] [--rounds 3] [--sst2 FILE --minilm FOLDER] [--json FILE]
    python3 bench/step/step.py --magnitude 20 [--shape a] [--rounds 3]
    python3 bench/step/step.py --device cuda [--shape d,e] [--loram PROGRAM] [--peer liger,unsloth] [--profile]
    python3 bench/step/step.py --real MODEL --data FILE [--steps 10] [--batch 8] [--rounds 2] [--nf4] [--gguf FILE.gguf]

Shapes: a = Llama 512 wide, 8 layers, ffn 1376, vocabulary 8192, 4 x 256 tokens, r 16; b = Qwen2.5-0.5B's shape, 1 x 512
tokens, r 16; c = MiniLM on 512 sentences of SST-2, batches of 32, a whole epoch (needs --sst2 and --minilm);
d = Llama-3.2-1B's shape and e = Llama-2-7B's, 4 x 1024 tokens, r 16, and f = SmolLM2-135M's, 8 x 192 tokens, for GPUs.

--peer NAMES are further sides of --device cuda, each PEFT with other kernels: `liger` (liger-kernel's for Llama) and `unsloth`
(FastLanguageModel, without gradient checkpointing). `bench/step/peers` brings their wheels to a machine without network.

With --real MODEL --data FILE (a model folder in bf16; lines with `prompt` and `completion`) the records of the file are
trained in batches, prompts out of the loss, by both sides in f32 and in bf16 in turn, with r 16 on all linear layers. --nf4 adds
both sides on the model in NF4, quantised by bitsandbytes and by loram, and --gguf both on a GGUF file of it, whose blocks transformers
(5.24 or later) keeps packed; products are in bf16 there.

Nothing is installed: the Python that runs this, or $LORAM_PYTHON, must have torch, transformers and peft; the loram side is
built with cargo when it is missing. Each round runs PEFT, then loram, each in a process of its own; the first steps of a
process do not count. With --magnitude N there is no PEFT side: blocks of N steps of loram alternate, and those of every
other block end with a measurement of magnitudes (`magnitude_steps`). Losses and gradient norms of all steps must agree. FLOPs are those of the matrix products that a step
needs: two per weight and token in the forward pass, two in the backward pass, low-rank products on top."""
import argparse, json, os, shutil, statistics, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = os.environ.get("LORAM_PYTHON", sys.executable)
LORAM = os.path.join(ROOT, "target/release/examples/step_bench")
R = 16
QWEN = dict(vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
            num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True)
LLAMA = dict(vocab_size=8192, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
             num_key_value_heads=8, max_position_embeddings=4096, tie_word_embeddings=False)

LLAMA_1B = dict(vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
                num_key_value_heads=8, head_dim=64, max_position_embeddings=8192, tie_word_embeddings=True)
LLAMA_7B = dict(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
                num_key_value_heads=32, max_position_embeddings=4096, tie_word_embeddings=False)
SMOL = dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True)
# kind, configuration, documents, tokens in each, steps
SHAPES = {"a": ("llama", LLAMA, 4, 256, 8), "b": ("qwen2", QWEN, 1, 512, 4),
          "d": ("llama", LLAMA_1B, 4, 1024, 12), "e": ("llama", LLAMA_7B, 4, 1024, 8),
          "f": ("llama", SMOL, 8, 192, 16)}

MAKE = r"""
import json, sys, torch, transformers as tf
from peft import LoraConfig, get_peft_model
how = json.load(open(sys.argv[1]))
torch.manual_seed(0)
if how["kind"] == "minilm":
    model = tf.AutoModelForSequenceClassification.from_pretrained(how["base"], num_labels=2, dtype=torch.float32)
    model.save_pretrained(how["model"])
else:
    config = (tf.Qwen2Config if how["kind"] == "qwen2" else tf.LlamaConfig)(**how["config"])
    with torch.device(how["device"]):
        model = tf.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, how["dtype"]))
    model.save_pretrained(how["model"], max_shard_size="2GB")
    # Unsloth loads no model without a tokenizer
    import tokenizers
    words = {"<s>": 0, "</s>": 1, "<pad>": 2, **{f"w{i}": i for i in range(3, config.vocab_size)}}
    tf.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>")),
                               bos_token="<s>", eos_token="</s>", pad_token="<pad>").save_pretrained(how["model"])
peft = get_peft_model(model, LoraConfig(r=how["r"], lora_alpha=2 * how["r"], target_modules="all-linear",
    task_type="SEQ_CLS" if how["kind"] == "minilm" else "CAUSAL_LM", lora_dropout=0.0))
with torch.no_grad():  # a B of its own size, so that gradients of A are not nothing
    for n, p in peft.named_parameters():
        if "lora_B" in n:
            p.normal_(0, 0.02)
peft.save_pretrained(how["adapter"])
json.dump([[n, list(m.weight.shape)] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)],
          open(how["linears"], "w"))
if how["kind"] == "minilm":
    tok = tf.AutoTokenizer.from_pretrained(how["base"])
    rows = [json.loads(l) for l in open(how["data"])][: how["count"]]
    names = sorted({r["label"] for r in rows})
    ids = [tok(r["text"], truncation=True, max_length=128)["input_ids"] for r in rows]
    json.dump([ids, [names.index(r["label"]) for r in rows]], open(how["tokens"], "w"))
"""


REAL = r"""
import json, sys, torch, transformers as tf
from peft import LoraConfig, get_peft_model
how = json.load(open(sys.argv[1]))
torch.manual_seed(0)
model = tf.AutoModelForCausalLM.from_pretrained(how["model"], dtype=torch.float32)
peft = get_peft_model(model, LoraConfig(r=how["r"], lora_alpha=2 * how["r"], target_modules="all-linear",
    task_type="CAUSAL_LM", lora_dropout=0.0))
peft.save_pretrained(how["adapter"])
json.dump([[n, list(m.weight.shape)] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)],
          open(how["linears"], "w"))
tok = tf.AutoTokenizer.from_pretrained(how["model"])
rows = [json.loads(line) for line in open(how["data"])][: how["count"]]
ids = lambda text: tok(text, add_special_tokens=False)["input_ids"]
prompts = [ids(r["prompt"]) for r in rows]
json.dump([[p + ids(r["completion"]) + [tok.eos_token_id] for p, r in zip(prompts, rows)], [len(p) for p in prompts]],
          open(how["tokens"], "w"))
"""


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nexit {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def make(name, args, scratch, shape=None, r=R):
    """Writes weights, adapter and job of a shape: that of the name, or (kind, configuration, documents, length, steps)."""
    import random

    at = lambda x: os.path.join(scratch, f"{name}-{x}")
    how = {"model": at("model"), "adapter": at("adapter"), "linears": at("linears.json"), "r": r}
    if name == "c":
        if not (args.sst2 and args.minilm):
            sys.exit("shape c needs --sst2 FILE and --minilm FOLDER")
        how.update(kind="minilm", base=args.minilm, data=args.sst2, count=512, tokens=at("tokens.json"))
    else:
        kind, config, documents, length, steps = shape or SHAPES[name]
        how.update(kind=kind, config=config, dtype="bfloat16" if args.device == "cuda" else "float32", device=args.device)
    with open(at("how.json"), "w") as f:
        json.dump(how, f)
    with open(at("make.py"), "w") as f:
        f.write(MAKE)
    run(PYTHON, at("make.py"), at("how.json"))
    job = {"model": how["model"], "adapter": how["adapter"], "num_labels": 0, "learning_rate": 1e-4, "threads": args.threads,
           "device": args.device}
    rng = random.Random(0)
    if name == "c":
        with open(how["tokens"]) as f:
            ids, labels = json.load(f)
        order = list(range(len(ids)))
        rng.shuffle(order)
        groups = [order[i : i + 32] for i in range(0, len(order), 32)]
        job.update(batches=[[ids[i] for i in g] for g in groups], targets=[[labels[i] for i in g] for g in groups],
                   num_labels=2, repeat=2)
    else:
        vocab = config["vocab_size"]
        job.update(batches=[[[rng.randrange(vocab) for _ in range(length)] for _ in range(documents)] for _ in range(steps)],
                   repeat=1)
    with open(at("job.json"), "w") as f:
        json.dump(job, f)
    with open(how["linears"]) as f:
        job["linears"] = json.load(f)
    job["r"] = r
    return at("job.json"), job


def real(args):
    """Both sides in f32 and bf16 in turn on records of a file."""
    with tempfile.TemporaryDirectory(prefix="loram-step-") as scratch:
        at = lambda x: os.path.join(scratch, x)
        how = {"model": os.path.abspath(args.real), "data": os.path.abspath(args.data), "adapter": at("adapter"), "r": R,
               "linears": at("linears.json"), "tokens": at("tokens.json"), "count": args.steps * args.batch}
        for name, text in (("how.json", json.dumps(how)), ("make.py", REAL)):
            with open(at(name), "w") as f:
                f.write(text)
        run(PYTHON, at("make.py"), at("how.json"))
        with open(how["tokens"]) as f:
            documents, prompts = json.load(f)
        cut = lambda x: [x[i : i + args.batch] for i in range(0, len(x), args.batch)]
        job = {"model": how["model"], "adapter": how["adapter"], "num_labels": 0, "learning_rate": 2e-4, "threads": args.threads,
               "device": "cpu", "batches": cut(documents), "prompts": cut(prompts), "repeat": 1}
        programs = {"peft": [PYTHON, os.path.join(HERE, "peft_side.py")], "loram": [args.loram]}
        bases = ["float32", "bfloat16"] + ["nf4"] * args.nf4 + ["gguf"] * bool(args.gguf)
        sides = [(s, d) for d in bases for s in programs if f"{s} {d}" not in (args.without or "").split(",")]
        runs = {f"{s} {d}": [] for s, d in sides}
        for _ in range(args.rounds):
            for side, dtype in sides:
                packed = {"nf4": {"load_in_4bit": True}, "gguf": {"model": os.path.abspath(args.gguf or "")}}.get(dtype)
                with open(at("job.json"), "w") as f:
                    json.dump({**job, "compute_dtype": "bfloat16" if packed else dtype, **(packed or {})}, f)
                runs[f"{side} {dtype}"].append(json.loads(run(*programs[side], at("job.json"))))
        with open(how["linears"]) as f:
            job.update(linears=json.load(f), r=R)
    batches = job["batches"][args.warmup :]
    tokens = statistics.mean(sum(map(len, b)) for b in batches)
    work = statistics.mean(flops(job, b, p) for b, p in zip(batches, job["prompts"][args.warmup :]))
    print(f"{len(job['batches'])} steps of {args.batch} records, {tokens:.0f} tokens and {work / 1e9:.0f} GFLOP each")
    print(f"{'':16} {'s/step':>9} {'least':>9} {'tokens/s':>9} {'GFLOP/s':>8} {'peak RSS':>10} {'last loss':>10}")
    figures = {}
    for name, found in runs.items():
        # every step at its fastest, then the mean: batches differ in length
        steps = [min(r["seconds"][i] for r in found) for i in range(args.warmup, len(job["batches"]))]
        mean, least = statistics.mean(statistics.mean(r["seconds"][args.warmup :]) for r in found), statistics.mean(steps)
        memory = statistics.median(r["peak_rss"] for r in found)
        losses = found[0]["losses"]
        figures[name] = {"seconds": mean, "least": least, "memory": memory, "losses": losses, "gflops": work / least / 1e9}
        print(f"{name:16} {mean:9.4f} {least:9.4f} {tokens / least:9.0f} {work / least / 1e9:8.0f} {memory / 1e6:8.0f}MB {losses[-1]:10.5f}")
    for side, dtype in sides:
        if dtype == "bfloat16" and f"{side} float32" in figures:
            pairs = list(zip(figures[f"{side} float32"]["losses"], figures[f"{side} bfloat16"]["losses"]))
            apart = max(abs(b / a - 1) for a, b in pairs)
            mean = abs(sum(b for _, b in pairs) / sum(a for a, _ in pairs) - 1)
            print(f"{side}: losses in bf16 and f32 apart by at most {apart:.1e}, on average over all steps by {mean:.1e}")
    for dtype in bases:
        if {f"loram {dtype}", f"peft {dtype}"} <= figures.keys():
            ours, theirs = figures[f"loram {dtype}"], figures[f"peft {dtype}"]
            print(f"{dtype}: loram/peft time {ours['least'] / theirs['least']:.3f}, memory {ours['memory'] / theirs['memory']:.2f}; mean losses "
                  f"{statistics.mean(ours['losses']):.5f} and {statistics.mean(theirs['losses']):.5f}")
    if "float32" in {d for _, d in sides} and {"loram float32", "peft float32"} <= figures.keys():
        apart = max(abs(a / b - 1) for a, b in zip(figures["loram float32"]["losses"], figures["peft float32"]["losses"]))
        print(f"losses of the two sides in f32 apart by at most {apart:.1e}")
        if apart > 1e-3:
            sys.exit("the two sides do not compute the same")
    return figures


def flops(job, batch, prompts=None):
    """Products of one step: frozen weights forward and backward, low-rank factors, attention."""
    with open(os.path.join(job["model"], "config.json")) as f:
        c = json.load(f)
    tokens, total = sum(map(len, batch)), 0
    for name, (n, m) in job["linears"]:
        head = name in ("lm_head", "classifier") or "pooler" in name
        rows = len(batch) if head and job["num_labels"] else tokens
        if head and prompts:  # logits of the rows that count
            rows = tokens - sum(prompts)
        total += rows * (4 * n * m if not head or not job["num_labels"] else 6 * n * m)
        if not head:
            total += tokens * 6 * job["r"] * (n + m)
    causal = 0.5 if not job["num_labels"] else 1.0
    # two products forward; the backward pass computes the scores again and has four more
    total += sum(len(d) ** 2 for d in batch) * c["hidden_size"] * c["num_hidden_layers"] * 2 * 7 * causal
    return total


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shape", help="default: a; d,e with --device cuda")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--loram", default=LORAM, help="the built example step_bench")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--warmup", type=int, default=2, help="steps of a process that do not count (shape c: a whole epoch)")
    p.add_argument("--magnitude", type=int, default=0, metavar="N", help="what measuring magnitudes every N steps costs")
    p.add_argument("--peer", default="", help="liger, unsloth or both, beside PEFT on --device cuda")
    p.add_argument("--profile", action="store_true", help="where the GPU's time goes in a further run of loram")
    p.add_argument("--real", metavar="MODEL", help="a model folder: steps on --data, in f32 and bf16")
    p.add_argument("--data", metavar="FILE", help="JSON Lines with `prompt` and `completion`")
    p.add_argument("--steps", type=int, default=10, help="batches of --data")
    p.add_argument("--batch", type=int, default=8, help="records of --data in a batch")
    p.add_argument("--nf4", action="store_true", help="both sides of --real in NF4, too")
    p.add_argument("--gguf", metavar="FILE", help="both sides of --real on this file, too")
    p.add_argument("--without", help="sides of --real to leave out, e.g. 'peft float32,loram float32'")
    p.add_argument("--sst2")
    p.add_argument("--minilm")
    p.add_argument("--json", help="write all figures here")
    args = p.parse_args()
    cuda = args.device == "cuda"
    args.peer = [peer for peer in args.peer.split(",") if peer]
    if set(args.peer) - {"liger", "unsloth"} or args.peer and not cuda:
        p.error("--peer takes liger and unsloth, with --device cuda")
    if args.profile and not cuda:
        p.error("--profile is for --device cuda; on the CPU use perf")
    if not os.path.exists(args.loram):
        features = ["--features", "loram-train/cuda"] if cuda else []
        subprocess.run(["cargo", "build", "--release", "--workspace", "--example", "step_bench", *features], cwd=ROOT, check=True)
    if args.real:
        if not args.data:
            p.error("--real needs --data")
        figures = real(args)
        if args.json:
            with open(args.json, "w") as f:
                json.dump(figures, f, indent=1)
        return
    figures = {}
    with tempfile.TemporaryDirectory(prefix="loram-step-") as scratch:
        for name in (args.shape or ("d,e" if cuda else "a")).split(","):
            path, job = make(name, args, scratch)
            if args.magnitude:
                figures[name] = magnitude(name, path, job, args)
                continue
            torch_side = [PYTHON, os.path.join(HERE, "peft_side.py")]
            sides = {"peft": torch_side, **{peer: torch_side for peer in args.peer}, "loram": [args.loram]}
            runs = {side: [] for side in sides}
            peaks = {side: [] for side in sides}
            failed = set()
            for _ in range(args.rounds):
                if cuda:  # both sides use the same library
                    gemm = json.loads(run(*sides["peft"], "--gemm-cuda"))["gemm_gflops"]
                for side, command in sides.items():
                    if not cuda:
                        gemm = json.loads(run(*command, "--gemm", args.threads))["gemm_gflops"]
                    peaks[side].append(gemm)
                    with open(path) as f:
                        written = json.load(f)
                    with open(path, "w") as f:
                        json.dump({**written, "peer": side}, f)
                    try:
                        runs[side].append(json.loads(run(*command, path).splitlines()[-1]))
                    except SystemExit as failure:
                        if side not in args.peer:
                            raise
                        print(f"{side} does not run here and is left out: {failure}", file=sys.stderr)
                        failed.add(side)
                for side in failed & sides.keys():
                    del sides[side], runs[side], peaks[side]
            skip = len(job["batches"]) if name == "c" else args.warmup
            figures[name] = report(name, job, runs, peaks, skip)
            if args.profile:
                figures[name]["profile"] = profile(name, path, args)
            if cuda:  # weights of several shapes need not lie there together
                shutil.rmtree(job["model"])
    if args.json:
        with open(args.json, "w") as f:
            json.dump(figures, f, indent=1)


def magnitude(name, path, job, args):
    """Steps with and without the measurement, block by block."""
    job = {k: v for k, v in job.items() if k not in ("linears", "r")}
    job.update(magnitude_steps=args.magnitude, repeat=-(-2 * (args.rounds + 1) * args.magnitude // len(job["batches"])))
    with open(path, "w") as f:
        json.dump(job, f)
    result = json.loads(run(LORAM, path))
    found = result["magnitude"]
    # the first pair of blocks warms up
    ratios = [b / a - 1 for a, b in zip(found["without"][1:], found["with"][1:])]
    # against the fastest step, so that a busy machine makes the share larger, not smaller
    step, each = min(result["seconds"]), statistics.median(found["measuring"])
    share = each / args.magnitude / step
    print(f"\nshape {name}: fastest step {step:.4f} s; one measurement {each:.4f} s, every {args.magnitude} steps {100 * share:.2f} % of "
          f"the time; blocks with it against blocks without: {', '.join(f'{100 * r:+.2f} %' for r in ratios)} "
          f"(median {100 * statistics.median(ratios):+.2f} %); norms of the weights once {found['norms']:.2f} s", flush=True)
    return {**found, "share": share, "ratios": ratios}


def profile(name, path, args):
    """Kernels and products of the second half of the steps."""
    with open(path) as f:
        job = json.load(f)
    with open(path, "w") as f:
        json.dump({**job, "profile": True}, f)
    result = json.loads(run(args.loram, path))
    found, steps = result["profile"]["kernels"], result["profile"]["steps"]
    total = sum(seconds for _, _, seconds in found)
    wall = statistics.median(result["seconds"][: len(result["seconds"]) - steps][args.warmup :])
    print(f"\nshape {name}: a step keeps the GPU busy for {1e3 * total / steps:.2f} ms of {1e3 * wall:.2f} ms")
    for what, calls, seconds in found[:24]:
        print(f"{1e3 * seconds / steps:9.3f} ms {100 * seconds / total:5.1f} % {calls // steps:5} x  {what}", flush=True)
    return result["profile"]


def report(name, job, runs, peaks, skip):
    others = [side for side in runs if side != "loram"]
    apart = lambda key, side: max(abs(a / b - 1) for x, y in zip(runs["loram"], runs[side]) for a, b in zip(x[key], y[key]))
    loss, norm = (max(apart(key, side) for side in others) for key in ("losses", "grad_norms"))
    batches = job["batches"] * job["repeat"]
    work = statistics.mean(flops(job, b) for b in batches[skip:])
    tokens = statistics.mean(sum(map(len, b)) for b in batches[skip:])
    peak = max(max(p) for p in peaks.values())
    cuda = job["device"] == "cuda"
    out = {"loss_apart": loss, "norm_apart": norm, "gemm_peak": {k: max(v) for k, v in peaks.items()}}
    print(f"\nshape {name}: losses apart by {loss:.1e}, gradient norms by {norm:.1e}; GEMM peak {max(peaks['peft']):.0f} GFLOP/s "
          f"(torch), {max(peaks['loram']):.0f} (loram)")
    print(f"{'':8} {'s/step':>9} {'least':>9} {'tokens/s':>9} {'GFLOP/s':>8} {'of peak':>8} {'peak GPU' if cuda else 'peak RSS':>10}")
    for side in runs:
        times = [statistics.mean(r["seconds"][skip:]) if name == "c" else statistics.median(r["seconds"][skip:]) for r in runs[side]]
        memory = "peak_gpu" if cuda else "peak_rss"
        t, rss = statistics.median(times), statistics.median(r[memory] for r in runs[side])
        out[side] = {"seconds": t, "all": times, "memory": rss, "gflops": work / t / 1e9}
        print(f"{side:8} {t:9.4f} {min(times):9.4f} {tokens / t:9.0f} {work / t / 1e9:8.0f} {100 * work / t / 1e9 / peak:7.0f}% {rss / 1e6:8.0f}MB")
    for side in others:
        ratios = {key: out["loram"][key] / out[side][key] for key in ("seconds", "memory")}
        out[side].update(time_ratio=ratios["seconds"], memory_ratio=ratios["memory"])
        print(f"loram/{side}: time {ratios['seconds']:.2f} ({1 / ratios['seconds']:.2f} x the tokens), memory {ratios['memory']:.2f}; "
              f"losses apart by {apart('losses', side):.1e}, gradient norms by {apart('grad_norms', side):.1e}", flush=True)
    # bf16 rounds in other places on both sides
    if loss > (5e-3 if cuda else 1e-4) or norm > (5e-2 if cuda else 1e-3):
        sys.exit(f"shape {name}: the two sides do not compute the same")
    return out


if __name__ == "__main__":
    main()
