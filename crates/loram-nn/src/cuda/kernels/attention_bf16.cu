// Attention as in attention.cu, in bf16 on tensor cores, for heads of at most 128 numbers, a multiple of 8. Scores, weights
// and sums never leave registers; keys and values (in the backward pass of keys, queries and gradients) come through
// shared memory, the next tile while this one is worked on. Nothing is summed in an order that depends on the clock.
//
// In the backward passes a block of four warps has 64 queries (or keys) of one head, a warp 16 of them, and lane 4g + t rows g and g + 8, columns
// 2t and 2t + 1 of every 8. D is the width of a head with zeros up to 32, 64 or 128.
#include "attention_tiles.cuh"

#define QUERIES 128  // of a block of the forward pass

struct Yes {
    static constexpr bool value = true;
};
struct No {
    static constexpr bool value = false;
};

// True when every query from `from` on sees every one of keys at..at + size.
__device__ __forceinline__ bool sees_all(const Shape& s, int from, int at, int size, int n) {
    return s.window < 0 && at + size <= n && (!s.causal || at + size - 1 <= from);
}

// Where a block is at work. Grid: (heads, tiles); tiles[3i..] = first token of the sequence, its length, first row in it.
struct Place {
    long long start;
    int n, first;
};

__device__ __forceinline__ Place place(const unsigned* tiles) {
    tiles += 3 * blockIdx.y;
    return {(long long)tiles[0], (int)tiles[1], (int)tiles[2]};
}

// A block has 128 queries, a warp 32 of them, two groups of 16: keys and values are loaded out of shared memory once for both.
// Shared memory: 64 keys, 64 values and the queries.
template <int D, bool DROPS>
__device__ void heads_forward(const bf16* q, const bf16* k, const bf16* v, bf16* o, float* lse, const unsigned* tiles, Shape s) {
    SHARED(bf16, kt);
    bf16 *vt = kt + ROWS * (D + 8), *qt = vt + ROWS * (D + 8);
    const Place p = place(tiles);
    const int d = s.d, n = p.n, head = blockIdx.x, kv_head = head / (s.heads / s.kv_heads);
    const long long qs = (long long)s.heads * d, ks = (long long)s.kv_heads * d;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int lowest = p.first + 32 * warp, query = lowest + g;
    k += p.start * ks + kv_head * d;
    v += p.start * ks + kv_head * d;
    const float steep = s.scale * LOG2E;
    const Range seen = keys_of(s, p.first, min(p.first + QUERIES, n), n, ROWS);

    copy_rows<D, QUERIES>(q + p.start * qs + head * d, qs, p.first, n, d, qt);
    copy_rows<D, ROWS>(k, ks, seen.from, n, d, kt);
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();

    float sums[2][D / 8][4], top[2][2], total[2][2];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
        clear(sums[m]);
        top[m][0] = top[m][1] = -INFINITY;
        total[m][0] = total[m][1] = 0.0f;
    }
    for (int at = seen.from; at < seen.to; at += ROWS) {
        copy_rows<D, ROWS>(v, ks, at, n, d, vt);
        commit_copies();
        // later keys than any query of the warp sees, or no queries
        const bool idle = lowest >= n || (s.causal && at > lowest + 31);
        float scores[2][ROWS / 8][4];
        if (!idle) {
            clear(scores[0]);
            clear(scores[1]);
#pragma unroll
            for (int c = 0; c < D / 16; ++c) {
                unsigned a[2][4];
                rows_of<D>(a[0], qt, 32 * warp, 16 * c);
                rows_of<D>(a[1], qt, 32 * warp + 16, 16 * c);
                times_rows<D, ROWS, 2>(scores, a, kt, 16 * c);
            }
        }
        __syncthreads();
        if (at + ROWS < seen.to) copy_rows<D, ROWS>(k, ks, at + ROWS, n, d, kt);
        commit_copies();
        if (!idle) {
            if (!sees_all(s, lowest, at, ROWS, n)) {
#pragma unroll
                for (int m = 0; m < 2; ++m)
#pragma unroll
                    for (int j = 0; j < ROWS / 8; ++j)
#pragma unroll
                        for (int e = 0; e < 4; ++e) {
                            const int key = at + 8 * j + 2 * t + e % 2;
                            if (key >= n || !sees(s, query + 16 * m + e / 2 * 8, key)) scores[m][j][e] = -INFINITY;
                        }
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int m = i / 2, r = i % 2;
                float new_top = top[m][r];
#pragma unroll
                for (int j = 0; j < ROWS / 8; ++j)
                    new_top = larger(larger(scores[m][j][2 * r], scores[m][j][2 * r + 1]), new_top);
                new_top = lanes_max(new_top);
                const float base = finite(new_top) * steep, factor = power_of_2(fmaf(top[m][r], steep, -base));
                top[m][r] = new_top;
                total[m][r] *= factor;
                const Keys drawn = DROPS ? mask_keys(s, p.start + query + 8 * i, head) : Keys{0, 0};
#pragma unroll
                for (int j = 0; j < ROWS / 8; ++j)
#pragma unroll
                    for (int c = 0; c < 2; ++c) {
                        float& x = scores[m][j][2 * r + c];
                        x = power_of_2(fmaf(x, steep, -base));
                        total[m][r] += x;
                        if (DROPS) x *= mask(s, drawn, at + 8 * j + 2 * t + c);
                    }
#pragma unroll
                for (int j = 0; j < D / 8; ++j) {
                    sums[m][j][2 * r] *= factor;
                    sums[m][j][2 * r + 1] *= factor;
                }
            }
        }
        wait_for_copies<1>();
        __syncthreads();
        if (!idle) times_columns<D, ROWS, 2>(sums, scores, vt);
        wait_for_copies<0>();
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
        float share[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int row = query + 16 * m + 8 * r;
            const float all = lanes_sum(total[m][r]);
            // a query that sees nothing gets 0
            share[r] = all == 0.0f ? 0.0f : 1.0f / all;
            if (t == 0 && row < n) lse[(p.start + row) * s.heads + head] = top[m][r] * s.scale + logf(all);
        }
        write_rows<D>(o + p.start * qs + head * d, qs, query + 16 * m, n, d, sums[m], share);
    }
}

// dq = Σ ds·k with ds = scale·p·(mask·(g·vᵀ) − delta). Shared memory: two steps of keys and values.
template <int D, bool DROPS>
__device__ void heads_backward_q(const bf16* q, const bf16* k, const bf16* v, const float* lse, const float* delta,
                                 const bf16* d_o, bf16* dq, const unsigned* tiles, Shape s) {
    constexpr int N = Step<D>::size, SIZE = N * (D + 8);
    SHARED(bf16, memory);
    const Place p = place(tiles);
    const int d = s.d, n = p.n, head = blockIdx.x, kv_head = head / (s.heads / s.kv_heads);
    const long long qs = (long long)s.heads * d, ks = (long long)s.kv_heads * d;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int lowest = p.first + 16 * warp, query = lowest + g;
    k += p.start * ks + kv_head * d;
    v += p.start * ks + kv_head * d;
    const Keys drawn[2] = {mask_keys(s, p.start + query, head), mask_keys(s, p.start + query + 8, head)};
    const float steep = s.scale * LOG2E;

    // queries and gradients pass through the place of keys and values
    bf16* staged = memory + ROWS * (D + 8);
    copy_rows<D, ROWS>(q + p.start * qs + head * d, qs, p.first, n, d, memory);
    copy_rows<D, ROWS>(d_o + p.start * qs + head * d, qs, p.first, n, d, staged);
    commit_copies();
    float top[2], mean[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const long long at = (p.start + min(query + 8 * r, n - 1)) * s.heads + head;
        top[r] = finite(lse[at]) * LOG2E;
        mean[r] = delta[at];
    }
    wait_for_copies<0>();
    __syncthreads();
    unsigned queries[D / 16][4], gradients[D / 16][4];
#pragma unroll
    for (int c = 0; c < D / 16; ++c) {
        rows_of<D>(queries[c], memory, 16 * warp, 16 * c);
        rows_of<D>(gradients[c], staged, 16 * warp, 16 * c);
    }
    __syncthreads();

    float sums[D / 8][4];
    clear(sums);
    const Range seen = keys_of(s, p.first, min(p.first + ROWS, n), n, N);
    int buffer = 0;
    if (seen.from < seen.to) {
        copy_rows<D, N>(k, ks, seen.from, n, d, memory);
        copy_rows<D, N>(v, ks, seen.from, n, d, memory + SIZE);
    }
    commit_copies();
    for (int at = seen.from; at < seen.to; at += N, buffer ^= 1) {
        const bf16 *kt = memory + 2 * SIZE * buffer, *vt = kt + SIZE;
        if (at + N < seen.to) {
            bf16* next = memory + 2 * SIZE * (buffer ^ 1);
            copy_rows<D, N>(k, ks, at + N, n, d, next);
            copy_rows<D, N>(v, ks, at + N, n, d, next + SIZE);
        }
        commit_copies();
        wait_for_copies<1>();
        __syncthreads();
        // later keys than any query of the warp sees
        if (s.causal && at > lowest + 15) {
            __syncthreads();
            continue;
        }
        float scores[N / 8][4], dp[N / 8][4];
        clear(scores);
        clear(dp);
#pragma unroll
        for (int c = 0; c < D / 16; ++c) {
            times_rows<D, N>(scores, queries[c], kt, 16 * c);
            times_rows<D, N>(dp, gradients[c], vt, 16 * c);
        }
        auto gradients_of_scores = [&](auto all) {
#pragma unroll
            for (int j = 0; j < N / 8; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int key = at + 8 * j + 2 * t + e % 2, r = e / 2;
                    const bool seen_here = all.value || (key < n && sees(s, query + 8 * r, key));
                    const float weight = seen_here ? power_of_2(fmaf(scores[j][e], steep, -top[r])) : 0.0f;
                    const float kept = DROPS ? mask(s, drawn[r], key) : 1.0f;
                    scores[j][e] = weight * (dp[j][e] * kept - mean[r]) * s.scale;
                }
        };
        if (sees_all(s, lowest, at, N, n))
            gradients_of_scores(Yes());
        else
            gradients_of_scores(No());
        times_columns<D, N>(sums, scores, kt);
        __syncthreads();
    }
    const float one[2] = {1.0f, 1.0f};
    write_rows<D>(dq + p.start * qs + head * d, qs, query, n, d, sums, one);
}

// dk = Σ dsᵀ·q and dv = Σ pᵀ·g over the queries of all heads that read this one; grid: (key heads, tiles). Shared memory:
// 64 keys and values, two steps of queries and gradients, and of their lse and delta.
template <int D, bool DROPS>
__device__ void heads_backward_kv(const bf16* q, const bf16* k, const bf16* v, const float* lse, const float* delta,
                                  const bf16* d_o, bf16* dk, bf16* dv, const unsigned* tiles, Shape s) {
    constexpr int N = Step<D>::size, SIZE = N * (D + 8);
    SHARED(bf16, kt);
    bf16 *vt = kt + ROWS * (D + 8), *steps = vt + ROWS * (D + 8);
    float* statistics = (float*)(steps + 4 * SIZE);
    const Place p = place(tiles);
    const int d = s.d, n = p.n, kv_head = blockIdx.x, group = s.heads / s.kv_heads;
    const long long qs = (long long)s.heads * d, ks = (long long)s.kv_heads * d;
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int key = p.first + 16 * warp + g;
    const float steep = s.scale * LOG2E;
    const Range seen = queries_of(s, p.first, min(p.first + ROWS, n), n, N);
    const int count = (seen.to - seen.from + N - 1) / N;

    // step i: a tile of queries and gradients of one of the heads
    auto fetch = [&](int i, int buffer) {
        const int head = kv_head * group + i / count, at = seen.from + i % count * N;
        const long long from = p.start * qs + head * d;
        bf16* to = steps + 2 * SIZE * buffer;
        copy_rows<D, N>(q + from, qs, at, n, d, to);
        copy_rows<D, N>(d_o + from, qs, at, n, d, to + SIZE);
        if (threadIdx.x < 2 * N) {
            const int row = threadIdx.x % N;
            const float* of = threadIdx.x < N ? lse : delta;
            const bool inside = at + row < n;
            copy_async<4>(statistics + 2 * N * buffer + threadIdx.x,
                          of + (p.start + (inside ? at + row : 0)) * s.heads + head, inside);
        }
    };
    copy_rows<D, ROWS>(k + p.start * ks + kv_head * d, ks, p.first, n, d, kt);
    copy_rows<D, ROWS>(v + p.start * ks + kv_head * d, ks, p.first, n, d, vt);
    if (count > 0) fetch(0, 0);
    commit_copies();

    float dk_sums[D / 8][4], dv_sums[D / 8][4];
    clear(dk_sums);
    clear(dv_sums);
    for (int i = 0; i < group * count; ++i) {
        const int head = kv_head * group + i / count, at = seen.from + i % count * N;
        if (i + 1 < group * count) fetch(i + 1, (i + 1) % 2);
        commit_copies();
        wait_for_copies<1>();
        __syncthreads();
        // earlier queries than any that sees a key of the warp
        if (s.causal && at + N <= p.first + 16 * warp) {
            __syncthreads();
            continue;
        }
        const bf16 *qt = steps + 2 * SIZE * (i % 2), *gt = qt + SIZE;
        const float *tops = statistics + 2 * N * (i % 2), *means = tops + N;
        float scores[N / 8][4], dp[N / 8][4];
        clear(scores);
        clear(dp);
#pragma unroll
        for (int c = 0; c < D / 16; ++c) {
            unsigned a[4];
            rows_of<D>(a, kt, 16 * warp, 16 * c);
            times_rows<D, N>(scores, a, qt, 16 * c);
            rows_of<D>(a, vt, 16 * warp, 16 * c);
            times_rows<D, N>(dp, a, gt, 16 * c);
        }
        auto gradients_of_scores = [&](auto all) {
#pragma unroll
            for (int j = 0; j < N / 8; ++j)
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    const int column = 8 * j + 2 * t + c, query = at + column;
                    const float top = finite(tops[column]) * LOG2E, mean = means[column];
                    const Keys drawn = DROPS ? mask_keys(s, p.start + query, head) : Keys{0, 0};
#pragma unroll
                    for (int r = 0; r < 2; ++r) {
                        const int e = 2 * r + c;
                        const bool seen_here = all.value || (query < n && key + 8 * r < n && sees(s, query, key + 8 * r));
                        const float weight = seen_here ? power_of_2(fmaf(scores[j][e], steep, -top)) : 0.0f;
                        const float kept = DROPS ? mask(s, drawn, key + 8 * r) : 1.0f;
                        scores[j][e] = weight * kept;
                        dp[j][e] = weight * (dp[j][e] * kept - mean) * s.scale;
                    }
                }
        };
        // keys of this warp that all queries here see
        if (at + N <= n && sees_all(s, at, p.first + 16 * warp, 16, n))
            gradients_of_scores(Yes());
        else
            gradients_of_scores(No());
        times_columns<D, N>(dv_sums, scores, gt);
        times_columns<D, N>(dk_sums, dp, qt);
        __syncthreads();
    }
    wait_for_copies<0>();
    const float one[2] = {1.0f, 1.0f};
    const long long out = p.start * ks + kv_head * d;
    write_rows<D>(dk + out, ks, key, n, d, dk_sums, one);
    write_rows<D>(dv + out, ks, key, n, d, dv_sums, one);
}

// Kernels name_32, name_64 and name_128 for heads up to that width, and name_32_dropout and so on.
#define HEADS_OF(kernel, parameters, ...)                                    \
    LINKAGE void __launch_bounds__(THREADS) kernel parameters { __VA_ARGS__; } \
    REGISTER(kernel)
#define HEADS(name, parameters, arguments)                                \
    HEADS_OF(name##_32, parameters, name<32, false> arguments)            \
    HEADS_OF(name##_64, parameters, name<64, false> arguments)            \
    HEADS_OF(name##_128, parameters, name<128, false> arguments)          \
    HEADS_OF(name##_32_dropout, parameters, name<32, true> arguments)     \
    HEADS_OF(name##_64_dropout, parameters, name<64, true> arguments)     \
    HEADS_OF(name##_128_dropout, parameters, name<128, true> arguments)

HEADS(heads_forward,
      (const bf16* q, const bf16* k, const bf16* v, bf16* o, float* lse, const unsigned* tiles, SHAPE_PARAMETERS),
      (q, k, v, o, lse, tiles, SHAPE))
HEADS(heads_backward_q,
      (const bf16* q, const bf16* k, const bf16* v, const float* lse, const float* delta, const bf16* d_o, bf16* dq,
       const unsigned* tiles, SHAPE_PARAMETERS),
      (q, k, v, lse, delta, d_o, dq, tiles, SHAPE))
HEADS(heads_backward_kv,
      (const bf16* q, const bf16* k, const bf16* v, const float* lse, const float* delta, const bf16* d_o, bf16* dk, bf16* dv,
       const unsigned* tiles, SHAPE_PARAMETERS),
      (q, k, v, lse, delta, d_o, dk, dv, tiles, SHAPE))
