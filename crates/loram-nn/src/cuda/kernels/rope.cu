// Rotary position embedding in the half-split layout, in place: a thread for each pair of a token and head.
#include "portable.cuh"

template <typename T>
__device__ void rope(T* x, const unsigned* positions, const float* cos_table, const float* sin_table, int heads, int d,
                     int half, int backward, long long pairs) {
    const long long i = element();
    if (i >= pairs) return;
    const int pair = (int)(i % half);
    const long long head = i / half, token = head / heads;
    const long long at = (long long)positions[token] * half + pair;
    const float c = cos_table[at], s = backward ? -sin_table[at] : sin_table[at];
    T *first = x + head * d + pair, *second = first + half;
    const float a = wide(*first), b = wide(*second);
    put(first, fmaf(a, c, -(b * s)));
    put(second, fmaf(b, c, a * s));
}
BOTH(rope,
     (T* x, const unsigned* positions, const float* cos_table, const float* sin_table, int heads, int d, int half,
      int backward, long long pairs),
     (x, positions, cos_table, sin_table, heads, d, half, backward, pairs))
