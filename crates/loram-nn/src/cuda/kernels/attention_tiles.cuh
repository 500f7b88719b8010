// Tiles of heads in bf16, for attention_bf16.cu: copied into shared memory, multiplied in registers, written out. A warp has
// 16 rows, lane 4g + t rows g and g + 8 and columns 2t and 2t + 1 of every 8; D is the width of a head with zeros.
#pragma once
#include "attention.cuh"
#include "tensor_core.cuh"

#define ROWS 64  // of a block
#define LOG2E 1.4426950408889634f

// Keys (or queries) of a step of the backward passes.
template <int D> struct Step {
    static constexpr int size = D <= 64 ? 64 : 32;
};

// Rows first..first + N of one head into shared memory, rows D + 8 numbers apart; 0 beyond row `n` and column d.
template <int D, int N>
__device__ __forceinline__ void copy_rows(const bf16* from, long long stride, int first, int n, int d, bf16* to) {
    for (int i = threadIdx.x; i < N * (D / 8); i += THREADS) {
        const int row = i / (D / 8), c = i % (D / 8) * 8;
        const bool inside = first + row < n && c < d;
        copy_async<16>(to + row * (D + 8) + c, inside ? from + (first + row) * stride + c : from, inside);
    }
}

// 16 rows as the first operand of products: 16 × 16 numbers from column c on.
template <int D> __device__ __forceinline__ void rows_of(unsigned (&a)[4], const bf16* tile, int row, int c) {
    const int lane = threadIdx.x % 32;
    load_matrices<false>(a, tile + (row + lane % 16) * (D + 8) + c + lane / 16 * 8);
}

// sums (M × 16 × N) += a·tileᵀ, over 16 columns of the tile (N × D) from c on. Each part of the tile is loaded once for M groups of 16
// rows.
template <int D, int N, int M>
__device__ __forceinline__ void times_rows(float (&sums)[M][N / 8][4], const unsigned (&a)[M][4], const bf16* tile, int c) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < N / 16; ++j) {
        unsigned b[4];
        load_matrices<false>(b, tile + (16 * j + lane / 16 * 8 + lane % 8) * (D + 8) + c + lane / 8 % 2 * 8);
#pragma unroll
        for (int m = 0; m < M; ++m) {
            mma(sums[m][2 * j], a[m], b[0], b[1]);
            mma(sums[m][2 * j + 1], a[m], b[2], b[3]);
        }
    }
}

// sums (M × 16 × D) += weights (M × 16 × N)·tile (N × D).
template <int D, int N, int M>
__device__ __forceinline__ void times_columns(float (&sums)[M][D / 8][4], const float (&weights)[M][N / 8][4], const bf16* tile) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < N / 16; ++i) {
        unsigned a[M][4];
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const float(&left)[4] = weights[m][2 * i], (&right)[4] = weights[m][2 * i + 1];
            a[m][0] = pack(left[0], left[1]);
            a[m][1] = pack(left[2], left[3]);
            a[m][2] = pack(right[0], right[1]);
            a[m][3] = pack(right[2], right[3]);
        }
#pragma unroll
        for (int j = 0; j < D / 16; ++j) {
            unsigned b[4];
            load_matrices<true>(b, tile + (16 * i + lane % 16) * (D + 8) + 16 * j + lane / 16 * 8);
#pragma unroll
            for (int m = 0; m < M; ++m) {
                mma(sums[m][2 * j], a[m], b[0], b[1]);
                mma(sums[m][2 * j + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// The same for one group of rows.
template <int D, int N>
__device__ __forceinline__ void times_rows(float (&sums)[N / 8][4], const unsigned (&a)[4], const bf16* tile, int c) {
    times_rows<D, N, 1>(reinterpret_cast<float(&)[1][N / 8][4]>(sums), reinterpret_cast<const unsigned(&)[1][4]>(a), tile, c);
}
template <int D, int N>
__device__ __forceinline__ void times_columns(float (&sums)[D / 8][4], const float (&weights)[N / 8][4], const bf16* tile) {
    times_columns<D, N, 1>(reinterpret_cast<float(&)[1][D / 8][4]>(sums), reinterpret_cast<const float(&)[1][N / 8][4]>(weights), tile);
}

template <int N> __device__ __forceinline__ void clear(float (&sums)[N][4]) {
#pragma unroll
    for (int j = 0; j < N; ++j) sums[j][0] = sums[j][1] = sums[j][2] = sums[j][3] = 0.0f;
}

// Rows g and g + 8 of sums times a factor each, in rows `row` and row + 8 of a head.
template <int D>
__device__ __forceinline__ void write_rows(bf16* to, long long stride, int row, int n, int d, const float (&sums)[D / 8][4],
                                           const float (&factor)[2]) {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        if (row + 8 * r >= n) continue;
        bf16* out = to + (row + 8 * r) * stride;
#pragma unroll
        for (int j = 0; j < D / 8; ++j)
            if (8 * j < d)
                *(unsigned*)(out + 8 * j + 2 * t) = pack(sums[j][2 * r] * factor[r], sums[j][2 * r + 1] * factor[r]);
    }
}

// Sum and maximum over the four lanes that share a row.
__device__ __forceinline__ float lanes_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ __forceinline__ float lanes_max(float x) {
    x = larger(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return larger(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
