// Softmax cross-entropy of rows of logits: a block for each row.
#include "portable.cuh"

// found[2i] gets the loss of row i, found[2i + 1] whether its (first) largest logit is the label's. With `grad` the
// logits become scale·(softmax − onehot), where `scales` has a factor of each row's scale unless it is null.
template <typename T>
__device__ void cross_entropy(T* logits, const unsigned* labels, float* found, const float* scales, float scale, int grad,
                              int cols) {
    T* row = logits + (long long)blockIdx.x * cols;
    const int label = (int)labels[blockIdx.x];
    const float target = wide(row[label]);
    // largest so far and sum of exponentials under it, over the columns of this thread
    float top = -INFINITY, total = 0.0f, beaten = 0.0f;
    for (int j = 8 * threadIdx.x; j < cols; j += 8 * blockDim.x) {
        const int count = min(8, cols - j);
        float v[8], piece = -INFINITY;
        load(v, row + j, count, cols % 8 == 0);
#pragma unroll
        for (int e = 0; e < 8; ++e)
            if (e < count) {
                piece = larger(v[e], piece);
                if (j + e < label ? v[e] >= target : v[e] > target) beaten = 1.0f;
            }
        if (piece == -INFINITY) continue;
        if (piece > top) {
            total *= expf(top - piece);
            top = piece;
        }
#pragma unroll
        for (int e = 0; e < 8; ++e)
            if (e < count) total += expf(v[e] - top);
    }
    const float highest = block_max(top);
    // a thread without columns has a top of −∞
    total = block_sum(total * expf(top - highest));
    beaten = block_max(beaten);
    if (threadIdx.x == 0) {
        found[2 * blockIdx.x] = logf(total) - (target - highest);
        found[2 * blockIdx.x + 1] = beaten == 0.0f && target == highest ? 1.0f : 0.0f;
    }
    if (!grad) return;
    if (scales) scale *= scales[blockIdx.x];
    const float factor = scale / total;
    for (int j = 8 * threadIdx.x; j < cols; j += 8 * blockDim.x) {
        const int count = min(8, cols - j);
        float v[8];
        load(v, row + j, count, cols % 8 == 0);
#pragma unroll
        for (int e = 0; e < 8; ++e) v[e] = fmaf(expf(v[e] - highest), factor, j + e == label ? -scale : 0.0f);
        store(row + j, v, count, cols % 8 == 0);
    }
}
BOTH(cross_entropy,
     (T* logits, const unsigned* labels, float* found, const float* scales, float scale, int grad, int cols),
     (logits, labels, found, scales, scale, grad, cols))
