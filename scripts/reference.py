"""What transformers and PEFT say: losses, logits and greedy tokens of model folders, one text at a time and unpadded.

Used by live_compare.py. Everything is computed in f32, whatever the checkpoint's dtype."""
import gc, json, os, shutil
import torch
import transformers as tf
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors

torch.set_num_threads(2)
tf.logging.set_verbosity_error()
tf.utils.logging.disable_progress_bar()

# family -> words of the special tokens by id; every other id i is the word `w<i>`
SPECIALS = {"bert": ["<pad>", "<cls>", "<sep>"], "distilbert": ["<pad>", "<cls>", "<sep>"],
            "roberta": ["<cls>", "<pad>", "<sep>"], "modernbert": ["<pad>", "<cls>", "<sep>"],
            "deberta-v2": ["<pad>", "<cls>", "<sep>"]}


def config_of(folder):
    with open(os.path.join(folder, "config.json")) as f:
        return json.load(f)


def family(folder):
    return config_of(folder)["model_type"]


def is_decoder(folder):
    return folder.endswith(".gguf") or family(folder) not in SPECIALS


def tags_tokens(folder):
    return not folder.endswith(".gguf") and config_of(folder)["architectures"][0].endswith("ForTokenClassification")


def with_tokenizer(folder, out):
    """A copy of a fixture with a tokenizer of one token per word, so that the program can read texts for it."""
    shutil.copytree(folder, out)
    config = config_of(folder)
    vocab_size = config.get("text_config", config)["vocab_size"]
    decoder = is_decoder(folder)
    words = ["<pad>", "<s>", "</s>"] if decoder else SPECIALS[family(folder)]
    vocab = {w: i for i, w in enumerate(words)}
    vocab.update({f"w{i}": i for i in range(len(words), vocab_size - 1)})
    vocab["<unk>"] = vocab_size - 1
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    settings = {"pad_token": "<pad>", "unk_token": "<unk>", "tokenizer_class": "PreTrainedTokenizerFast"}
    if decoder:
        settings.update(bos_token="<s>", eos_token="</s>")
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocab["<s>"])])
    else:
        settings.update(cls_token="<cls>", sep_token="<sep>")
        second = "$B:0 <sep>:0" if family(folder) != "bert" else "$B:1 <sep>:1"  # the others know one segment
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<cls> $A <sep>", pair=f"<cls> $A <sep> {second}",
            special_tokens=[(w, vocab[w]) for w in ("<cls>", "<sep>")])
    tokenizer.save(os.path.join(out, "tokenizer.json"))
    with open(os.path.join(out, "tokenizer_config.json"), "w") as f:
        json.dump(settings, f)
    return out


def tokenizer_of(folder):
    """The tokenizer of a folder; for those of `with_tokenizer` as it stands, since transformers 5 builds its own for some families."""
    with open(os.path.join(folder, "tokenizer_config.json")) as f:
        plain = json.load(f).get("tokenizer_class") == "PreTrainedTokenizerFast"
    return (tf.PreTrainedTokenizerFast if plain else tf.AutoTokenizer).from_pretrained(folder)


def as_granite(folder):
    """MiniCPM's class comes with the published models; Granite's is the same with other names of the factors."""
    c = config_of(folder)
    depth, width = c["num_hidden_layers"], c["hidden_size"]
    factors = dict(embedding_multiplier=c["scale_emb"], residual_multiplier=c["scale_depth"] / depth**0.5,
                   attention_multiplier=(width // c["num_attention_heads"]) ** -0.5, logits_scaling=width / c["dim_model_base"])
    return tf.GraniteConfig(**{k: v for k, v in c.items() if k != "model_type"}, **factors)


def load(folder, adapter=None, num_labels=None):
    kind = tf.AutoModelForCausalLM if is_decoder(folder) else tf.AutoModelForSequenceClassification
    if tags_tokens(folder):
        kind = tf.AutoModelForTokenClassification
    extra = {"num_labels": num_labels} if num_labels else {}
    if not folder.endswith(".gguf") and family(folder) == "minicpm":
        extra["config"] = as_granite(folder)
    if not folder.endswith(".gguf") and "vision_config" in config_of(folder):
        kind = tf.AutoModelForImageTextToText
    if folder.endswith(".gguf"):
        folder, extra["gguf_file"] = os.path.split(folder)
    extra.update(attn_implementation="eager", experts_implementation="eager")
    model = kind.from_pretrained(folder, dtype=torch.float32, **extra)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


def save_random_adapter(folder, out):
    torch.manual_seed(5)
    task = TaskType.TOKEN_CLS if tags_tokens(folder) else TaskType.SEQ_CLS
    model = load(folder)
    heads = ("classifier", "pre_classifier", "score")  # PEFT's all-linear takes those of token classification too
    linear = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and not n.startswith(heads)]
    settings = LoraConfig(r=3, lora_alpha=5, target_modules=linear, task_type=task, init_lora_weights=False)
    model = get_peft_model(model, settings)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "modules_to_save" in name:
                p.add_(torch.randn(p.shape) * 0.1)
    model.save_pretrained(out)


def examples(folder, records, labels=()):
    """Tokens and labels of records as trainers make them: special tokens, EOS at the end, prompts do not count."""
    tokenizer = tokenizer_of(folder)
    out = []
    for r in records:
        if "ner_tags" in r:
            e = tokenizer(r["tokens"], is_split_into_words=True)
            of_word = e.word_ids()
            first = lambda i: of_word[i] is not None and (i == 0 or of_word[i - 1] != of_word[i])
            tags = [labels.index(r["ner_tags"][w]) if first(i) else -100 for i, w in enumerate(of_word)]
            out.append((e["input_ids"], None, ("tags", tags)))
            continue
        if "labels" in r:
            out.append((tokenizer(r["text"])["input_ids"], None, ("set", [float(label in r["labels"]) for label in labels])))
            continue
        if "label" in r:
            e = tokenizer(r["text"], r.get("text_pair"), return_token_type_ids=True)
            target = labels.index(r["label"]) if labels else float(r["label"])
            out.append((e["input_ids"], e["token_type_ids"] if family(folder) == "bert" else None, target))
            continue
        prompt = r.get("prompt", "")
        e = tokenizer(prompt + r.get("completion", r.get("text", "")), return_offsets_mapping=True)
        ids, counted = list(e["input_ids"]), [o[1] > len(prompt) or not prompt for o in e["offset_mapping"]]
        if ids[-1] != tokenizer.eos_token_id:
            ids, counted = ids + [tokenizer.eos_token_id], counted + [True]
        out.append((ids, None, [i if c else -100 for i, c in zip(ids, counted)]))
    # ascending: transformers keeps the longest length it has seen in dynamic rotary scaling
    return sorted(out, key=lambda e: len(e[0]))


def logits(model, batch):
    out = []
    # a classifier of texts whose pooling no class has: the outputs for tokens, pooled
    pooling = getattr(model.config, "classifier_pooling", None) if model.config.model_type != "modernbert" else None
    with torch.no_grad():
        for ids, types, _ in batch:
            extra = {} if types is None else {"token_type_ids": torch.tensor([types])}
            got = model(input_ids=torch.tensor([ids]), **extra).logits[0]
            out.append({None: got, "mean": got.mean(0), "cls": got[0], "last": got[-1]}[pooling] if pooling else got)
    return out


def loss(model, batch):
    """Mean over counted tokens, or over texts for heads: cross-entropy, or squared error where the target is a number."""
    total, counted = 0.0, 0
    for (_, _, target), got in zip(batch, logits(model, batch)):
        if isinstance(target, tuple) and target[0] == "set":
            y = torch.tensor(target[1])
            total += torch.nn.functional.binary_cross_entropy_with_logits(got.double(), y.double()).item()
            counted += 1
        elif isinstance(target, tuple):
            y = torch.tensor(target[1])
            total += torch.nn.functional.cross_entropy(got.double(), y, ignore_index=-100, reduction="sum").item()
            counted += int((y != -100).sum())
        elif isinstance(target, float):
            total, counted = total + (got[0].item() - target) ** 2, counted + 1
        elif isinstance(target, int):
            total, counted = total + torch.nn.functional.cross_entropy(got, torch.tensor(target)).item(), counted + 1
        else:
            y = torch.tensor(target[1:])
            total += torch.nn.functional.cross_entropy(got[:-1].double(), y, ignore_index=-100, reduction="sum").item()
            counted += int((y != -100).sum())
    return total / counted


def greedy(model, folder, prompt, new):
    tokenizer = tokenizer_of(folder)
    ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        got = model.generate(**ids, do_sample=False, max_new_tokens=new)
    return got[0, ids["input_ids"].shape[1] :].tolist()


def merged_like(model, folder):
    """PEFT's merged weights in f32, rounded once to the dtype that the checkpoint has."""
    config = config_of(folder)
    dtype = getattr(torch, config.get("dtype") or config.get("torch_dtype") or "float32")
    merged = model.merge_and_unload()
    with torch.no_grad():
        for p in merged.parameters():
            p.copy_(p.to(dtype).float())
    gc.collect()
    return merged, dtype


def worst(found, expected):
    """Largest difference relative to the largest value."""
    scale = max(x.abs().max().item() for x in expected)
    return max((a - b).abs().max().item() for a, b in zip(found, expected)) / scale
