#!/usr/bin/env python3
"""The cost of initialising adapters: LoRAM for a whole checkpoint against reading it, a run against `loram init`, and single
layers against PEFT.

    python3 bench/init/init.py [--model qwen2.5-0.5b|llama-2-7b] [--folder DIR] [--rounds 3] [--part stream,train,layers]
                               [--shapes 4096x4096,11008x4096,4096x11008] [--schemes pissa,pissa-niter-16,olora,orthogonal]

stream: a checkpoint of random bf16 weights in the model's shape is written to DIR once (13.5 GB for llama-2-7b) and read until
it is in the page cache. Then each round runs `cat` of the shards, `loram init` with LoRAM at one and two threads, and with the
sketched gain, in turn. The adapters of one and two threads must be equal byte for byte. Anonymous memory (resident memory
without the mapped files) is looked at every 2 ms.

train: on the same checkpoint, each round runs `loram init` with LoRAM and then `loram train`, from the start of the process
until the run folder has its config.yaml: data, model and adapters are then ready, and the first step follows. The run is
stopped there. It is given a learning rate: a search for one would take several steps. The ratio of both is printed. Tokenizer and data are those of assets/tiny-llama-en and of `demo:restaurants`.

layers: for each shape, a matrix in f32; each round runs PEFT, then loram, each in a process of its own. Both make A, B and the
residual weight. Slow decompositions of large shapes run once (--slow-rounds).

Nothing is installed: the Python that runs this, or $LORAM_PYTHON, must have torch and peft for `layers`; the loram side is built
with cargo when it is missing ($LORAM_BUILT names another folder of programs). Figures are medians."""
import argparse, glob, hashlib, json, os, shutil, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = os.environ.get("LORAM_PYTHON", sys.executable)
BUILT = os.environ.get("LORAM_BUILT", os.path.join(ROOT, "target/release"))
LORAM = os.path.join(BUILT, "loram")
BENCH = os.path.join(BUILT, "examples/init_bench")
R = 16


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nexit {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def watched(*command):
    """Wall time and largest anonymous memory of a command."""
    clock, most = time.perf_counter(), 0
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status") as f:
                most = max(most, next((int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon:")), 0))
        except OSError:
            break
        time.sleep(0.002)
    out = process.communicate()[0]
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {process.returncode}")
    return time.perf_counter() - clock, most, out


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def model_folder(args, scratch):
    """The checkpoint of random weights, written when it is not there."""
    folder = args.folder or os.path.join(scratch, args.model)
    if not os.path.exists(os.path.join(folder, "config.json")):
        print(f"writing {folder}", flush=True)
        run(BENCH, "weights", folder, args.model)
    return folder


def stream(args, scratch):
    folder = model_folder(args, scratch)
    shards = sorted(glob.glob(os.path.join(folder, "*.safetensors")))
    size = sum(os.path.getsize(s) for s in shards)
    cat = ["sh", "-c", "cat \"$@\" > /dev/null", "cat", *shards]
    init = [LORAM, "init", folder, "--init", "loram", "--r", R, "--json", "--quiet"]
    kinds = {
        "cat": lambda out: cat,
        "loram, 1 thread": lambda out: [*init, "-o", out, "--threads", 1],
        "loram, 2 threads": lambda out: [*init, "-o", out, "--threads", 2],
        "loram, gain sketch, 2 threads": lambda out: [*init, "-o", out, "--threads", 2, "--gain", "sketch"],
    }
    for _ in range(2):
        run(*cat)
    seconds, memory, report = {k: [] for k in kinds}, {k: 0 for k in kinds}, {}
    for _ in range(args.rounds):
        digests = {}
        for kind, command in kinds.items():
            out = os.path.join(scratch, "adapter")
            took, most, text = watched(*command(out))
            seconds[kind].append(took)
            memory[kind] = max(memory[kind], most)
            if kind != "cat":
                report[kind] = json.loads(text)
                digests[kind] = digest(os.path.join(out, "adapter_model.safetensors"))
                shutil.rmtree(out)
        if digests["loram, 1 thread"] != digests["loram, 2 threads"]:
            sys.exit("one and two threads give different bits")
    read = next(iter(report.values()))["bytes_read"]
    layers = len(next(iter(report.values()))["layers"])
    # cat reads the embeddings too: its time for the bytes of the linear layers
    reading = statistics.median(seconds["cat"]) * read / size
    print(f"\n{args.model}: {layers} linear layers, {read / 1e9:.2f} GB of {size / 1e9:.2f} GB; one and two threads equal bit for bit")
    print(f"{'':32} {'seconds':>8} {'GB/s':>6} {'x cat':>6} {'anonymous memory':>17} {'pass only':>10}")
    figures = {"bytes": read, "cat_same_bytes": reading}
    for kind in kinds:
        t = statistics.median(seconds[kind])
        ratio = 1.0 if kind == "cat" else t / reading
        own = report[kind]["seconds"] if kind in report else t
        figures[kind] = {"seconds": t, "all": seconds[kind], "ratio": ratio, "memory": memory[kind]}
        print(f"{kind:32} {t:8.3f} {(size if kind == 'cat' else read) / t / 1e9:6.2f} {ratio:6.2f} {memory[kind] / 1e6:14.0f} MB {own:9.3f}s")
    return figures


def start_up(command, ready):
    """Wall time of a command until the file `ready` is there; the command is then ended."""
    clock = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not os.path.exists(ready):
        if process.poll() is not None:
            sys.exit(f"{' '.join(map(str, command))}\nexit {process.returncode} before {ready}\n{process.stderr.read()[-3000:]}")
        time.sleep(0.001)
    took = time.perf_counter() - clock
    process.kill()
    process.communicate()
    return took


def train(args, scratch):
    source = model_folder(args, scratch)
    # the weights, with a tokenizer beside them
    folder = os.path.join(scratch, "with-tokenizer")
    os.mkdir(folder)
    tokenizer = os.path.join(ROOT, "assets/tiny-llama-en")
    for at, names in [(source, os.listdir(source)), (tokenizer, ["tokenizer.json", "tokenizer_config.json"])]:
        for name in names:
            if not os.path.exists(os.path.join(folder, name)):
                os.symlink(os.path.join(os.path.abspath(at), name), os.path.join(folder, name))
    for shard in glob.glob(os.path.join(folder, "*.safetensors")):
        run("sh", "-c", 'cat "$1" > /dev/null', "cat", shard)
    common = ["--init", "loram", "--r", R, "--threads", args.threads, "--quiet"]
    adapter, out = os.path.join(scratch, "adapter"), os.path.join(scratch, "run")
    kinds = {
        "loram init": lambda: watched(LORAM, "init", folder, *common, "-o", adapter)[0],
        "loram train, start-up": lambda: start_up(
            [LORAM, "train", "--model", folder, "--data", "demo:restaurants?n=8", *common, "--max-steps", 1,
             "--learning-rate", "1e-4", "--set", "memory_check=off", "--output", out],
            os.path.join(out, "config.yaml"),
        ),
    }
    seconds = {k: [] for k in kinds}
    for _ in range(args.rounds):
        for kind, once in kinds.items():
            seconds[kind].append(once())
            for made in (adapter, out):
                shutil.rmtree(made, ignore_errors=True)
    middle = {k: statistics.median(v) for k, v in seconds.items()}
    ratio = middle["loram train, start-up"] / middle["loram init"]
    print(f"\n{args.model}, {args.threads} threads")
    for kind in kinds:
        print(f"{kind:32} {middle[kind]:8.3f}")
    print(f"{'ratio':32} {ratio:8.2f}")
    return {"seconds": middle, "all": seconds, "ratio": ratio}


def layers(args, scratch):
    figures = {}
    print(f"\n{'shape':>12} {'scheme':15} {'PEFT':>9} {'loram':>9} {'ratio':>6} {'PEFT MB':>9} {'loram MB':>9} {'ratio':>6}  residual norm, loram/PEFT − 1")
    for shape in args.shapes.split(","):
        n, m = map(int, shape.split("x"))
        weights = os.path.join(scratch, f"{shape}.safetensors")
        run(PYTHON, os.path.join(HERE, "peft_side.py"), "--make", weights, n, m)
        for scheme in args.schemes.split(","):
            job = os.path.join(scratch, "job.json")
            with open(job, "w") as f:
                json.dump({"weights": weights, "scheme": scheme, "r": R, "threads": args.threads}, f)
            sides = {"peft": [PYTHON, os.path.join(HERE, "peft_side.py"), job], "loram": [BENCH, "start", job]}
            runs = {"peft": [], "loram": []}
            for _ in range(args.slow_rounds if scheme == "pissa" else args.rounds):
                for side, command in sides.items():
                    runs[side].append(json.loads(run(*command))["layers"][0])
            middle = lambda side, key: statistics.median(r[key] for r in runs[side])
            time_of = {s: middle(s, "seconds") for s in sides}
            memory = {s: middle(s, "memory") / 1e6 for s in sides}
            apart = middle("loram", "residual_norm") / middle("peft", "residual_norm") - 1
            figures[f"{shape} {scheme}"] = {"seconds": time_of, "memory": memory, "residual_apart": apart}
            print(f"{shape:>12} {scheme:15} {time_of['peft']:8.3f}s {time_of['loram']:8.3f}s {time_of['loram'] / time_of['peft']:6.2f} "
                  f"{memory['peft']:9.0f} {memory['loram']:9.0f} {memory['loram'] / memory['peft']:6.2f}  {apart:+.1e}", flush=True)
        os.remove(weights)
    return figures


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="qwen2.5-0.5b", choices=["qwen2.5-0.5b", "llama-2-7b"])
    p.add_argument("--folder", help="where the checkpoint is, or is to be written; kept. A temporary folder by default")
    p.add_argument("--part", default="stream,layers")
    p.add_argument("--shapes", default="4096x4096,11008x4096,4096x11008")
    p.add_argument("--schemes", default="pissa,pissa-niter-16,olora,orthogonal")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--slow-rounds", type=int, default=1, help="rounds of exact decompositions")
    p.add_argument("--threads", type=int, default=2, help="threads in `train`, and of both sides in `layers`")
    p.add_argument("--json", help="write all figures here")
    args = p.parse_args()
    if not (os.path.exists(LORAM) and os.path.exists(BENCH)):
        subprocess.run(["cargo", "build", "--release", "--workspace", "--bin", "loram", "--example", "init_bench"], cwd=ROOT, check=True)
    figures = {}
    with tempfile.TemporaryDirectory(prefix="loram-init-") as scratch:
        if "stream" in args.part:
            figures["stream"] = stream(args, scratch)
        if "train" in args.part:
            figures["train"] = train(args, scratch)
        if "layers" in args.part:
            figures["layers"] = layers(args, scratch)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(figures, f, indent=1)


if __name__ == "__main__":
    main()
