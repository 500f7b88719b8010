#!/usr/bin/env python3
"""Memory and time of training by size of the model, as `loram train --dry-run` estimates them: the table of docs/costs.md.

    costs.py LORAM TOKENIZER                        estimates, for the shapes of public models
    costs.py LORAM TOKENIZER --measure SHAPE...     also runs of a few steps, beside their estimates

TOKENIZER is a folder with tokenizer.json, such as SmolLM2-135M-Instruct. The checkpoints are files full of zeros that take no
space on the disk: cost does not depend on values. A step has 4 rows of 512 tokens, r = 16 on all linear layers."""

import argparse
import json
import pathlib
import shutil
import struct
import subprocess
import tempfile

# hidden, blocks, heads, KV heads, head_dim, MLP, vocabulary, tied
SHAPES = {
    "SmolLM2-135M": (576, 30, 9, 3, 64, 1536, 49152, True),
    "Qwen2.5-0.5B": (896, 24, 14, 2, 64, 4864, 151936, True),
    "Llama-3.2-1B": (2048, 16, 32, 8, 64, 8192, 128256, True),
    "Llama-3.2-3B": (3072, 28, 24, 8, 128, 8192, 128256, True),
    "Llama-3.1-8B": (4096, 32, 32, 8, 128, 14336, 128256, False),
}
SETTINGS = {"bf16": [], "checkpointing": ["gradient_checkpointing=true"], "4 bits": ["gradient_checkpointing=true", "load_in_4bit=true"]}
TEXT = "The mill by the river grinds corn for the town, and the miller knows every farmer by name. "


def checkpoint(folder, shape, tokenizer):
    hidden, blocks, heads, kv, dim, mlp, vocabulary, tied = SHAPES[shape]
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "num_hidden_layers": blocks,
        "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": dim, "intermediate_size": mlp,
        "vocab_size": vocabulary, "tie_word_embeddings": tied, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "torch_dtype": "bfloat16",
    }  # fmt: skip
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    if not tied:
        shapes["lm_head.weight"] = (vocabulary, hidden)
    for block in range(blocks):
        name = f"model.layers.{block}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{name}{norm}.weight"] = (hidden,)
        sizes = {"q": (heads * dim, hidden), "k": (kv * dim, hidden), "v": (kv * dim, hidden), "o": (hidden, heads * dim)}
        for part, size in sizes.items():
            shapes[f"{name}self_attn.{part}_proj.weight"] = size
        for part, size in {"gate": (mlp, hidden), "up": (mlp, hidden), "down": (hidden, mlp)}.items():
            shapes[f"{name}mlp.{part}_proj.weight"] = size
    header, at = {}, 0
    for name, size in shapes.items():
        count = size[0] * (size[1] if len(size) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [at, at + 2 * count]}
        at += 2 * count
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.truncate(8 + len(text) + at)
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pathlib.Path(tokenizer, file), folder)
    return at // 2


def run(loram, folder, settings, *more):
    call = [loram, "train", "--model", folder, "--data", folder / "data.txt", "-o", folder / "run", "--json", "--quiet"]
    keys = ["packing=true", "max_length=512", "per_device_train_batch_size=4", "learning_rate=1e-4", "init_lora_weights=lora",
            "memory_check=warn", "save_strategy=no", "overwrite_output_dir=true", *settings]  # fmt: skip
    call += [word for key in keys for word in ("--set", key)] + list(more)
    return json.loads(subprocess.run(call, check=True, stdout=subprocess.PIPE).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loram")
    parser.add_argument("tokenizer")
    parser.add_argument("--measure", nargs="*", default=[], choices=SHAPES, metavar="SHAPE")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=SETTINGS, metavar="SETTING")
    parser.add_argument("--steps", type=int, default=3, help="steps of a measured run")
    args = parser.parse_args()
    for shape in args.measure or SHAPES:
        with tempfile.TemporaryDirectory() as room:
            folder = pathlib.Path(room)
            parameters = checkpoint(folder, shape, args.tokenizer)
            (folder / "data.txt").write_text("\n<|endoftext|>\n".join([TEXT * 24] * 200))
            for name in args.settings:
                settings = SETTINGS[name]
                planned = run(args.loram, folder, settings, "--max-steps", "100", "--dry-run")
                memory, seconds = planned["memory"]["total"], planned["time"]["seconds"] / 100
                row = f"{shape:14} {parameters / 1e9:5.2f} G  {name:14} {memory / 1e9:6.2f} GB {seconds:7.2f} s a step"
                if args.measure:
                    found = run(args.loram, folder, settings, "--max-steps", str(args.steps))
                    speed = 4 * 512 / found["tokens_per_second"]
                    row += f"   measured {found['peak_rss'] / 1e9:6.2f} GB {speed:7.2f} s a step"
                print(row, flush=True)


if __name__ == "__main__":
    main()
