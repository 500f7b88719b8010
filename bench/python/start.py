#!/usr/bin/env python3
"""Time and memory to start a model of 1.2 billion parameters (the shape of Llama-3.2-1B) in bfloat16 on the CPU:
loram.initialize beside PEFT's own starts, in one run.

    python bench/python/start.py [--layers 16] [--svd-layers 1] [--rounds 3] [--threads 2]

Every measurement is a process of its own: it makes the base with random weights, notes the time and the resident memory,
and starts the adapter. `add` is what get_peft_model takes with init_lora_weights=True, which every row contains; the rows
take turns (A B C A B C), and the table has medians. PEFT's exact SVD takes minutes: `pissa` runs on --svd-layers blocks of
the model and is scaled to --layers, which the table says. Identity is the largest difference of logits at step 0 on a small
model with the same starts, relative to the largest logit."""
import argparse, json, os, resource, statistics, subprocess, sys, time

ROWS = ["add", "loram", "pissa_niter_16", "olora", "pissa"]
SHAPE = dict(hidden_size=2048, intermediate_size=8192, num_attention_heads=32, num_key_value_heads=8)


def resident():
    """Bytes in memory now."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def model(blocks, dtype, vocab=128256, **shape):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            made = LlamaForCausalLM(LlamaConfig(num_hidden_layers=blocks, vocab_size=vocab, tie_word_embeddings=True, **shape))
        made.to_empty(device="cpu")
        made.tie_weights()
        for p in made.parameters():
            p.data.normal_(0.0, 0.02)
        for name, buffer in made.named_buffers():
            if "inv_freq" in name:
                buffer.copy_(1.0 / 500000.0 ** (torch.arange(len(buffer)) / len(buffer)))
        return made.eval()
    finally:
        torch.set_default_dtype(before)


def start(base, row, r):
    """The adapter, started as the row says."""
    from peft import LoraConfig, get_peft_model

    own = row if row not in ("add", "loram") else True
    config = LoraConfig(r=r, lora_alpha=r, target_modules="all-linear", init_lora_weights=own, task_type="CAUSAL_LM")
    adapted = get_peft_model(base, config)
    if row == "loram":
        import loram

        loram.initialize(adapted)
    return adapted


def measure(args):
    """In a process of its own: seconds, and bytes above the model's."""
    import torch

    torch.set_num_threads(args.threads)
    import loram, peft  # noqa: F401  their import is not the start

    base = model(args.layers, torch.bfloat16, **SHAPE)
    before, began = resident(), time.perf_counter()
    adapted = start(base, args.measure, args.r)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak - before, "parameters": sum(p.numel() for p in adapted.parameters())}))


def identity():
    import torch

    small = dict(hidden_size=256, intermediate_size=704, num_attention_heads=4, num_key_value_heads=2)
    ids = torch.arange(64).reshape(2, 32)
    print(f"\n{'logits at step 0':16} {'float32':>9} {'bfloat16':>9} {'float16':>9}")
    for row in ["loram", "loram keep_base", "pissa", "pissa_niter_16", "olora"]:
        cells = []
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            base = model(4, dtype, vocab=512, **small)
            with torch.no_grad():
                before = base(input_ids=ids).logits.float()
                if row == "loram keep_base":
                    import loram

                    adapted = start(base, "add", 16)
                    loram.initialize(adapted, keep_base=True)
                else:
                    adapted = start(base, row, 16)
                after = adapted.eval()(input_ids=ids).logits.float()
            cells.append(((after - before).abs().max() / before.abs().max()).item())
        print(f"{row:16} " + " ".join(f"{x:9.1e}" for x in cells), flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--layers", type=int, default=16, help="blocks of the model")
    p.add_argument("--svd-layers", type=int, default=1, help="blocks that `pissa` is measured on")
    p.add_argument("--rounds", type=int, default=3, help="measurements of each row; `pissa` has one")
    p.add_argument("--r", type=int, default=16)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rows", nargs="+", default=ROWS, choices=ROWS)
    p.add_argument("--measure", choices=ROWS, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.measure:
        return measure(args)
    found = {row: [] for row in args.rows}
    for turn in range(args.rounds):
        for row in args.rows:
            if row == "pissa" and turn > 0:
                continue
            blocks = args.svd_layers if row == "pissa" else args.layers
            command = [sys.executable, __file__, "--measure", row, "--layers", str(blocks), "--r", str(args.r)]
            done = subprocess.run([*command, "--threads", str(args.threads)], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{row}: {done.stderr[-2000:]}")
            found[row].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {turn + 1}  {row:16} {found[row][-1]['seconds']:9.2f} s", file=sys.stderr, flush=True)
    size = next(f[0]["parameters"] for row, f in found.items() if row != "pissa")
    print(f"{args.layers} blocks, {size / 1e9:.2f} billion parameters, bfloat16, r = {args.r}, {args.threads} threads, "
          f"medians of {args.rounds}")  # fmt: skip
    print(f"{'start':16} {'seconds':>9} {'without add':>12} {'peak memory above the base':>28}")
    add = statistics.median(f["seconds"] for f in found["add"]) if "add" in found else 0.0
    for row, runs in found.items():
        seconds = statistics.median(f["seconds"] for f in runs)
        peak = statistics.median(f["peak"] for f in runs)
        note = ""
        if row == "pissa" and args.svd_layers != args.layers:
            note = f"  measured on {args.svd_layers} of {args.layers} blocks ({seconds:.1f} s), scaled; memory as measured"
            seconds *= args.layers / args.svd_layers
        print(f"{row:16} {seconds:9.2f} {seconds - add:12.2f} {peak / 2**20:24.0f} MiB{note}")
    identity()


if __name__ == "__main__":
    main()
