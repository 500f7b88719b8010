// Rotary position embedding in the half-split layout, in place: a block for each token, a thread for pairs of its heads.
#include "portable.cuh"

template <typename T>
__device__ void rope(T* x, const unsigned* positions, const float* cos_table, const float* sin_table, int heads, int d,
                     int half, int backward) {
    const long long table = (long long)positions[blockIdx.x] * half;
    x += (long long)blockIdx.x * heads * d;
    for (int i = threadIdx.x; i < heads * half; i += blockDim.x) {
        const int pair = i % half;
        const float c = cos_table[table + pair], s = backward ? -sin_table[table + pair] : sin_table[table + pair];
        T *first = x + i / half * d + pair, *second = first + half;
        const float a = wide(*first), b = wide(*second);
        put(first, fmaf(a, c, -(b * s)));
        put(second, fmaf(b, c, a * s));
    }
}
BOTH(rope,
     (T* x, const unsigned* positions, const float* cos_table, const float* sin_table, int heads, int d, int half,
      int backward),
     (x, positions, cos_table, sin_table, heads, d, half, backward))
