// Activation functions, alone and as the gate of a gated feed-forward layer.
#include "portable.cuh"

enum Act { SILU, GELU, GELU_TANH, RELU, TANH };

struct Curve {
    float value, slope;
};

__device__ __forceinline__ Curve curve(int act, float x) {
    switch (act) {
        case SILU: {
            const float s = 1.0f / (1.0f + expf(-x)), y = x * s;
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
        default: {
            const float t = tanhf(x);
            return {t, (1.0f - t) * (1.0f + t)};
        }
    }
}

template <typename T> __device__ void act_forward(int act, const T* x, T* y, long long n) {
    const long long i = element();
    if (i < n) put(y + i, curve(act, wide(x[i])).value);
}
BOTH(act_forward, (int act, const T* x, T* y, long long n), (act, x, y, n))

// g ← g·act′(x)
template <typename T> __device__ void act_backward(int act, const T* x, T* g, long long n) {
    const long long i = element();
    if (i < n) put(g + i, wide(g[i]) * curve(act, wide(x[i])).slope);
}
BOTH(act_backward, (int act, const T* x, T* g, long long n), (act, x, g, n))

template <typename T> __device__ void gated_forward(int act, const T* gate, const T* up, T* y, long long n) {
    const long long i = element();
    if (i < n) put(y + i, curve(act, wide(gate[i])).value * wide(up[i]));
}
BOTH(gated_forward, (int act, const T* gate, const T* up, T* y, long long n), (act, gate, up, y, n))

// gate becomes dgate, up becomes dup
template <typename T> __device__ void gated_backward(int act, T* gate, T* up, const T* dy, long long n) {
    const long long i = element();
    if (i >= n) return;
    const Curve c = curve(act, wide(gate[i]));
    const float g = wide(dy[i]);
    put(gate + i, g * wide(up[i]) * c.slope);
    put(up + i, g * c.value);
}
BOTH(gated_backward, (int act, T* gate, T* up, const T* dy, long long n), (act, gate, up, dy, n))
