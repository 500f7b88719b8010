// Rotary position embedding, in place, of the two halves of what is rotated or of neighbouring pairs: a block for each token, a
// thread for at most eight pairs of a head.
#include "portable.cuh"

template <typename T>
__device__ void rope(T* x, const unsigned* positions, const float* cos_table, const float* sin_table, int heads, int d,
                     int half, int interleaved, int backward) {
    const long long table = (long long)positions[blockIdx.x] * half;
    const int groups = (half + 7) / 8;
    const bool whole = half % 8 == 0 && d % 8 == 0;
    x += (long long)blockIdx.x * heads * d;
    for (int i = threadIdx.x; i < heads * groups; i += blockDim.x) {
        const int pair = i % groups * 8, count = min(8, half - pair);
        T* head = x + i / groups * d;
        float a[8], b[8], c[8], s[8];
        load(c, cos_table + table + pair, count, whole);
        load(s, sin_table + table + pair, count, whole);
        if (interleaved) {
            for (int e = 0; e < count; ++e) a[e] = wide(head[2 * (pair + e)]), b[e] = wide(head[2 * (pair + e) + 1]);
        } else {
            load(a, head + pair, count, whole);
            load(b, head + half + pair, count, whole);
        }
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float turn = backward ? -s[e] : s[e], before = a[e];
            a[e] = fmaf(before, c[e], -(b[e] * turn));
            b[e] = fmaf(b[e], c[e], before * turn);
        }
        if (interleaved) {
            for (int e = 0; e < count; ++e) put(head + 2 * (pair + e), a[e]), put(head + 2 * (pair + e) + 1, b[e]);
            continue;
        }
        store(head + pair, a, count, whole);
        store(head + half + pair, b, count, whole);
    }
}
BOTH(rope,
     (T* x, const unsigned* positions, const float* cos_table, const float* sin_table, int heads, int d, int half,
      int interleaved, int backward),
     (x, positions, cos_table, sin_table, heads, d, half, interleaved, backward))
