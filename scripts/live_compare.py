#!/usr/bin/env python3
"""Runs the built program next to transformers and PEFT and prints how far they are apart.

    python3 scripts/live_compare.py --loram target/release/loram [--bert FOLDER] [--model FOLDER ...] [--only TEXT]

Needs torch, transformers, peft, safetensors, numpy. Compares evaluation losses of every fixture and of the small Llama
under assets/, adapters that either side trained, merged models, conversions and greedy continuations. `--bert` adds an
encoder with its own tokenizer, such as all-MiniLM-L6-v2, `--model` a language model. Exit status 1 when a difference exceeds its limit: 1e-4
relative in f32, and for merged weights in 16 bits what one differently rounded weight may do."""
import argparse, json, os, random, subprocess, sys, tempfile, time, traceback

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LIMIT, LIMIT_16BIT = 1e-4, 2e-3
REAL = "model "
ASSET = "assets/tiny-llama-en"
DENSE = ("gemma2", "gemma3", "gemma3-tower", "granite", "granite4", "phi3", "olmo2", "olmo3", "glm4", "exaone4", "minicpm",
         "ministral3", "mistral3", "gpt2", "mixtral", "mixtral-fused", "qwen3-moe", "gpt-oss", "lfm2")
# labels of texts; several of each text; of each word
CLASSIFIERS = {"bert": 3, "roberta": 2, "distilbert": 2, "bert-regression": 1, "modernbert": 3, "deberta": 3, "bert-mean": 3,
               "roberta-cls": 1, "llama-mean": 3}
SETS = {"distilbert-multi": 4}
TAGS = {"roberta-tags": 5, "llama-tags": 5, "modernbert-tags": 5, "deberta-tags": 5}
PLACES = ["the old mill", "a small cafe", "the harbour inn", "our garden", "the market", "Ada's kitchen"]
FOODS = ["fish soup", "pancakes", "a lentil stew", "plum cake", "noodles", "bread and cheese"]


class Comparison:
    """The program, a scratch folder, and the rows found so far."""

    def __init__(self, loram, scratch):
        self.loram, self.scratch, self.rows = os.path.abspath(loram), scratch, []

    def path(self, name):
        return os.path.join(self.scratch, name.replace("/", "_").replace(" ", "_"))

    def run(self, *args):
        """One call of the program: its JSON object."""
        args = [str(a) for a in args] + ["--json"]
        # the peers compute in f32 here
        env = {**os.environ, "LORAM_CPU_KERNEL": "f32"}
        done = subprocess.run([self.loram, *args], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600, env=env)
        if done.returncode != 0:
            raise RuntimeError(f"loram {' '.join(args)}\nexit {done.returncode}: {done.stderr.strip()[-2000:]}")
        return json.loads(done.stdout)

    def eval_loss(self, model, data, adapter=None):
        extra = ["--adapter", adapter] if adapter else []
        return self.run("eval", "--model", model, "--data", data, *extra)["loss"]

    def row(self, what, name, difference, limit=LIMIT, note=""):
        bad = not difference <= limit
        self.rows.append((what, name, difference, limit, bad))
        print(f"{what:34} {name:24} {difference:9.1e}  {'BEYOND ' + format(limit, '.0e') if bad else 'ok'}  {note}", flush=True)

    def failed(self, what, name):
        self.rows.append((what, name, float("inf"), LIMIT, True))
        print(f"{what:34} {name:24}    failed\n{traceback.format_exc()}", flush=True)


def apart(found, expected):
    return abs(found - expected) / abs(expected)


def records_of(name, folder, rng):
    """Texts for a model: words of its own vocabulary for the fixtures, English for real tokenizers."""
    if name in ("tiny-llama-en", "all-minilm") or name.startswith(REAL):
        lines = [(rng.choice(PLACES), rng.choice(FOODS), rng.randint(2, 40)) for _ in range(10)]
        if name == "all-minilm":
            return [{"text": f"they serve {f} at {p} for {n} pounds", "label": ["cheap", "dear"][n > 20]} for p, f, n in lines]
        text = [{"text": f"You can have {f} at {p} for {n} pounds."} for p, f, n in lines[:5]]
        return text + [{"prompt": f"place: {p}, price: {n}\n", "completion": f"At {p} you pay {n} pounds for {f}."}
                       for p, f, n in lines[5:]]

    def text():
        return " ".join(f"w{rng.randint(4, 90)}" for _ in range(rng.randint(3, 13)))

    if name in SETS:
        some = lambda i: [f"LABEL_{j}" for j in range(SETS[name]) if j == i % SETS[name] or rng.random() < 0.3]
        return [{"text": text(), "labels": some(i)} for i in range(8)]
    if name in TAGS:
        words = [text().split() for _ in range(8)]
        return [{"tokens": w, "ner_tags": [f"LABEL_{(i + j) % TAGS[name]}" for j in range(len(w))]} for i, w in enumerate(words)]
    if name not in CLASSIFIERS:
        return [{"text": text()} for _ in range(8)]
    # one of each label first: a program that collects labels must find them all
    label = lambda i: rng.uniform(-1, 1) if CLASSIFIERS[name] == 1 else f"LABEL_{i % CLASSIFIERS[name]}"
    pairs = not name.startswith("llama")
    return [{"text": text(), "text_pair": text(), "label": label(i)} if i % 2 and pairs else {"text": text(), "label": label(i)}
            for i in range(8)]


class Case:
    """A model folder with data for it, one file per format."""

    def __init__(self, c, name, folder, tokenizer=None):
        import reference as ref

        self.name, self.folder, self.tokenizer = name, folder, tokenizer or folder
        rng = random.Random(name)
        records = records_of(name, folder, rng)
        labels = lambda r: r.get("ner_tags", r.get("labels", [r.get("label")]))
        self.labels = sorted({label for r in records for label in labels(r) if isinstance(label, str)})
        labelled = [r for r in records if labels(r) != [None]]
        formats = {"text": [r for r in records if r not in labelled and "text" in r],
                   "prompt": [r for r in records if "prompt" in r], "label": labelled}
        self.sets = {}
        for kind, some in formats.items():
            if some:
                path = c.path(f"{name}-{kind}.jsonl")
                with open(path, "w") as f:
                    f.writelines(json.dumps(r) + "\n" for r in some)
                self.sets[kind] = (path, ref.examples(self.tokenizer, some, self.labels))
        self.data, self.examples = next(iter(self.sets.values()))
        self.decoder = "label" not in self.sets
        self.num_labels = None if self.decoder else max(1, len(self.labels))


def compare_eval(c, case, ref):
    model = ref.load(case.folder)
    for kind, (path, examples) in case.sets.items():
        c.row(f"eval, {kind}", case.name, apart(c.eval_loss(case.folder, path), ref.loss(model, examples)))


def train(c, case, init, *extra):
    out = c.path(f"run-{case.name}-{init}-{len(extra)}")
    c.run("train", "--model", case.folder, "--data", case.data, "--output", out, "--init", init, "--r", 4, "--max-steps", 10,
          "--learning-rate", 5e-3, "--per-device-train-batch-size", 4, *extra)
    return os.path.join(out, "adapter")


# adapters on an embedding that the head shares
EMBEDDINGS = ("embedding", "embedding-tied", "scaled-embedding", "conv1d-embeddings")


def compare_adapter(c, case, ref, adapter, name):
    """The program and PEFT evaluate the same adapter; then the program merges it and transformers loads the result."""
    base = ref.loss(ref.load(case.folder, None, case.num_labels), case.examples)
    model = ref.load(case.folder, adapter, case.num_labels)
    expected = ref.loss(model, case.examples)
    moved = f"loss {base:.4f} -> {expected:.4f}"
    c.row("adapter in PEFT", name, apart(c.eval_loss(case.folder, case.data, adapter), expected), note=moved)
    merged = c.path(f"merged-{name}")
    c.run("merge", "--model", case.folder, "--adapter", adapter, "--output", merged)
    if name in EMBEDDINGS:
        # PEFT's merge writes the sum into the tied head too, against its own outputs before
        theirs, dtype = model, ref.torch.float32
    else:
        theirs, dtype = ref.merged_like(model, case.folder)
    limit = LIMIT if dtype is ref.torch.float32 else LIMIT_16BIT
    ours = ref.logits(ref.load(merged), case.examples)
    c.row("merged in transformers", name, ref.worst(ours, ref.logits(theirs, case.examples)), limit, str(dtype))
    c.row("merged, eval", name, apart(c.eval_loss(merged, case.data), ref.loss(theirs, case.examples)), limit)


def compare_theirs(c, case, ref):
    """The program evaluates a random adapter and head that PEFT saved."""
    folder = c.path(f"peft-{case.name}")
    ref.save_random_adapter(case.folder, folder)
    expected = ref.loss(ref.load(case.folder, folder), case.examples)
    c.row("adapter of PEFT", case.name, apart(c.eval_loss(case.folder, case.data, folder), expected))


def compare_native(c, case, ref):
    native = train(c, case, "loram", "--set", "adapter_format=native")
    plain = c.path(f"converted-{case.name}")
    c.run("convert", native, "--output", plain, "--to", "plain")
    expected = ref.loss(ref.load(case.folder, plain, case.num_labels), case.examples)
    c.row("native, converted, in PEFT", case.name, apart(c.eval_loss(case.folder, case.data, plain), expected))
    c.row("native itself", case.name, apart(c.eval_loss(case.folder, case.data, native), expected))


def compare_greedy(c, case, ref, prompt, new, adapter=None):
    extra = ["--adapter", adapter] if adapter else []
    ours = c.run("generate", "--model", case.folder, "--prompt", prompt, "--max-new-tokens", new, "--temperature", 0, *extra)
    theirs = ref.greedy(ref.load(case.folder, adapter), case.tokenizer, prompt, new)
    ids = ours["token_ids"]
    eos = ref.load(case.folder).generation_config.eos_token_id
    if theirs and theirs[-1] == eos and len(ids) == len(theirs) - 1:
        theirs = theirs[:-1]  # whether the end itself is listed is a matter of taste
    same = next((i for i, (a, b) in enumerate(zip(ids, theirs)) if a != b), min(len(ids), len(theirs)))
    wrong = 1 - same / max(len(ids), len(theirs), 1)
    c.row("greedy tokens" + (" with adapter" if adapter else ""), case.name, wrong, 0.0, f"{same} of {len(theirs)} the same")


def quantised(folder):
    with open(os.path.join(folder, "config.json")) as f:
        return "quantization_config" in json.load(f)


def jobs(c, ref, bert, models):
    """Every comparison as (what, name, function)."""
    cases = {"tiny-llama-en": Case(c, "tiny-llama-en", ASSET)}
    # quantised models have references of their own (fixtures/make_gguf.py, fixtures/make_quantised.py)
    for name in sorted(n for n in os.listdir("fixtures/models") if not n.endswith(".gguf") and not quantised(f"fixtures/models/{n}")):
        cases[name] = Case(c, name, ref.with_tokenizer(f"fixtures/models/{name}", c.path(f"model-{name}")))
    for model in models:
        model, _, tokenizer = model.partition("=")
        name = REAL + os.path.basename(model)
        cases[name] = Case(c, name, model, tokenizer)
    for name, case in cases.items():
        yield "eval", name, lambda case=case: compare_eval(c, case, ref)
    if bert:
        cases["all-minilm"] = Case(c, "all-minilm", bert)
    trained = ["tiny-llama-en", "llama", "llama-sharded", "llama-f16", "qwen2", "qwen3", "mistral", "smollm3", *DENSE,
               *CLASSIFIERS, *SETS, *TAGS, "all-minilm"]
    real = [n for n in cases if n.startswith(REAL)]
    for name in [n for n in trained if n in cases] + [n for n in real if not n.endswith(".gguf")]:
        case = cases[name]
        for init in ("loram", "pissa"):
            def both(case=case, init=init, name=name):
                compare_adapter(c, case, ref, train(c, case, init), f"{name} {init}")
            yield "train", f"{name} {init}", both
    for name in sorted(os.listdir("fixtures/peft")):
        with open(f"fixtures/ref/peft-{name}.json") as f:
            case = cases[json.load(f)["model"]]
        yield "peft", name, lambda case=case, name=name: compare_adapter(c, case, ref, f"fixtures/peft/{name}", name)
    for name in (*CLASSIFIERS, *SETS, *TAGS):
        # the recipe of an adapter says that it is one with another pooling, which PEFT's have not
        if name not in ("bert-mean", "roberta-cls", "llama-mean"):
            yield "theirs", name, lambda case=cases[name]: compare_theirs(c, case, ref)
    for name in ("tiny-llama-en", "llama", "bert"):
        yield "native", name, lambda case=cases[name]: compare_native(c, case, ref)
    yield "greedy", "tiny-llama-en", lambda: compare_greedy(c, cases["tiny-llama-en"], ref, "Once upon a time", 200)
    for name in ("llama", "llama3", "llama-untied", "mistral", "qwen2", "qwen3", "smollm3", *DENSE):
        yield "greedy", name, lambda case=cases[name]: compare_greedy(c, case, ref, "w5 w17 w30 w8", 30)
    for name in real:
        yield "greedy", name, lambda case=cases[name]: compare_greedy(c, case, ref, "Once upon a time", 200)
    yield "greedy", "llama plain", lambda: compare_greedy(c, cases["llama"], ref, "w5 w17 w30", 30, "fixtures/peft/plain")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--loram", default="target/release/loram", help="the program")
    p.add_argument("--bert", help="folder of a BERT with tokenizer")
    p.add_argument("--model", action="append", default=[],
                   help="a language model: a folder, or FILE.gguf=FOLDER with the folder that has its tokenizer")
    p.add_argument("--only", default="", help="run only comparisons whose name contains this")
    args = p.parse_args()
    models = ["=".join(map(os.path.abspath, m.split("="))) for m in args.model]
    os.chdir(ROOT)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    import reference as ref

    start = time.time()
    with tempfile.TemporaryDirectory(prefix="loram-compare-") as scratch:
        c = Comparison(args.loram, scratch)
        for what, name, job in jobs(c, ref, args.bert and os.path.abspath(args.bert), models):
            if args.only in f"{what} {name}":
                try:
                    job()
                except Exception:
                    c.failed(what, name)
    summary = {}
    for what, name, difference, limit, bad in c.rows:
        kind = (what, limit)
        n, most, at, wrong = summary.get(kind, (0, -1.0, "", 0))
        most, at = max((most, at), (difference, name))
        summary[kind] = (n + 1, most, at, wrong + bad)
    print(f"\n{'comparison':34} {'n':>3} {'largest':>9} {'limit':>7}  where")
    for (what, limit), (n, most, at, wrong) in summary.items():
        print(f"{what:34} {n:3} {most:9.1e} {limit:7.0e}  {at}{f'   {wrong} BEYOND' if wrong else ''}")
    bad = sum(r[4] for r in c.rows)
    print(f"{len(c.rows)} comparisons, {bad} beyond their limit, {time.time() - start:.0f} s")
    sys.exit(1 if bad or not c.rows else 0)


if __name__ == "__main__":
    main()
