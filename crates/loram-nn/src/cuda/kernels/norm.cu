// Root-mean-square norm and layer norm: a block for each row. Rows of y are `pitch` apart. Weights, statistics and their gradients are in f32.
#include "portable.cuh"

// Calls f(j, count, whole) for the columns of a thread, at most eight neighbours at a time.
template <typename F> __device__ __forceinline__ void for_columns(int cols, F f) {
    for (int j = 8 * threadIdx.x; j < cols; j += 8 * blockDim.x) f(j, min(8, cols - j), cols % 8 == 0);
}

template <typename T>
__device__ void rms_norm(const T* x, const float* w, float eps, T* y, int pitch, float* rstd, int cols) {
    const long long at = (long long)blockIdx.x * cols, to = (long long)blockIdx.x * pitch;
    float sum = 0.0f;
    for_columns(cols, [&](int j, int count, bool whole) {
        float v[8];
        load(v, x + at + j, count, whole);
#pragma unroll
        for (int e = 0; e < 8; ++e) sum = fmaf(v[e], v[e], sum);
    });
    const float r = 1.0f / sqrtf(block_sum(sum) / cols + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = r;
    for_columns(cols, [&](int j, int count, bool whole) {
        float v[8], weight[8];
        load(v, x + at + j, count, whole);
        load(weight, w + j, count, whole);
#pragma unroll
        for (int e = 0; e < 8; ++e) v[e] *= r * weight[e];
        store(y + to + j, v, count, whole);
    });
}
BOTH(rms_norm, (const T* x, const float* w, float eps, T* y, int pitch, float* rstd, int cols),
     (x, w, eps, y, pitch, rstd, cols))

template <typename T>
__device__ void layer_norm(const T* x, const float* w, const float* b, float eps, T* y, int pitch, float* mean, float* rstd,
                           int cols) {
    const long long at = (long long)blockIdx.x * cols, to = (long long)blockIdx.x * pitch;
    float sum = 0.0f;
    for_columns(cols, [&](int j, int count, bool whole) {
        float v[8];
        load(v, x + at + j, count, whole);
#pragma unroll
        for (int e = 0; e < 8; ++e) sum += v[e];
    });
    const float m = block_sum(sum) / cols;
    float squares = 0.0f;
    for_columns(cols, [&](int j, int count, bool whole) {
        float v[8];
        load(v, x + at + j, count, whole);
#pragma unroll
        for (int e = 0; e < 8; ++e)
            if (e < count) squares = fmaf(v[e] - m, v[e] - m, squares);
    });
    const float r = 1.0f / sqrtf(block_sum(squares) / cols + eps);
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = m;
        rstd[blockIdx.x] = r;
    }
    for_columns(cols, [&](int j, int count, bool whole) {
        float v[8], weight[8], bias[8];
        load(v, x + at + j, count, whole);
        load(weight, w + j, count, whole);
        load(bias, b + j, count, whole);
#pragma unroll
        for (int e = 0; e < 8; ++e) v[e] = fmaf((v[e] - m) * r, weight[e], bias[e]);
        store(y + to + j, v, count, whole);
    });
}
BOTH(layer_norm,
     (const T* x, const float* w, const float* b, float eps, T* y, int pitch, float* mean, float* rstd, int cols),
     (x, w, b, eps, y, pitch, mean, rstd, cols))

// dx = (accumulate ? dx : 0) + rstd·(g − mean(g) − x̂·mean(g·x̂)) with g = dy·w and x̂ = (x − m)·rstd; without CENTERED, the
// root-mean-square norm's, m and mean(g) are 0.
template <bool CENTERED, typename T>
__device__ void norm_backward(const T* x, const float* w, float m, float r, const T* dy, T* dx, int accumulate, int cols) {
    const long long at = (long long)blockIdx.x * cols;
    float g_sum = 0.0f, gx_sum = 0.0f;
    for_columns(cols, [&](int j, int count, bool whole) {
        float v[8], g[8], weight[8];
        load(v, x + at + j, count, whole);
        load(g, dy + at + j, count, whole);
        load(weight, w + j, count, whole);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            // beyond the last column g is 0
            if (CENTERED) g_sum = fmaf(g[e], weight[e], g_sum);
            gx_sum = fmaf(g[e] * weight[e], CENTERED ? v[e] - m : v[e], gx_sum);
        }
    });
    const float g_mean = CENTERED ? block_sum(g_sum) / cols : 0.0f, k = block_sum(gx_sum) * r / cols * r;
    for_columns(cols, [&](int j, int count, bool whole) {
        float v[8], g[8], weight[8], before[8];
        load(v, x + at + j, count, whole);
        load(g, dy + at + j, count, whole);
        load(weight, w + j, count, whole);
        if (accumulate) load(before, dx + at + j, count, whole);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float d = r * (g[e] * weight[e] - g_mean - (CENTERED ? v[e] - m : v[e]) * k);
            v[e] = accumulate ? before[e] + d : d;
        }
        store(dx + at + j, v, count, whole);
    });
}

template <typename T>
__device__ void rms_norm_backward(const T* x, const float* w, const float* rstd, const T* dy, T* dx, int accumulate, int cols) {
    norm_backward<false>(x, w, 0.0f, rstd[blockIdx.x], dy, dx, accumulate, cols);
}
BOTH(rms_norm_backward,
     (const T* x, const float* w, const float* rstd, const T* dy, T* dx, int accumulate, int cols),
     (x, w, rstd, dy, dx, accumulate, cols))

template <typename T>
__device__ void layer_norm_backward(const T* x, const float* w, const float* mean, const float* rstd, const T* dy, T* dx,
                                    int accumulate, int cols) {
    norm_backward<true>(x, w, mean[blockIdx.x], rstd[blockIdx.x], dy, dx, accumulate, cols);
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
