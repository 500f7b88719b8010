#!/usr/bin/env python3
"""Makes the first inputs of every fuzz target, and dictionaries, from the repository's own files: fuzz/corpus, fuzz/dictionaries."""

import gzip
import hashlib
import json
import re
import struct
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BORDER = "\n=====\n"
seeds: dict[str, list[bytes]] = {}


def add(target: str, *parts: str | bytes) -> None:
    joined = [p.encode() if isinstance(p, str) else p for p in parts]
    seeds.setdefault(target, []).append(BORDER.encode().join(joined))


def read(pattern: str) -> list[str]:
    return [p.read_text() for p in sorted(ROOT.glob(pattern))]


def header(tensors: dict, data: int, metadata: dict | None = None) -> bytes:
    text = json.dumps({**({"__metadata__": metadata} if metadata else {}), **tensors}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# headers and indices
add("header", header({"a": entry("F32", [2, 3], 0, 24), "b": entry("BF16", [4], 24, 32)}, 32, {"format": "pt"}))
add("header", header({"x": entry("I64", [], 0, 8), "e": entry("U8", [0], 8, 8), "q": entry("F4", [4], 8, 10)}, 10))
add("header", header({}, 0))
for path in sorted(ROOT.glob("fixtures/models/*/*.safetensors"))[:40]:
    whole = path.read_bytes()
    if len(whole) < 20_000:
        add("header", whole)
for text in read("fixtures/models/*/*.index.json"):
    add("index", text)
add("index", '{"metadata":{"total_size":8},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}')

# GGUF files of a model of one block, with both kinds of tokenizers
def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf(entries: list[tuple[str, int, bytes]], tensors: list[tuple[str, list[int], int, int]], data: int) -> bytes:
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries))
    for key, kind, value in entries:
        out += gguf_text(key) + struct.pack("<I", kind) + value
    for name, dims, kind, offset in tensors:
        out += gguf_text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", kind, offset)
    out += bytes(-len(out) % 32)
    return out + bytes(i % 61 for i in range(data))


def gguf_list(kind: int, values: list[bytes]) -> bytes:
    return struct.pack("<IQ", kind, len(values)) + b"".join(values)


for kind in ("gpt2", "llama"):
    tokens = ["<unk>", "<s>", "</s>", "a", "b", "ab", "▁", "▁a", "<0x0A>", "c"]
    entries = [("general.architecture", 8, gguf_text("llama")), ("general.alignment", 4, struct.pack("<I", 32)),
               ("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)), ("llama.rope.freq_base", 6, struct.pack("<f", 1e4)),
               ("tokenizer.ggml.model", 8, gguf_text(kind)), ("tokenizer.ggml.pre", 8, gguf_text("llama-bpe")),
               ("tokenizer.ggml.tokens", 9, gguf_list(8, [gguf_text(t) for t in tokens])),
               ("tokenizer.ggml.scores", 9, gguf_list(6, [struct.pack("<f", -i) for i in range(10)])),
               ("tokenizer.ggml.token_type", 9, gguf_list(5, [struct.pack("<i", t) for t in (2, 3, 3, 1, 1, 1, 1, 1, 6, 4)])),
               ("tokenizer.ggml.merges", 9, gguf_list(8, [gguf_text("a b")])), ("tokenizer.ggml.add_bos_token", 7, b"\x01"),
               ("tokenizer.chat_template", 8, gguf_text("{{ messages[0].content }}"))]
    entries += [(f"llama.{name}", 4, struct.pack("<I", n)) for name, n in (("block_count", 1), ("context_length", 64),
                ("embedding_length", 32), ("feed_forward_length", 32), ("attention.head_count", 4), ("attention.head_count_kv", 2))]
    entries += [(f"tokenizer.ggml.{name}_token_id", 4, struct.pack("<I", i)) for i, name in enumerate(("unknown", "bos", "eos"))]
    add("gguf", gguf(entries, [("token_embd.weight", [32, 10], 0, 0), ("blk.0.attn_q.weight", [32, 32], 2, 1280),
                               ("blk.0.ffn_up.weight", [32, 32], 8, 1856), ("blk.0.attn_norm.weight", [32], 30, 2944)], 3008))
add("gguf", gguf([], [], 0))
for kind, size in ((10, 84), (11, 110), (12, 144), (13, 176), (14, 210), (3, 160), (6, 176), (7, 192), (1, 512), (28, 2048)):
    add("gguf", gguf([("general.architecture", 8, gguf_text("qwen2"))], [("a", [256], kind, 0)], size))

# configurations of models, adapters and generation
for text in read("fixtures/models/*/config.json") + read("assets/*/config.json") + read("assets/*/generation_config.json"):
    add("model_config", text)
for text in read("fixtures/peft/*/adapter_config.json"):
    add("adapter", text)

# tokenizers: the repository's, with small vocabularies, and the other kinds of models and parts
small = json.loads((ROOT / "assets/tiny-llama-en/tokenizer.json").read_text())
model = small["model"]
if "merges" in model:
    model["merges"] = [m for m in model["merges"] if len("".join(m)) < 4][:60]
    pieces = {p for m in model["merges"] for p in (m if isinstance(m, list) else m.split(" "))}
    pieces |= {"".join(m) if isinstance(m, list) else m.replace(" ", "") for m in model["merges"]}
    keep = [t for t, i in model["vocab"].items() if t in pieces or len(t) == 1 or i < 8]
    model["vocab"] = {t: i for i, t in enumerate(keep)}
settings = (ROOT / "assets/tiny-llama-en/tokenizer_config.json").read_text()
add("tokenizer", json.dumps(small), settings)
base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "the": 1, "fox": 2}, "unk_token": "[UNK]"}}
piece = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 20,
         "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "the": 3, "##x": 4, "fo": 5}}
unigram = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁the", -1.0], ["▁", -2.0], ["f", -3.0]],
           "byte_fallback": False}
bpe = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
       "fuse_unk": False, "byte_fallback": True, "vocab": {"t": 0, "h": 1, "th": 2, "<0x0A>": 3}, "merges": ["t h"]}
special = {"id": 1, "content": "[CLS]", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
           "special": True}
template = {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}}}
variants = [
    {},
    {"model": piece, "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                                    "strip_accents": None, "lowercase": True},
     "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": template, "added_tokens": [special],
     "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}},
    {"model": unigram, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
     "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
     "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"},
                                                                           "content": " "}]}},
    {"model": bpe, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|\\s+"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        {"type": "Digits", "individual_digits": True}]},
     "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"},
                                                  {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
     "post_processor": {"type": "RobertaProcessing", "sep": ["t", 0], "cls": ["h", 1], "trim_offsets": True,
                        "add_prefix_space": True}},
    {"truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 1},
     "padding": {"strategy": {"Fixed": 8}, "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0,
                 "pad_token": "[PAD]"}, "normalizer": {"type": "Prepend", "prepend": "▁"}},
]
for v in variants:
    add("tokenizer", json.dumps({**base, **v}), '{"bos_token": "[CLS]", "model_max_length": 16}', '{"eos_token": {"content": "[SEP]"}}')

# chat templates with messages
chat = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"},
                   {"role": "assistant", "content": "In the old town."}])
templates = [
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}{{ eos_token }}"
    "{% endgeneration %}{% else %}[{{ m.role | upper }}] {{ m.content }}{% endif %}{% endfor %}",
    "{% set ns = namespace(n=0) %}{%- for m in messages -%}{% set ns.n = ns.n + 1 %}{{ loop.index0 ~ m['content'][:9] }}"
    "{% if loop.last %}{{ messages | tojson(indent=2) }}{% endif %}{%- endfor %}{{ tools | tojson if tools is defined }}",
    "{% macro turn(m) %}### {{ m.role.capitalize() }}:\n{{ m.content.split('</think>')[-1].lstrip('\\n') }}\n{% endmacro %}"
    "{% if messages[0]['role'] != 'user' and messages | length % 2 == 0 %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% for m in messages %}{{ turn(m) }}{% endfor %}{{ strftime_now('%Y-%m-%d') }}",
]
for t in templates:
    add("chat_template", t, chat)
    add("chat_template", t, chat, '{"tools": [{"type": "function", "function": {"name": "f"}}]}')

# data: a byte for the kind of file, then the file
lines = [{"text": "A text."}, {"prompt": "name : Aromi =>", "completion": " Aromi is a place."},
         {"messages": json.loads(chat)}, {"instruction": "Add.", "input": "1 2", "output": "3"},
         {"text": "good", "label": 1}, {"text": "a", "text_pair": "b", "label": "same"}, {"text": "a", "label": 0.5},
         {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}],
          "tools": "[]", "chat_template_kwargs": {"x": 1}},
         {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]
for line in lines:
    text = json.dumps(line)
    for kind, body in ((0, f"{text}\n{text}\n".encode()), (1, f"[{text}, {text}]".encode()), (3, gzip.compress(text.encode(), mtime=0))):
        for way in range(3):
            add("data", bytes([kind + 8 * way]) + body)
add("data", b"\x02One document.<|endoftext|>\nAnother one.")
add("data", b'\x04prompt,completion\n"a, ""b""",c\n1,2\n')
add("data", b"\x05text\tlabel\nname\t1\n\"open\t2\n")
for name in ("chats.parquet", "classes.parquet", "frame.arrow", "stream.arrow"):
    add("data", bytes([6 if name.endswith("parquet") else 7]) + (ROOT / "fixtures/data" / name).read_bytes())
add("data", b"\x00" + b'\xef\xbb\xbf{"text": "after a byte order mark"}\r\n')

# configurations, grids, recipes
for text in read("examples/*.yaml"):
    add("grid" if "schemes:" in text else "configuration", text)
    add("configuration", text, "r=8\ntarget_modules=[q_proj, v_proj]\nlearning_rate=2e-4")
add("configuration", "model: m\ndata: [demo:restaurants?n=10]\nscheme: loram\ngain: track:pissa\nrank_pattern: {q_proj: 4}\nseed: 1")
add("grid", "models: {a: m}\ntasks: {t: {train_data: demo:restaurants, max_steps: 8}}\nschemes: {lora: {scheme: lora}, pissa: {scheme: pissa}}\n"
            "learning_rate: [1e-4, 1e-3]\nr: [4, 8]\nseed: [0, 1]\ngrid: {warmup_steps: [0, 2]}\nhalving: {factor: 2, rounds: 2}\n"
            "split: {holdout: 0.2, train_samples: 10}\nkeep: figures\njobs: 2")
recipe = {"format": 1, "loram_version": "0.1.0", "form": "native", "scheme": "loram",
          "options": {"basis": "dst", "gain": "log", "gain_statistic": "second-moment"}, "seed": 42,
          "layers": {"q": {"scheme": "loram", "path": "q", "n": 8, "m": 6, "r": 2, "scaling": 1.0, "seed": 42, "beta": 1.5, "gain": 0.3, "basis": "dst"},
                     "k": {"scheme": "gaussian", "path": "k", "n": 8, "m": 6, "r": 2, "scaling": 1.0, "seed": 42},
                     "v": {"scheme": "orthogonal", "path": "v", "n": 8, "m": 8, "r": 4, "scaling": 1.0, "seed": 1}},
          "base": {"algorithm": "sha256-blocks", "layers": {"q": "0011223344556677"}}}
add("recipe", json.dumps(recipe))

# run folders: two runs of a comparison
figures = {"loss": 1.5, "perplexity": 4.5, "token_accuracy": 0.25, "tokens": 9, "examples": 3}
kinds = [{"kind": "language", "nats": [2.0, 9.5, 1.0], "tokens": [2, 3, 1], "correct": [1, 3, 0]},
         {"kind": "classes", "loss": [0.5, 1.0], "predicted": [1, 0], "actual": [1, 1], "labels": 2},
         {"kind": "values", "predicted": [1.0, 2.0], "actual": [1.0, 5.0]}]
environment = json.dumps({"loram": "0.1.0", "cpu": "x", "threads": 2, "os": "linux", "arch": "x86_64",
                          "model": {"name": "m", "family": "llama"}, "data": [{"path": "a.jsonl", "sha256": "00"}]})
metrics = '{"step":0,"eval_loss":2.0}\n{"step":10,"loss":1.5,"magnitude":{"q_proj":{"relative":0.01}}}\n{"step":20,"loss":null,"eval_loss":1.0}\n'
for examples in kinds:
    score = "loss" if examples["kind"] == "language" else "accuracy" if examples["kind"] == "classes" else "mse"
    run = {"point": {"model": "m", "task": "t", "arm": "lora", "r": 4, "learning_rate": 0.001, "seed": 1},
           "score": {"name": score, "more_is_better": score == "accuracy"}, "outcome": "finished", "selection": figures,
           "test": {**figures, score: 1.0}, "data": ["a", "b"],
           "cost": {"start_seconds": 0.1, "train_seconds": 2.0, "peak_rss": 1000, "trainable_parameters": 10,
                    "result_bytes": 5, "checkpoint_bytes": 5, "threads": 1}, "examples": examples}
    other = {**run, "point": {**run["point"], "arm": "pissa"}, "outcome": "finished"}
    add("report", json.dumps(run), json.dumps(other), metrics, '{"status": "finished"}', environment)
    add("report", json.dumps({**run, "outcome": "diverged", "error": "NaN", "test": None}), json.dumps(other), metrics)

for target, inputs in seeds.items():
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
    words = {w for data in inputs for w in re.findall(rb'"[\w.\-|<>/ ]{1,30}"|\b[a-z_]{3,24}\b|\{%-?|-?%\}|\{\{|\}\}', data)}
    words |= {b"18446744073709551615", b"4294967295", b"-1", b"1e400", b"NaN", b"null", b"[]", b"{}", b"\xff", b"../"}
    quoted = ["".join(f"\\x{b:02x}" if b in b'"\\' or not 32 <= b < 127 else chr(b) for b in w) for w in sorted(words)[:400]]
    (HERE / "dictionaries").mkdir(exist_ok=True)
    (HERE / "dictionaries" / target).write_text("".join(f'"{q}"\n' for q in quoted))
print({t: len(i) for t, i in seeds.items()})
