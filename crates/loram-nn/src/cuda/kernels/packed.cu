// Quantised weights in bf16: every thread writes eight neighbours of a row. Values are those of the CPU before they are rounded.
#include "portable.cuh"

typedef unsigned char byte;

// Products and sums that are not fused, as on the CPU.
#ifdef __CUDACC__
__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }
#else
inline float times(float a, float b) { volatile float c = a * b; return c; }
inline float plus(float a, float b) { volatile float c = a + b; return c; }
#endif

__device__ __forceinline__ float from_bits(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

__device__ __forceinline__ unsigned to_bits(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}

// A number in half precision, two bytes at any address.
__device__ __forceinline__ float half_at(const byte* at) {
    const unsigned x = at[0] | at[1] << 8, sign = (x & 0x8000) << 16, rest = (x & 0x7fff) << 13, smallest = 113u << 23;
    if (rest >> 23 == 0) return from_bits(sign | to_bits(from_bits(rest + smallest) - from_bits(smallest)));
    return from_bits(sign | (rest >> 23 == 31 ? rest | 0x7f800000 : rest + (112u << 23)));
}

// Rounds to half precision, to nearest even.
__device__ __forceinline__ float to_half(float x) {
    const unsigned bits = to_bits(x), sign = bits & 0x80000000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return x;
    if (rest < 113u << 23) return from_bits(sign | to_bits(plus(plus(from_bits(rest), 0.5f), -0.5f)));
    const unsigned rounded = (rest + 0xfff + (rest >> 13 & 1)) & ~0x1fffu;
    return from_bits(sign | (rounded >= 143u << 23 ? 0x7f800000 : rounded));
}

struct Q4_0 {
    static const int values = 32, bytes = 18;
    static __device__ float at(const byte* b, int k) {
        const int q = k < 16 ? b[2 + k] & 15 : b[2 + k - 16] >> 4;
        return times(half_at(b), (float)(q - 8));
    }
};

struct Q4_1 {
    static const int values = 32, bytes = 20;
    static __device__ float at(const byte* b, int k) {
        const int q = k < 16 ? b[4 + k] & 15 : b[4 + k - 16] >> 4;
        return plus(times(half_at(b), (float)q), half_at(b + 2));
    }
};

// The fifth bits of 32 codes.
__device__ __forceinline__ int fifth(const byte* bits, int k) { return (bits[k / 8] >> k % 8 & 1) << 4; }

struct Q5_0 {
    static const int values = 32, bytes = 22;
    static __device__ float at(const byte* b, int k) {
        const int q = (k < 16 ? b[6 + k] & 15 : b[6 + k - 16] >> 4) | fifth(b + 2, k);
        return times(half_at(b), (float)(q - 16));
    }
};

struct Q5_1 {
    static const int values = 32, bytes = 24;
    static __device__ float at(const byte* b, int k) {
        const int q = (k < 16 ? b[8 + k] & 15 : b[8 + k - 16] >> 4) | fifth(b + 4, k);
        return plus(times(half_at(b), (float)q), half_at(b + 2));
    }
};

struct Q8_0 {
    static const int values = 32, bytes = 34;
    static __device__ float at(const byte* b, int k) { return times(half_at(b), (float)(signed char)b[2 + k]); }
};

struct Q2_K {
    static const int values = 256, bytes = 84;
    static __device__ float at(const byte* b, int k) {
        const byte both = b[k / 16];
        const int q = b[16 + k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3;
        return plus(times(times(half_at(b + 80), (float)(both & 15)), (float)q), -times(half_at(b + 82), (float)(both >> 4)));
    }
};

struct Q3_K {
    static const int values = 256, bytes = 110;
    static __device__ float at(const byte* b, int k) {
        const byte* packed = b + 96;
        const int g = k / 16, low = g < 8 ? packed[g] & 15 : packed[g - 8] >> 4, high = packed[8 + g % 4] >> g / 4 * 2 & 3;
        const int low2 = b[32 + k / 128 * 32 + k % 32] >> k % 128 / 32 * 2 & 3, third = b[k % 32] >> k / 32 & 1;
        return times(times(half_at(b + 108), (float)((low | high << 4) - 32)), (float)(low2 - (third ? 0 : 4)));
    }
};

// The scale and the minimum of a group of 32 in 6 bits each.
__device__ __forceinline__ void scale_and_minimum(const byte* packed, int g, int& scale, int& minimum) {
    if (g < 4) {
        scale = packed[g] & 63;
        minimum = packed[4 + g] & 63;
    } else {
        scale = (packed[4 + g] & 15) | packed[g - 4] >> 6 << 4;
        minimum = packed[4 + g] >> 4 | packed[g] >> 6 << 4;
    }
}

struct Q4_K {
    static const int values = 256, bytes = 144;
    static __device__ float at(const byte* b, int k) {
        int scale, minimum;
        scale_and_minimum(b + 4, k / 32, scale, minimum);
        const int q = b[16 + k / 64 * 32 + k % 32] >> k % 64 / 32 * 4 & 15;
        return plus(times(times(half_at(b), (float)scale), (float)q), -times(half_at(b + 2), (float)minimum));
    }
};

struct Q5_K {
    static const int values = 256, bytes = 176;
    static __device__ float at(const byte* b, int k) {
        int scale, minimum;
        scale_and_minimum(b + 4, k / 32, scale, minimum);
        const int q = (b[48 + k / 64 * 32 + k % 32] >> k % 64 / 32 * 4 & 15) | (b[16 + k % 32] >> k / 32 & 1) << 4;
        return plus(times(times(half_at(b), (float)scale), (float)q), -times(half_at(b + 2), (float)minimum));
    }
};

struct Q6_K {
    static const int values = 256, bytes = 210;
    static __device__ float at(const byte* b, int k) {
        const int part = k / 128, in = k % 128, low = b[part * 64 + in % 64] >> in / 64 * 4 & 15;
        const int high = b[128 + part * 32 + in % 32] >> in / 32 * 2 & 3;
        return times(times(half_at(b + 208), (float)(signed char)b[192 + k / 16]), (float)((low | high << 4) - 32));
    }
};

// The stored place of a row whose neighbours come from the two halves of a head of so many rows; 0: rows are in order.
__device__ __forceinline__ long long place(long long row, int head) {
    if (head == 0) return row;
    const long long in = row % head, half = head / 2;
    return row - in + in % half * 2 + in / half;
}

template <typename Q> __device__ void unpack(const byte* packed, bf16* out, int cols, int head, long long n) {
    const long long i = element() * 8;
    if (i >= n) return;
    const long long at = place(i / cols, head) * cols + i % cols;
    const byte* block = packed + at / Q::values * Q::bytes;
    float v[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) v[e] = Q::at(block, (int)(at % Q::values) + e);
    store(out + i, v, 8, true);
}

#define UNPACK(name) \
    KERNEL(unpack_##name, const byte* packed, bf16* out, int cols, int head, long long n) { unpack<name>(packed, out, cols, head, n); }
UNPACK(Q4_0)
UNPACK(Q4_1)
UNPACK(Q5_0)
UNPACK(Q5_1)
UNPACK(Q8_0)
UNPACK(Q2_K)
UNPACK(Q3_K)
UNPACK(Q4_K)
UNPACK(Q5_K)
UNPACK(Q6_K)

// Codes of 4 bits, the upper half of a byte first, into 16 levels, times the scale of a block of so many values. `half`: values were
// in half precision.
KERNEL(unpack_four_bit, const byte* codes, const float* scales, const float* levels, bf16* out, int block, int half, long long n) {
    const long long i = element() * 8;
    if (i >= n) return;
    const float scale = scales[i / block];
    const int count = n - i < 8 ? (int)(n - i) : 8;
    float v[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        if (e >= count) continue;
        const byte code = codes[(i + e) / 2];
        v[e] = times(levels[e % 2 ? code & 15 : code >> 4], scale);
        if (half) v[e] = to_half(v[e]);
    }
    store(out + i, v, count, count == 8);
}
