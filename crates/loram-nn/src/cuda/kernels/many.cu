// One launch for many tensors: the table has a row for each, which blockIdx.y chooses; the blocks of a row take turns.
#include "portable.cuh"

typedef unsigned long long Word;

// Calls f(at, count, whole) for the elements of this thread, at most eight neighbours at a time.
template <typename F> __device__ __forceinline__ void for_elements(long long n, F f) {
    for (long long at = element() * 8; at < n; at += (long long)gridDim.x * blockDim.x * 8) {
        const int count = (int)min(8ll, n - at);
        f(at, count, count == 8);
    }
}

// Rows (x, n): x = 0.
KERNEL(zero_many, const Word* table) {
    const Word* row = table + 2 * blockIdx.y;
    float* x = (float*)row[0];
    const float zeros[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    for_elements((long long)row[1], [&](long long at, int count, bool whole) { store(x + at, zeros, count, whole); });
}

// Rows (x, n): x ← a·x.
KERNEL(scale_many, const Word* table, float a) {
    const Word* row = table + 2 * blockIdx.y;
    float* x = (float*)row[0];
    for_elements((long long)row[1], [&](long long at, int count, bool whole) {
        float v[8];
        load(v, x + at, count, whole);
#pragma unroll
        for (int e = 0; e < 8; ++e) v[e] *= a;
        store(x + at, v, count, whole);
    });
}

// Rows (x, y, n): y = x in bf16.
KERNEL(narrow_many, const Word* table) {
    const Word* row = table + 3 * blockIdx.y;
    const float* x = (const float*)row[0];
    bf16* y = (bf16*)row[1];
    for_elements((long long)row[2], [&](long long at, int count, bool whole) {
        float v[8];
        load(v, x + at, count, whole);
        store(y + at, v, count, whole);
    });
}

// Rows (x, sums, n): sums[i] = Σ x² over the elements of block i.
KERNEL(sum_squares_many, const Word* table) {
    const Word* row = table + 3 * blockIdx.y;
    const float* x = (const float*)row[0];
    float sum = 0.0f;
    for_elements((long long)row[2], [&](long long at, int count, bool whole) {
        float v[8];
        load(v, x + at, count, whole);
#pragma unroll
        for (int e = 0; e < 8; ++e) sum = fmaf(v[e], v[e], sum);
    });
    sum = block_sum(sum);
    if (threadIdx.x == 0) ((float*)row[1])[blockIdx.x] = sum;
}

// Rows (p, g, m, v, n, and eight f32: 1 − lr·wd, 1 − β₁, β₂, 1 − β₂, lr/(1 − β₁ᵗ), √(1 − β₂ᵗ), ε, none): a step with
// the formulas of torch.optim.AdamW.
KERNEL(adamw_many, const Word* table) {
    const Word* row = table + 9 * blockIdx.y;
    float *p = (float*)row[0], *m = (float*)row[2], *v = (float*)row[3];
    const float *g = (const float*)row[1], *how = (const float*)(row + 5);
    const float decay = how[0], first = how[1], beta2 = how[2], second = how[3], size = how[4], root = how[5], eps = how[6];
    for_elements((long long)row[4], [&](long long at, int count, bool whole) {
        float value[8], grad[8], mean[8], square[8];
        load(value, p + at, count, whole);
        load(grad, g + at, count, whole);
        load(mean, m + at, count, whole);
        load(square, v + at, count, whole);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            mean[e] = fmaf(grad[e] - mean[e], first, mean[e]);
            square[e] = fmaf(grad[e] * grad[e], second, square[e] * beta2);
            value[e] = value[e] * decay - size * (mean[e] / (sqrtf(square[e]) / root + eps));
        }
        store(p + at, value, count, whole);
        store(m + at, mean, count, whole);
        store(v + at, square, count, whole);
    });
}
