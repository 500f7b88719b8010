// Mixtures of experts: the clamped gate, and rows with factors of their own.
#include "portable.cuh"

template <typename T>
__device__ void clamped_forward(const T* gate, const T* up, T* y, float alpha, float limit, long long n) {
    const Piece p = piece(n);
    float g[8], u[8];
    p.load(g, gate);
    p.load(u, up);
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        const float a = fminf(g[e], limit), b = fminf(fmaxf(u[e], -limit), limit);
        g[e] = a / (1.0f + __expf(-alpha * a)) * (b + 1.0f);
    }
    p.store(y, g);
}
BOTH(clamped_forward, (const T* gate, const T* up, T* y, float alpha, float limit, long long n),
     (gate, up, y, alpha, limit, n))

// gate becomes dgate, up becomes dup, dy becomes the output
template <typename T> __device__ void clamped_backward(T* gate, T* up, T* dy, float alpha, float limit, long long n) {
    const Piece p = piece(n);
    float g[8], u[8], d[8];
    p.load(g, gate);
    p.load(u, up);
    p.load(d, dy);
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        const float a = fminf(g[e], limit), b = fminf(fmaxf(u[e], -limit), limit);
        const float s = 1.0f / (1.0f + __expf(-alpha * a)), value = a * s;
        const float slope = fmaf(1.0f - s, value * alpha, s), dy_here = d[e];
        d[e] = value * (b + 1.0f);
        g[e] = g[e] > limit ? 0.0f : dy_here * (b + 1.0f) * slope;
        u[e] = u[e] > limit || u[e] < -limit ? 0.0f : dy_here * value;
    }
    p.store(gate, g);
    p.store(up, u);
    p.store(dy, d);
}
BOTH(clamped_backward, (T* gate, T* up, T* dy, float alpha, float limit, long long n), (gate, up, dy, alpha, limit, n))

// Row i of x times factors[i].
template <typename T> __device__ void scale_rows(T* x, const float* factors, int cols) {
    const long long from = (long long)blockIdx.x * cols;
    const float factor = factors[blockIdx.x];
    for (int j = threadIdx.x; j < cols; j += blockDim.x) put(x + from + j, wide(x[from + j]) * factor);
}
BOTH(scale_rows, (T* x, const float* factors, int cols), (x, factors, cols))

// The products of the rows of a with those of b.
template <typename T> __device__ void row_dots(const T* a, const T* b, float* out, int cols) {
    const long long from = (long long)blockIdx.x * cols;
    float sum = 0.0f;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) sum = fmaf(wide(a[from + j]), wide(b[from + j]), sum);
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
BOTH(row_dots, (const T* a, const T* b, float* out, int cols), (a, b, out, cols))
