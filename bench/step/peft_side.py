"""The PyTorch side of bench/step: the same steps with torch, transformers and peft, and with the kernels of Liger or Unsloth
where the job names them as its `peer`. The last line that it prints is a JSON object.

    peft_side.py JOB.json | --gemm THREADS | --gemm-cuda"""
import json, os, resource, sys, time

with_unsloth = False
if not sys.argv[1].startswith("--"):
    with open(sys.argv[1]) as f:
        job = json.load(f)
    with_unsloth = job.get("peer") == "unsloth"
if with_unsloth:  # before everything that it patches
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    import unsloth
import torch

if sys.argv[1] == "--gemm-cuda":
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(13):
        torch.cuda.synchronize()
        t = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        times.append(time.perf_counter() - t)
    print(json.dumps({"gemm_gflops": 2 * n**3 / sorted(times[3:])[5] / 1e9}))
    sys.exit()
if sys.argv[1] == "--gemm":
    torch.set_num_threads(int(sys.argv[2]))
    n = 1536
    a, b, best = torch.full((n, n), 0.5), torch.full((n, n), 0.25), 1e9
    for _ in range(8):
        t = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - t)
    print(json.dumps({"gemm_gflops": 2 * n**3 / best / 1e9}))
    sys.exit()

import transformers as tf
from peft import PeftModel

tf.logging.set_verbosity_error()
tf.utils.logging.disable_progress_bar()
torch.set_num_threads(job["threads"])
labels = job["num_labels"]
kind = tf.AutoModelForSequenceClassification if labels else tf.AutoModelForCausalLM
extra = {"num_labels": labels} if labels else {}
cuda = job.get("device") == "cuda"
place = "cuda" if cuda else "cpu"
bf16 = cuda or job.get("compute_dtype") == "bfloat16"
dtype = torch.bfloat16 if bf16 else torch.float32
if job.get("peer") == "liger":
    from liger_kernel.transformers import apply_liger_kernel_to_llama

    # rotary embedding, norms, gated products, and a head that is one with its cross entropy
    apply_liger_kernel_to_llama()
# PEFT keeps the adapters in f32 beside a bf16 base; autocast runs them in bf16, as the Trainer's bf16=True does
auto = torch.autocast(place, dtype=torch.bfloat16, enabled=bf16)
if with_unsloth:
    with open(os.path.join(job["adapter"], "adapter_config.json")) as f:
        adapter = json.load(f)
    base, _ = unsloth.FastLanguageModel.from_pretrained(
        job["model"], max_seq_length=max(len(d) for b in job["batches"] for d in b), dtype=dtype, load_in_4bit=False)
    model = unsloth.FastLanguageModel.get_peft_model(
        base, r=adapter["r"], lora_alpha=adapter["lora_alpha"], target_modules=sorted(adapter["target_modules"]), lora_dropout=0,
        bias="none", use_gradient_checkpointing=job.get("gradient_checkpointing", False))
    import peft, safetensors.torch

    found = peft.set_peft_model_state_dict(
        model, safetensors.torch.load_file(os.path.join(job["adapter"], "adapter_model.safetensors")))
    assert not found.unexpected_keys, found.unexpected_keys
    unsloth.FastLanguageModel.for_training(model, use_gradient_checkpointing=job.get("gradient_checkpointing", False))
else:
    if job.get("load_in_4bit"):
        extra.update(device_map="cpu", quantization_config=tf.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype))
    folder, file = job["model"], None
    if folder.endswith(".gguf"):  # blocks stay packed
        folder, file = os.path.split(folder)
        extra.update(gguf_file=file, quantization_config=tf.GgufConfig(dequantize=False))
    base = kind.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa", **extra)
    base = base if job.get("load_in_4bit") or file else base.to(place)
    model = PeftModel.from_pretrained(base, job["adapter"], is_trainable=True)
model.train()
for m in model.modules():
    if isinstance(m, torch.nn.Dropout):
        m.p = 0.0  # the comparison of losses needs none on either side
if job.get("gradient_checkpointing") and not with_unsloth:
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
params = [p for p in model.parameters() if p.requires_grad]
optim = torch.optim.AdamW(params, lr=job["learning_rate"], weight_decay=0.0)
seconds, losses, norms = [], [], []
for _ in range(job["repeat"]):
    for i, documents in enumerate(job["batches"]):
        t = time.perf_counter()
        longest = max(map(len, documents))
        ids = torch.tensor([d + [0] * (longest - len(d)) for d in documents])
        mask = torch.tensor([[1] * len(d) + [0] * (longest - len(d)) for d in documents])
        padded = not bool(mask.all())
        targets = torch.tensor(job["targets"][i]) if labels else ids.masked_fill(mask == 0, -100)
        for row, n in zip(targets, job["prompts"][i] if "prompts" in job else []):
            row[:n] = -100
        ids, mask, targets = (t.to(place) for t in (ids, mask, targets))
        with auto:
            inputs = {"input_ids": ids, "attention_mask": mask} if labels or padded else {"input_ids": ids}
            loss = model(**inputs, labels=targets).loss
        optim.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in params]).item())
        optim.step()
        losses.append(loss.item())
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - t)
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
gpu = torch.cuda.max_memory_reserved() if cuda else None
print(json.dumps({"seconds": seconds, "losses": losses, "grad_norms": norms, "peak_rss": rss, "peak_gpu": gpu}))
