"""The PEFT side of bench/init: an adapter put on each matrix of a safetensors file. Prints a JSON object.

    peft_side.py JOB.json            # {"weights", "scheme", "r", "threads"}
    peft_side.py --make FILE N M     # writes such a file: one matrix whose spectrum decays as those of trained layers do"""
import json, sys, time
import torch
from safetensors.torch import load_file, save_file

if sys.argv[1] == "--make":
    n, m = map(int, sys.argv[3:])
    torch.manual_seed(n * 31 + m)
    w = 0.02 * torch.randn(n, m) * torch.exp(0.5 * torch.randn(n, 1)) * torch.exp(0.5 * torch.randn(1, m))
    k = 64  # directions above the bulk
    top = 0.02 * (n**0.5 + m**0.5) * 3.0 / torch.arange(1, k + 1) ** 0.4
    u, v = torch.linalg.qr(torch.randn(n, k))[0], torch.linalg.qr(torch.randn(m, k))[0]
    save_file({"w": (w + (u * top) @ v.T).contiguous()}, sys.argv[2])
    sys.exit()

from peft import LoraConfig, get_peft_model


def memory(key):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(key + ":"))


with open(sys.argv[1]) as f:
    job = json.load(f)
torch.set_num_threads(job["threads"])
scheme = job["scheme"].replace("-", "_")
layers = []
for name, w in load_file(job["weights"]).items():
    n, m = w.shape
    model = torch.nn.Sequential()
    model.add_module("layer", torch.nn.Linear(m, n, bias=False))
    model.layer.weight.data = w.clone()
    torch.manual_seed(0)
    before, clock = memory("VmRSS"), time.perf_counter()
    config = LoraConfig(r=job["r"], lora_alpha=job["r"], target_modules=["layer"], init_lora_weights=scheme)
    base = get_peft_model(model, config).base_model.model.layer.base_layer.weight
    seconds = time.perf_counter() - clock
    layers.append({"name": name, "shape": [n, m], "seconds": seconds, "memory": memory("VmHWM") - before,
                   "residual_norm": base.detach().double().norm().item()})
print(json.dumps({"layers": layers}))
