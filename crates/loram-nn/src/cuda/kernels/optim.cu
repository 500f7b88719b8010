// A step of SGD over a parameter in f32, with the formulas of torch.optim; many.cu has AdamW.
#include "portable.cuh"

// `buffer` is null without momentum; `keep` and `add` are 0 and 1 in the first step.
KERNEL(sgd, float* p, const float* g, float* buffer, float lr, float weight_decay, float momentum, float keep, float add,
       int nesterov, long long n) {
    const long long i = element();
    if (i >= n) return;
    const float grad = fmaf(p[i], weight_decay, g[i]);
    float direction = grad;
    if (buffer) {
        const float b = fmaf(buffer[i], keep, add * grad);
        buffer[i] = b;
        direction = nesterov ? fmaf(b, momentum, grad) : b;
    }
    p[i] -= lr * direction;
}
