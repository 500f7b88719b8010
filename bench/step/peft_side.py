"""The PEFT side of bench/step: the same steps with torch, transformers and peft. Prints a JSON object.

    peft_side.py JOB.json | --gemm THREADS"""
import json, resource, sys, time
import torch

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
with open(sys.argv[1]) as f:
    job = json.load(f)
torch.set_num_threads(job["threads"])
labels = job["num_labels"]
kind = tf.AutoModelForSequenceClassification if labels else tf.AutoModelForCausalLM
extra = {"num_labels": labels} if labels else {}
base = kind.from_pretrained(job["model"], dtype=torch.float32, attn_implementation="sdpa", **extra)
model = PeftModel.from_pretrained(base, job["adapter"], is_trainable=True)
model.train()
for m in model.modules():
    if isinstance(m, torch.nn.Dropout):
        m.p = 0.0  # the comparison of losses needs none on either side
if job.get("gradient_checkpointing"):
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
        if labels:
            loss = model(input_ids=ids, attention_mask=mask, labels=torch.tensor(job["targets"][i])).loss
        elif bool(mask.all()):
            loss = model(input_ids=ids, labels=ids).loss
        else:
            loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        optim.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in params]).item())
        optim.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - t)
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "losses": losses, "grad_norms": norms, "peak_rss": rss}))
