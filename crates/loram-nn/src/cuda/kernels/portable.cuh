// What all kernels share. The same source is compiled by nvcc and, for tests, by a C++ compiler (emulation.h).
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#define LINKAGE extern "C" __global__
#define REGISTER(name)
#define SHARED(T, name)                                     \
    extern __shared__ __align__(128) unsigned char loram_shared[]; \
    T* name = reinterpret_cast<T*>(loram_shared)
#else
#include "emulation.h"
#define LINKAGE static
#define REGISTER(name) static emulation::Registered registered_##name(#name, name);
#define SHARED(T, name) T* name = reinterpret_cast<T*>(emulation::shared)
#endif

typedef __nv_bfloat16 bf16;

// A kernel for one number type: parameters as declared, the body after it.
#define KERNEL(name, ...)           \
    LINKAGE void name(__VA_ARGS__); \
    REGISTER(name)                  \
    LINKAGE void name(__VA_ARGS__)

// Kernels name_f32 and name_bf16 for activations of both types; T is the type in `parameters`.
#define BOTH(name, parameters, arguments)                                                \
    namespace name##_of_f32 {                                                            \
    typedef float T;                                                                     \
    LINKAGE void name##_f32 parameters { name<T> arguments; }              \
    REGISTER(name##_f32)                                                                 \
    }                                                                                    \
    namespace name##_of_bf16 {                                                           \
    typedef bf16 T;                                                                      \
    LINKAGE void name##_bf16 parameters { name<T> arguments; }             \
    REGISTER(name##_bf16)                                                                \
    }

__device__ __forceinline__ float wide(float x) { return x; }
__device__ __forceinline__ float wide(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ void put(float* to, float x) { *to = x; }
__device__ __forceinline__ void put(bf16* to, float x) { *to = __float2bfloat16(x); }

// to = (accumulate ? to : 0) + x
template <typename T> __device__ __forceinline__ void put_or_add(T* to, float x, int accumulate) {
    put(to, accumulate ? wide(*to) + x : x);
}

// The element that a thread of a one-dimensional grid works on.
__device__ __forceinline__ long long element() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

// Eight neighbours at once: memory is read and written in pieces of 16 bytes. With fewer than eight, or where they do not
// start at a multiple of eight elements (`whole` false), one by one.
template <typename T> struct alignas(16) Eight {
    T x[8];
};

template <typename T> __device__ __forceinline__ void load(float (&v)[8], const T* from, int count, bool whole) {
    if (whole) {
        const Eight<T> all = *(const Eight<T>*)from;
#pragma unroll
        for (int e = 0; e < 8; ++e) v[e] = wide(all.x[e]);
    } else {
#pragma unroll
        for (int e = 0; e < 8; ++e) v[e] = e < count ? wide(from[e]) : 0.0f;
    }
}

template <typename T> __device__ __forceinline__ void store(T* to, const float (&v)[8], int count, bool whole) {
    if (whole) {
        Eight<T> all;
#pragma unroll
        for (int e = 0; e < 8; ++e) put(&all.x[e], v[e]);
        *(Eight<T>*)to = all;
    } else {
#pragma unroll
        for (int e = 0; e < 8; ++e)
            if (e < count) put(to + e, v[e]);
    }
}

// A piece of at most eight of n elements for each thread of a one-dimensional grid.
struct Piece {
    long long at;
    int count;
    template <typename T> __device__ __forceinline__ void load(float (&v)[8], const T* from) const {
        ::load(v, from + at, count, count == 8);
    }
    template <typename T> __device__ __forceinline__ void store(T* to, const float (&v)[8]) const {
        ::store(to + at, v, count, count == 8);
    }
};

__device__ __forceinline__ Piece piece(long long n) {
    const long long at = element() * 8;
    return {at, (int)max(0ll, min(8ll, n - at))};
}

__device__ __forceinline__ float warp_sum(float x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}

__device__ __forceinline__ float larger(float a, float b) { return a > b ? a : b; }

__device__ __forceinline__ float warp_max(float x) {
    for (int lanes = 16; lanes > 0; lanes /= 2) x = larger(x, __shfl_xor_sync(0xffffffffu, x, lanes));
    return x;
}

// The sum or the maximum over a block of whole warps, for every thread of it.
template <bool MAX> __device__ __forceinline__ float block_reduce(float x) {
    __shared__ float parts[32];
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    x = MAX ? warp_max(x) : warp_sum(x);
    __syncthreads();  // an earlier call may still be read
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    x = lane < warps ? parts[lane] : (MAX ? -INFINITY : 0.0f);
    return MAX ? warp_max(x) : warp_sum(x);
}

__device__ __forceinline__ float block_sum(float x) { return block_reduce<false>(x); }
__device__ __forceinline__ float block_max(float x) { return block_reduce<true>(x); }

// Two 32-bit keys from a seed and the upper half of a counter (splitmix64), as the CPU kernels draw them.
struct Keys {
    unsigned a, b;
};

__device__ __forceinline__ Keys draw_keys(unsigned long long seed, unsigned long long high) {
    unsigned long long z = (seed ^ (high * 0xd1342543de82ef95ull)) + 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return {(unsigned)z, (unsigned)(z >> 32)};
}

// A bijection of 32-bit words with low bias (C. Wellons' lowbias32).
__device__ __forceinline__ unsigned mix(unsigned x) {
    x ^= x >> 16;
    x *= 0x21f0aaadu;
    x ^= x >> 15;
    x *= 0x735a2d97u;
    return x ^ (x >> 15);
}

__device__ __forceinline__ unsigned draw(Keys keys, unsigned counter) { return mix(mix(counter ^ keys.a) + keys.b); }
