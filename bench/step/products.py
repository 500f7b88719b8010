#!/usr/bin/env python3
"""Products of torch (oneDNN) at the shapes of `cargo run --release --example products`, in GFLOP/s.

    python3 bench/step/products.py [THREADS [TOKENS [SECONDS]]]

Figures are those of the fastest of many calls. x·Wᵀ is `torch.nn.functional.linear`, dy·W is `torch.mm`; in bf16 inputs and outputs are
bf16. "+ rounding" begins and ends with f32 activations, as loram's products do."""
import sys, time
import torch

SHAPES = [(576, 576), (192, 576), (1536, 576), (576, 1536), (49152, 576), (4096, 4096), (11008, 4096), (4096, 11008)]
argument = lambda i, default: type(default)(sys.argv[i]) if len(sys.argv) > i else default
threads, t, seconds = argument(1, 2), argument(2, 1500), argument(3, 0.5)
torch.set_num_threads(threads)


def fastest(f):
    begun, best, calls = time.perf_counter(), float("inf"), 0
    while calls < 3 or time.perf_counter() - begun < seconds:
        call = time.perf_counter()
        f()
        best = min(best, time.perf_counter() - call)
        calls += 1
    return best


print(f"torch {torch.__version__}: {t} tokens, {threads} threads, GFLOP/s")
print(f"{'n × k':>15} {'type':>16} {'x·Wᵀ':>8} {'dy·W':>8}")
with torch.no_grad():
    for n, k in SHAPES:
        for name, dtype in (("bf16", torch.bfloat16), ("bf16 + rounding", torch.bfloat16), ("f32", torch.float32)):
            w = torch.randn(n, k).to(dtype)
            rounding = "rounding" in name
            x, dy = (torch.randn(t, m).to(torch.float32 if rounding else dtype) for m in (k, n))
            into = (lambda a: a.to(dtype)) if rounding else (lambda a: a)
            out = (lambda a: a.float()) if rounding else (lambda a: a)
            rate = lambda s: 2 * t * n * k / s / 1e9
            forward = rate(fastest(lambda: out(torch.nn.functional.linear(into(x), w))))
            backward = rate(fastest(lambda: out(torch.mm(into(dy), w))))
            print(f"{f'{n} × {k}':>15} {name:>16} {forward:8.0f} {backward:8.0f}", flush=True)
