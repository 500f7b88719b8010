// What the attention kernels share: the shape of a layer's attention, who sees whom, dropout on the weights.
#pragma once
#include "portable.cuh"

#define THREADS 128

struct Shape {
    int heads, kv_heads, d;
    float scale, cap;    // cap 0: scores are not capped
    int causal, window;  // window −1: none
    float keep;
    unsigned threshold;  // 0: nothing is dropped
    unsigned long long seed;
};

#define SHAPE_PARAMETERS                                                                                           \
    int heads, int kv_heads, int d, float scale, float cap, int causal, int window, float keep, unsigned threshold, \
        unsigned long long seed
#define SHAPE                                                                  \
    Shape { heads, kv_heads, d, scale, cap, causal, window, keep, threshold, seed }

struct Range {
    int from, to;
};

__device__ __forceinline__ bool sees(const Shape& s, int query, int key) {
    if (s.causal) return key <= query && (s.window < 0 || query - key < s.window);
    return s.window < 0 || (query - key <= s.window && key - query <= s.window);
}

// Keys of 0..n that any of the queries from..to sees, from a whole tile of `size` on.
__device__ __forceinline__ Range keys_of(const Shape& s, int from, int to, int n, int size) {
    int low = 0, high = s.causal ? to : n;
    if (s.window >= 0) {
        low = max(0, s.causal ? from + 1 - s.window : from - s.window);
        if (!s.causal) high = min(n, to + s.window);
    }
    return {low / size * size, min(high, n)};
}

// Queries of 0..n that see any of the keys from..to, from a whole tile of `size` on.
__device__ __forceinline__ Range queries_of(const Shape& s, int from, int to, int n, int size) {
    int low = s.causal ? from : 0, high = n;
    if (s.window >= 0) {
        if (!s.causal) low = max(0, from - s.window);
        high = min(n, s.causal ? to - 1 + s.window : to + s.window);
    }
    return {low / size * size, high};
}

// Whether the weight of a key is kept; `row` holds the keys of a query and head.
__device__ __forceinline__ float mask(const Shape& s, Keys row, int key) {
    if (s.threshold == 0) return 1.0f;
    return draw(row, (unsigned)key) >= s.threshold ? s.keep : 0.0f;
}

__device__ __forceinline__ Keys mask_keys(const Shape& s, long long query, int head) {
    return draw_keys(s.seed, (unsigned long long)(query * s.heads + head));
}

// A score, soft-capped where the shape says so.
__device__ __forceinline__ float score_of(const Shape& s, float product) {
    const float x = product * s.scale;
    return s.cap > 0.0f ? s.cap * tanhf(x / s.cap) : x;
}

// The derivative of a score by the scaled product.
__device__ __forceinline__ float slope_of(const Shape& s, float score) {
    const float t = score / s.cap;
    return s.cap > 0.0f ? (1.0f - t) * (1.0f + t) : 1.0f;
}

__device__ __forceinline__ float finite(float top) { return top == -INFINITY ? 0.0f : top; }
