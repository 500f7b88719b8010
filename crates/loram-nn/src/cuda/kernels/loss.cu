// Softmax cross-entropy of rows of logits: a block for each row.
#include "portable.cuh"

// found[2i] gets the loss of row i, found[2i + 1] whether its (first) largest logit is the label's. With `grad` the
// logits become scale·(softmax − onehot).
template <typename T>
__device__ void cross_entropy(T* logits, const unsigned* labels, float* found, float scale, int grad, int cols) {
    T* row = logits + (long long)blockIdx.x * cols;
    const int label = (int)labels[blockIdx.x];
    const float target = wide(row[label]);
    float top = -INFINITY;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) top = larger(wide(row[j]), top);
    top = block_max(top);
    float total = 0.0f, before = 0.0f;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) {
        const float x = wide(row[j]);
        total += expf(x - top);
        if (j < label && x == top) before = 1.0f;
    }
    total = block_sum(total);
    before = block_max(before);
    if (threadIdx.x == 0) {
        found[2 * blockIdx.x] = logf(total) - (target - top);
        found[2 * blockIdx.x + 1] = target == top && before == 0.0f ? 1.0f : 0.0f;
    }
    if (!grad) return;
    const float factor = scale / total;
    for (int j = threadIdx.x; j < cols; j += blockDim.x)
        put(row + j, fmaf(expf(wide(row[j]) - top), factor, j == label ? -scale : 0.0f));
}
BOTH(cross_entropy, (T* logits, const unsigned* labels, float* found, float scale, int grad, int cols),
     (logits, labels, found, scale, grad, cols))
