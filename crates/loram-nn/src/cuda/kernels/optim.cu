// One optimiser step over a parameter in f32, with the formulas of torch.optim.
#include "portable.cuh"

KERNEL(adamw, float* p, const float* g, float* m, float* v, float decay, float first, float beta2, float second,
       float size, float root, float eps, long long n) {
    const long long i = element();
    if (i >= n) return;
    const float grad = g[i], mean = fmaf(grad - m[i], first, m[i]), square = fmaf(grad * grad, second, v[i] * beta2);
    m[i] = mean;
    v[i] = square;
    p[i] = p[i] * decay - size * (mean / (sqrtf(square) / root + eps));
}

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
