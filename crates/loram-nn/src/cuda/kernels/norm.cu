// Root-mean-square norm and layer norm: a block for each row. Weights, statistics and their gradients are in f32.
#include "portable.cuh"

template <typename T>
__device__ void rms_norm(const T* x, const float* w, float eps, T* y, float* rstd, int cols) {
    const long long at = (long long)blockIdx.x * cols;
    float sum = 0.0f;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) {
        const float v = wide(x[at + j]);
        sum = fmaf(v, v, sum);
    }
    const float r = 1.0f / sqrtf(block_sum(sum) / cols + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = r;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) put(y + at + j, wide(x[at + j]) * r * w[j]);
}
BOTH(rms_norm, (const T* x, const float* w, float eps, T* y, float* rstd, int cols), (x, w, eps, y, rstd, cols))

template <typename T>
__device__ void layer_norm(const T* x, const float* w, const float* b, float eps, T* y, float* mean, float* rstd, int cols) {
    const long long at = (long long)blockIdx.x * cols;
    float sum = 0.0f;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) sum += wide(x[at + j]);
    const float m = block_sum(sum) / cols;
    float squares = 0.0f;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) {
        const float v = wide(x[at + j]) - m;
        squares = fmaf(v, v, squares);
    }
    const float r = 1.0f / sqrtf(block_sum(squares) / cols + eps);
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = m;
        rstd[blockIdx.x] = r;
    }
    for (int j = threadIdx.x; j < cols; j += blockDim.x) put(y + at + j, fmaf((wide(x[at + j]) - m) * r, w[j], b[j]));
}
BOTH(layer_norm, (const T* x, const float* w, const float* b, float eps, T* y, float* mean, float* rstd, int cols),
     (x, w, b, eps, y, mean, rstd, cols))

// dx = (accumulate ? dx : 0) + rstd·(g − x̂·mean(g·x̂)) with g = dy·w.
template <typename T>
__device__ void rms_norm_backward(const T* x, const float* w, const float* rstd, const T* dy, T* dx, int accumulate, int cols) {
    const long long at = (long long)blockIdx.x * cols;
    const float r = rstd[blockIdx.x];
    float sum = 0.0f;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) sum = fmaf(wide(dy[at + j]) * w[j], wide(x[at + j]), sum);
    const float k = -(block_sum(sum) * r / cols * r * r);
    for (int j = threadIdx.x; j < cols; j += blockDim.x)
        put_or_add(dx + at + j, fmaf(wide(dy[at + j]) * w[j], r, wide(x[at + j]) * k), accumulate);
}
BOTH(rms_norm_backward,
     (const T* x, const float* w, const float* rstd, const T* dy, T* dx, int accumulate, int cols),
     (x, w, rstd, dy, dx, accumulate, cols))

// dx = (accumulate ? dx : 0) + rstd·(g − mean(g) − x̂·mean(g·x̂)).
template <typename T>
__device__ void layer_norm_backward(const T* x, const float* w, const float* mean, const float* rstd, const T* dy, T* dx,
                                    int accumulate, int cols) {
    const long long at = (long long)blockIdx.x * cols;
    const float m = mean[blockIdx.x], r = rstd[blockIdx.x];
    float g_sum = 0.0f, gx_sum = 0.0f;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) {
        const float g = wide(dy[at + j]) * w[j];
        g_sum += g;
        gx_sum = fmaf(g, wide(x[at + j]) - m, gx_sum);
    }
    const float g_mean = block_sum(g_sum) / cols, k = block_sum(gx_sum) * r / cols * r;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) {
        const float g = wide(dy[at + j]) * w[j];
        put_or_add(dx + at + j, r * (g - g_mean - (wide(x[at + j]) - m) * k), accumulate);
    }
}
BOTH(layer_norm_backward,
     (const T* x, const float* w, const float* mean, const float* rstd, const T* dy, T* dx, int accumulate, int cols),
     (x, w, mean, rstd, dy, dx, accumulate, cols))

// Sums over rows, 32 columns to a block and rows in a fixed order: db += Σ dy where asked for, dw += Σ dy·x̂ where x is
// given; x̂ = (x − mean)·rstd, without `mean` x·rstd.
template <typename T>
__device__ void column_sums(const T* dy, float* db, const T* x, const float* mean, const float* rstd, float* dw, int rows,
                            int cols) {
    __shared__ float parts[2][8][32];
    const int lane = threadIdx.x % 32, slice = threadIdx.x / 32, col = blockIdx.x * 32 + lane;
    float sum = 0.0f, sum_x = 0.0f;
    if (col < cols) {
        for (int i = slice; i < rows; i += 8) {
            const float g = wide(dy[(long long)i * cols + col]);
            sum += g;
            if (x) sum_x = fmaf((wide(x[(long long)i * cols + col]) - (mean ? mean[i] : 0.0f)) * rstd[i], g, sum_x);
        }
    }
    parts[0][slice][lane] = sum;
    parts[1][slice][lane] = sum_x;
    __syncthreads();
    if (slice > 0 || col >= cols) return;
    for (int i = 1; i < 8; ++i) {
        sum += parts[0][i][lane];
        sum_x += parts[1][i][lane];
    }
    if (db) db[col] += sum;
    if (x) dw[col] += sum_x;
}
BOTH(column_sums,
     (const T* dy, float* db, const T* x, const float* mean, const float* rstd, float* dw, int rows, int cols),
     (dy, db, x, mean, rstd, dw, rows, cols))
