// Rotary position embedding in the half-split layout, in place: a block for each token, a thread for at most eight neighbouring
// pairs of a head.
#include "portable.cuh"

template <typename T>
__device__ void rope(T* x, const unsigned* positions, const float* cos_table, const float* sin_table, int heads, int d,
                     int half, int backward) {
    const long long table = (long long)positions[blockIdx.x] * half;
    const int groups = (half + 7) / 8;
    const bool whole = half % 8 == 0 && d % 8 == 0;
    x += (long long)blockIdx.x * heads * d;
    for (int i = threadIdx.x; i < heads * groups; i += blockDim.x) {
        const int pair = i % groups * 8, count = min(8, half - pair);
        T *first = x + i / groups * d + pair, *second = first + half;
        float a[8], b[8], c[8], s[8];
        load(c, cos_table + table + pair, count, whole);
        load(s, sin_table + table + pair, count, whole);
        load(a, first, count, whole);
        load(b, second, count, whole);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float turn = backward ? -s[e] : s[e], before = a[e];
            a[e] = fmaf(before, c[e], -(b[e] * turn));
            b[e] = fmaf(b[e], c[e], before * turn);
        }
        store(first, a, count, whole);
        store(second, b, count, whole);
    }
}
BOTH(rope,
     (T* x, const unsigned* positions, const float* cos_table, const float* sin_table, int heads, int d, int half,
      int backward),
     (x, positions, cos_table, sin_table, heads, d, half, backward))
