// Small operations on whole tensors: sums, scaling, changes of the number type, biases, dropout.
#include "portable.cuh"

template <typename T> __device__ void add_assign(T* y, const T* x, long long n) {
    const Piece p = piece(n);
    float v[8], w[8];
    p.load(v, y);
    p.load(w, x);
#pragma unroll
    for (int e = 0; e < 8; ++e) v[e] += w[e];
    p.store(y, v);
}
BOTH(add_assign, (T* y, const T* x, long long n), (y, x, n))

template <typename T> __device__ void scale(T* y, float a, long long n) {
    const Piece p = piece(n);
    float v[8];
    p.load(v, y);
#pragma unroll
    for (int e = 0; e < 8; ++e) v[e] *= a;
    p.store(y, v);
}
BOTH(scale, (T* y, float a, long long n), (y, a, n))

// cast_f32: from f32 to bf16; cast_bf16: from bf16 to f32
template <typename S, typename T> __device__ void cast(const S* x, T* y, long long n) {
    const Piece p = piece(n);
    float v[8];
    p.load(v, x);
    p.store(y, v);
}
KERNEL(cast_f32, const float* x, bf16* y, long long n) { cast(x, y, n); }
KERNEL(cast_bf16, const bf16* x, float* y, long long n) { cast(x, y, n); }

template <typename T> __device__ void add_bias(T* y, const float* bias, int cols, long long n) {
    const long long i = element();
    if (i < n) put(y + i, wide(y[i]) + bias[i % cols]);
}
BOTH(add_bias, (T* y, const float* bias, int cols, long long n), (y, bias, cols, n))

// y = (accumulate ? y : 0) + x·m·keep, m = 0 where the draw is below the threshold
template <typename T>
__device__ void dropout(const T* x, T* y, unsigned threshold, float keep, unsigned long long seed, int accumulate, long long n) {
    const long long i = element();
    if (i >= n) return;
    const bool kept = draw(draw_keys(seed, (unsigned long long)i >> 32), (unsigned)i) >= threshold;
    put_or_add(y + i, kept ? wide(x[i]) * keep : 0.0f, accumulate);
}
BOTH(dropout, (const T* x, T* y, unsigned threshold, float keep, unsigned long long seed, int accumulate, long long n),
     (x, y, threshold, keep, seed, accumulate, n))
