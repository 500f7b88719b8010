// Activation functions, alone and as the gate of a gated feed-forward layer.
#include "portable.cuh"

enum Act { SILU, GELU, GELU_TANH, RELU, TANH, QUICK_GELU };

struct Curve {
    float value, slope;
};

__device__ __forceinline__ Curve curve(int act, float x) {
    switch (act) {
        case SILU: {
            const float s = __fdividef(1.0f, 1.0f + __expf(-x)), y = x * s;
            return {y, fmaf(1.0f - s, y, s)};
        }
        case GELU: {
            const float cdf = fmaf(erff(x * 0.70710678118654752f), 0.5f, 0.5f);
            const float pdf = 0.3989422804014327f * expf(-0.5f * x * x);
            // x·pdf is 0 far out, also where x is infinite
            return {x * cdf, cdf + (pdf == 0.0f ? 0.0f : x * pdf)};
        }
        case GELU_TANH: {
            const float inner = 0.7978845608028654f * x * fmaf(x * x, 0.044715f, 1.0f);
            const float t = tanhf(fminf(fmaxf(inner, -40.0f), 40.0f)), cdf = fmaf(t, 0.5f, 0.5f);
            const float sech2 = (1.0f - t) * (1.0f + t), slope = 0.7978845608028654f * fmaf(x * x, 3.0f * 0.044715f, 1.0f);
            return {x * cdf, cdf + (sech2 == 0.0f ? 0.0f : 0.5f * x * sech2 * slope)};
        }
        case RELU:
            return {x < 0.0f ? 0.0f : x, x > 0.0f ? 1.0f : 0.0f};
        case QUICK_GELU: {
            const float s = __fdividef(1.0f, 1.0f + __expf(-1.702f * x)), y = x * s;
            return {y, fmaf(1.0f - s, 1.702f * y, s)};
        }
        default: {
            const float t = tanhf(x);
            return {t, (1.0f - t) * (1.0f + t)};
        }
    }
}

template <typename T> __device__ void act_forward(int act, const T* x, T* y, long long n) {
    const Piece p = piece(n);
    float v[8];
    p.load(v, x);
#pragma unroll
    for (int e = 0; e < 8; ++e) v[e] = curve(act, v[e]).value;
    p.store(y, v);
}
BOTH(act_forward, (int act, const T* x, T* y, long long n), (act, x, y, n))

// g ← g·act′(x)
template <typename T> __device__ void act_backward(int act, const T* x, T* g, long long n) {
    const Piece p = piece(n);
    float v[8], slope[8];
    p.load(v, g);
    p.load(slope, x);
#pragma unroll
    for (int e = 0; e < 8; ++e) v[e] *= curve(act, slope[e]).slope;
    p.store(g, v);
}
BOTH(act_backward, (int act, const T* x, T* g, long long n), (act, x, g, n))

template <typename T> __device__ void gated_forward(int act, const T* gate, const T* up, T* y, long long n) {
    const Piece p = piece(n);
    float v[8], u[8];
    p.load(v, gate);
    p.load(u, up);
#pragma unroll
    for (int e = 0; e < 8; ++e) v[e] = curve(act, v[e]).value * u[e];
    p.store(y, v);
}
BOTH(gated_forward, (int act, const T* gate, const T* up, T* y, long long n), (act, gate, up, y, n))

// gate becomes dgate, up becomes dup, dy becomes the output
template <typename T> __device__ void gated_backward(int act, T* gate, T* up, T* dy, long long n) {
    const Piece p = piece(n);
    float v[8], u[8], g[8];
    p.load(v, gate);
    p.load(u, up);
    p.load(g, dy);
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        const Curve c = curve(act, v[e]);
        const float dy_here = g[e];
        v[e] = dy_here * u[e] * c.slope;
        g[e] = c.value * u[e];
        u[e] = dy_here * c.value;
    }
    p.store(gate, v);
    p.store(up, u);
    p.store(dy, g);
}
BOTH(gated_backward, (int act, T* gate, T* up, T* dy, long long n), (act, gate, up, dy, n))
