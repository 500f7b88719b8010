// Products of low rank (2106.09685) in bf16 on tensor cores, for layers that share an input. All of them move more bytes than
// they compute, so that each reads activations once: x for the projections of all layers beside each other, and again for the
// gradients of their A; dy for its projection and the gradient of B at once. Sums over many blocks lie in f32 pieces that
// another launch adds up in a fixed order.
//
// R is the rank, of all factors together, with zeros up to a multiple of 16. Factors are stacked: rows (or columns) of one after
// those of another.
#include "tensor_core.cuh"

#define FACTORS 6

// Matrices in a row, factor i from `end[i − 1]` to `end[i]`.
template <typename T> struct Stack {
    T* at[FACTORS];
    int end[FACTORS];

    // Calls f(factor, place in it, width of it) for place i of all.
    template <typename F> __device__ __forceinline__ void find(int i, F f) const {
        int begin = 0;
        T* base = nullptr;
        int place = 0, width = 0;
#pragma unroll
        for (int j = 0; j < FACTORS; ++j) {
            if (i >= begin && i < end[j]) {
                base = at[j];
                place = i - begin;
                width = end[j] - begin;
            }
            begin = end[j];
        }
        f(base, place, width);
    }
};

#define STACK_PARAMETERS(T)                                                                                              \
    T *at0, T *at1, T *at2, T *at3, T *at4, T *at5, int end0, int end1, int end2, int end3, int end4, int end5
#define STACK(T)                                                                              \
    Stack<T> {                                                                                \
        {at0, at1, at2, at3, at4, at5}, { end0, end1, end2, end3, end4, end5 }                \
    }

// `rows` × `columns` of a matrix from (row, column) on into shared memory with zeros beyond its end; columns are a multiple of 8.
template <int THREADS_OF_BLOCK>
__device__ __forceinline__ void copy_tile(bf16* to, int pitch, const bf16* from, long long stride, int rows, int columns,
                                          int row, int column, int row_end, int column_end) {
    const int pieces = columns / 8;
    for (int i = threadIdx.x; i < rows * pieces; i += THREADS_OF_BLOCK) {
        const int y = i / pieces, c = i % pieces * 8;
        const bool inside = row + y < row_end && column + c < column_end;
        copy_async<16>(to + y * pitch + c, inside ? from + (row + y) * stride + column + c : from, inside);
    }
}

// 16 × 16 numbers of a tile as the first operand: rows are those of the product, or its inner index (TRANSPOSED).
template <bool TRANSPOSED> __device__ __forceinline__ void left(unsigned (&a)[4], const bf16* tile, int pitch) {
    const int lane = threadIdx.x % 32;
    if (TRANSPOSED)
        load_matrices<true>(a, tile + (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 8);
    else
        load_matrices<false>(a, tile + lane % 16 * pitch + lane / 16 * 8);
}

// c (16 × 16) += a·(16 × 16 numbers of a tile): rows are its inner index, or those of the transpose.
template <bool TRANSPOSED>
__device__ __forceinline__ void right(unsigned (&b)[4], const bf16* tile, int pitch) {
    const int lane = threadIdx.x % 32;
    if (TRANSPOSED)
        load_matrices<false>(b, tile + (lane / 16 * 8 + lane % 8) * pitch + lane / 8 % 2 * 8);
    else
        load_matrices<true>(b, tile + lane % 16 * pitch + lane / 16 * 8);
}

__device__ __forceinline__ void mma_pair(float (&c0)[4], float (&c1)[4], const unsigned (&a)[4], const unsigned (&b)[4]) {
    mma(c0, a, b[0], b[1]);
    mma(c1, a, b[2], b[3]);
}

template <int M, int N> __device__ __forceinline__ void clear_sums(float (&sums)[M][N][4]) {
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
        for (int j = 0; j < N; ++j) sums[i][j][0] = sums[i][j][1] = sums[i][j][2] = sums[i][j][3] = 0.0f;
}

// 16 × 8 sums at (row, column) of a matrix in f32.
__device__ __forceinline__ void write_sums(float* to, int pitch, int row, int row_end, int column, const float (&c)[4]) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r)
        if (row + g + 8 * r < row_end) {
            float* at = to + (long long)(row + g + 8 * r) * pitch + column + 2 * t;
            at[0] = c[2 * r];
            at[1] = c[2 * r + 1];
        }
}

// parts[split] (t × R) = x·wᵀ over columns split·span.. of x (t × k, rows `pitch` apart); w: stacked rows of k. A block has 128
// rows, a warp 32.
#define DOWN_THREADS 128
#define DOWN_ROWS 128
#define DOWN_STEP 64
#define DOWN_STAGES 4

template <int R>
__device__ void low_rank_down(const bf16* x, int pitch, float* parts, int t, int k, int span, Stack<const bf16> w) {
    constexpr int LINE = DOWN_STEP + 8, STAGE = (DOWN_ROWS + R) * LINE;
    SHARED(bf16, memory);
    const int first = blockIdx.x * DOWN_ROWS, from = blockIdx.y * span, to = min(k, from + span);
    const int steps = (to - from + DOWN_STEP - 1) / DOWN_STEP, warp = threadIdx.x / 32;
    auto fetch = [&](int step) {
        if (step < steps) {
            bf16* tile = memory + step % DOWN_STAGES * STAGE;
            const int column = from + step * DOWN_STEP;
            copy_tile<DOWN_THREADS>(tile, LINE, x, pitch, DOWN_ROWS, DOWN_STEP, first, column, t, to);
            tile += DOWN_ROWS * LINE;
            for (int i = threadIdx.x; i < R * (DOWN_STEP / 8); i += DOWN_THREADS) {
                const int row = i / (DOWN_STEP / 8), c = i % (DOWN_STEP / 8) * 8;
                w.find(row, [&](const bf16* factor, int place, int) {
                    const bool inside = factor != nullptr && column + c < to;
                    copy_async<16>(tile + row * LINE + c, inside ? factor + (long long)place * k + column + c : x, inside);
                });
            }
        }
        commit_copies();
    };
    float sums[2][R / 8][4];
    clear_sums(sums);
    for (int i = 0; i < DOWN_STAGES - 1; ++i) fetch(i);
    for (int step = 0; step < steps; ++step) {
        wait_for_copies<DOWN_STAGES - 2>();
        __syncthreads();
        fetch(step + DOWN_STAGES - 1);
        const bf16 *tile = memory + step % DOWN_STAGES * STAGE, *rows = tile + 32 * warp * LINE;
        tile += DOWN_ROWS * LINE;
#pragma unroll
        for (int c = 0; c < DOWN_STEP; c += 16) {
            unsigned a[2][4];
            left<false>(a[0], rows + c, LINE);
            left<false>(a[1], rows + 16 * LINE + c, LINE);
#pragma unroll
            for (int j = 0; j < R / 16; ++j) {
                unsigned b[4];
                right<true>(b, tile + 16 * j * LINE + c, LINE);
                mma_pair(sums[0][2 * j], sums[0][2 * j + 1], a[0], b);
                mma_pair(sums[1][2 * j], sums[1][2 * j + 1], a[1], b);
            }
        }
    }
    wait_for_copies<0>();
    parts += (long long)blockIdx.y * t * R;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < R / 8; ++j) write_sums(parts, R, first + 32 * warp + 16 * i, t, 8 * j, sums[i][j]);
}

// Lanes that share the parts of a sum: each has every fourth.
#define LANES 4

__device__ __forceinline__ void sum_of_parts(float (&sum)[8], const float* from, int splits, int lane, long long apart) {
#pragma unroll 4
    for (int s = lane; s < splits; s += LANES) {
        float v[8];
        load(v, from + s * apart, 8, true);
#pragma unroll
        for (int e = 0; e < 8; ++e) sum[e] += v[e];
    }
}

__device__ __forceinline__ void across_lanes(float (&sum)[8]) {
#pragma unroll
    for (int e = 0; e < 8; ++e)
        for (int lanes = 1; lanes < LANES; lanes *= 2) sum[e] += __shfl_xor_sync(0xffffffffu, sum[e], lanes);
}

// out (t × width, rows `pitch` apart) = Σ parts (t × r each), columns of stacked factors times the factor's scale. Written twice
// where `copy` is not null, there with zeros up to `copied` columns.
KERNEL(low_rank_sum, const float* parts, int splits, bf16* out, int pitch, int width, int r, int t, bf16* copy, int copy_pitch,
       int copied, float scale0, float scale1, float scale2, float scale3, float scale4, float scale5, int end0, int end1,
       int end2, int end3, int end4) {
    const long long i = element() / LANES;
    const int lane = threadIdx.x % LANES, groups = (copy ? copied : width) / 8, row = (int)(i / groups), at = (int)(i % groups) * 8;
    float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (row < t && at < width) sum_of_parts(sum, parts + (long long)row * r + at, splits, lane, (long long)t * r);
    across_lanes(sum);
    if (lane > 0 || row >= t) return;
    if (at < width) {
        const float scale = at < end0 ? scale0 : at < end1 ? scale1 : at < end2 ? scale2 : at < end3 ? scale3 : at < end4 ? scale4 : scale5;
#pragma unroll
        for (int e = 0; e < 8; ++e) sum[e] *= scale;
        store(out + (long long)row * pitch + at, sum, 8, true);
    }
    if (copy) store(copy + (long long)row * copy_pitch + at, sum, 8, true);
}

// Columns m.. of w (n × m + room): stacked columns from column m + `from` on, zeros around them.
KERNEL(low_rank_place, bf16* w, int m, int room, int from, int n, STACK_PARAMETERS(const bf16)) {
    const long long i = element();
    const int groups = room / 8, row = (int)(i / groups), at = (int)(i % groups) * 8;
    if (row >= n) return;
    float v[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (at >= from)
        STACK(const bf16).find(at - from, [&](const bf16* factor, int place, int width) {
            if (factor != nullptr) load(v, factor + (long long)row * width + place, 8, true);
        });
    store(w + (long long)row * (m + room) + m + at, v, 8, true);
}

// wide (n × m + room) = w (n × m) with zeros beside it.
KERNEL(low_rank_widen, const bf16* w, bf16* wide, int m, int room, int n) {
    const long long i = element();
    const int groups = (m + room) / 8;
    const long long row = i / groups;
    const int at = (int)(i % groups) * 8;
    if (row >= n) return;
    float v[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (at < m) load(v, w + row * m + at, 8, true);
    store(wide + row * (m + room) + at, v, 8, true);
}

// parts[split] (columns × R) = xᵀ·g over rows split·span.. of x (t × columns) and g (t × r, rows `pitch` apart). A block has
// 256 columns, a warp 32. With PROJECTS also projected[block] (t × R) = x·w over the columns of the block, w: stacked columns;
// there a warp has 16 rows and a quarter of the columns.
#define OUTER_THREADS 256
#define OUTER_COLUMNS 256
#define OUTER_STEP 32
#define OUTER_STAGES 4

template <int R, bool PROJECTS>
__device__ void low_rank_outer(const bf16* x, const bf16* g, int pitch, int r, float* parts, float* projected, int t,
                               int columns, int span, Stack<const bf16> w) {
    constexpr int XP = OUTER_COLUMNS + 8, GP = R + 8, STAGE = OUTER_STEP * (XP + GP);
    SHARED(bf16, memory);
    bf16* factors = memory + OUTER_STAGES * STAGE;
    float* quarters = (float*)(factors + OUTER_COLUMNS * GP);
    const int first = blockIdx.x * OUTER_COLUMNS, from = blockIdx.y * span, to = min(t, from + span);
    const int steps = (to - from + OUTER_STEP - 1) / OUTER_STEP, warp = threadIdx.x / 32;
    auto fetch = [&](int step) {
        if (step < steps) {
            bf16* tile = memory + step % OUTER_STAGES * STAGE;
            const int row = from + step * OUTER_STEP;
            copy_tile<OUTER_THREADS>(tile, XP, x, columns, OUTER_STEP, OUTER_COLUMNS, row, first, to, columns);
            copy_tile<OUTER_THREADS>(tile + OUTER_STEP * XP, GP, g, pitch, OUTER_STEP, R, row, 0, to, r);
        }
        commit_copies();
    };
    if (PROJECTS)
        for (int i = threadIdx.x; i < OUTER_COLUMNS * (R / 8); i += OUTER_THREADS) {
            const int row = i / (R / 8), c = i % (R / 8) * 8;
            w.find(c, [&](const bf16* factor, int place, int width) {
                const bool inside = factor != nullptr && first + row < columns;
                copy_async<16>(factors + row * GP + c, inside ? factor + (long long)(first + row) * width + place : x, inside);
            });
        }
    float sums[2][R / 8][4];
    clear_sums(sums);
    for (int i = 0; i < OUTER_STAGES - 1; ++i) fetch(i);
    for (int step = 0; step < steps; ++step) {
        wait_for_copies<OUTER_STAGES - 2>();
        __syncthreads();
        fetch(step + OUTER_STAGES - 1);
        const bf16 *tile = memory + step % OUTER_STAGES * STAGE, *gs = tile + OUTER_STEP * XP;
        if (PROJECTS) {
            const int row = warp % 2 * 16, quarter = warp / 2 * (OUTER_COLUMNS / 4);
            float* mine = quarters + warp * 16 * R;
#pragma unroll
            for (int j = 0; j < R / 16; ++j) {
                float low[2][4];
#pragma unroll
                for (int e = 0; e < 4; ++e) low[0][e] = low[1][e] = 0.0f;
#pragma unroll
                for (int k = quarter; k < quarter + OUTER_COLUMNS / 4; k += 16) {
                    unsigned a[4], b[4];
                    left<false>(a, tile + row * XP + k, XP);
                    right<false>(b, factors + k * GP + 16 * j, GP);
                    mma_pair(low[0], low[1], a, b);
                }
                write_sums(mine, R, 0, 16, 16 * j, low[0]);
                write_sums(mine, R, 0, 16, 16 * j + 8, low[1]);
            }
        }
#pragma unroll
        for (int k = 0; k < OUTER_STEP; k += 16) {
            unsigned a[2][4];
            left<true>(a[0], tile + k * XP + 32 * warp, XP);
            left<true>(a[1], tile + k * XP + 32 * warp + 16, XP);
#pragma unroll
            for (int j = 0; j < R / 16; ++j) {
                unsigned b[4];
                right<false>(b, gs + k * GP + 16 * j, GP);
                mma_pair(sums[0][2 * j], sums[0][2 * j + 1], a[0], b);
                mma_pair(sums[1][2 * j], sums[1][2 * j + 1], a[1], b);
            }
        }
        if (PROJECTS) {
            __syncthreads();
            const int at = from + step * OUTER_STEP;
            float* out = projected + ((long long)blockIdx.x * t + at) * R;
#pragma unroll
            for (int i = threadIdx.x; i < OUTER_STEP * R; i += OUTER_THREADS) {
                const int row = i / R;
                // two warps have the rows of a quarter
                const float* q = quarters + i;
                if (at + row < to) out[i] = (q[0] + q[32 * R]) + (q[64 * R] + q[96 * R]);
            }
        }
    }
    wait_for_copies<0>();
    parts += (long long)blockIdx.y * columns * R;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < R / 8; ++j) write_sums(parts, R, first + 32 * warp + 16 * i, columns, 8 * j, sums[i][j]);
}

// out += Σ parts (columns × r each): rows of the stacked outputs are columns of the parts, or where `plain` is set the one
// output is (columns × width). An output that is null is left out.
KERNEL(low_rank_add, const float* parts, int splits, int columns, int r, int width, int plain,
       STACK_PARAMETERS(float)) {
    const long long i = element() / LANES;
    const int lane = threadIdx.x % LANES, c = (int)(i % columns), group = (int)(i / columns) * 8;
    const Stack<float> out = STACK(float);
    out.find(group, [&](float* to, int place, int wide) {
        float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        const bool wanted = to != nullptr && group < width;
        if (wanted) sum_of_parts(sum, parts + (long long)c * r + group, splits, lane, (long long)columns * r);
        across_lanes(sum);
        // a lane writes two
#pragma unroll
        for (int e = 0; e < 8; ++e)
            if (wanted && e / 2 == lane) {
                float* at = to + (plain ? (long long)c * wide + place + e : (long long)(place + e) * columns + c);
                *at += sum[e];
            }
    });
}

// y (t × n) = base + h·w, without base where it is null; h: (t × r), rows `pitch` apart. w: stacked rows of n, or with
// TRANSPOSED stacked columns of the transpose. A block has 128 × 128 outputs, a warp 32 × 64.
#define UP_THREADS 256
#define UP_TILE 128

template <int R, bool TRANSPOSED>
__device__ void low_rank_up(const bf16* h, int pitch, int r, const bf16* base, bf16* y, int t, int n, Stack<const bf16> w) {
    constexpr int HP = R + 8, WP = TRANSPOSED ? R + 8 : UP_TILE + 8, YP = UP_TILE + 8;
    SHARED(bf16, memory);
    bf16* factors = memory + UP_TILE * HP;
    const int first = blockIdx.y * UP_TILE, column = blockIdx.x * UP_TILE, warp = threadIdx.x / 32;
    copy_tile<UP_THREADS>(memory, HP, h, pitch, UP_TILE, R, first, 0, t, r);
    if (TRANSPOSED)
        for (int i = threadIdx.x; i < UP_TILE * (R / 8); i += UP_THREADS) {
            const int row = i / (R / 8), c = i % (R / 8) * 8;
            w.find(c, [&](const bf16* factor, int place, int width) {
                const bool inside = factor != nullptr && column + row < n;
                copy_async<16>(factors + row * WP + c, inside ? factor + (long long)(column + row) * width + place : h, inside);
            });
        }
    else
        for (int i = threadIdx.x; i < R * (UP_TILE / 8); i += UP_THREADS) {
            const int row = i / (UP_TILE / 8), c = i % (UP_TILE / 8) * 8;
            w.find(row, [&](const bf16* factor, int place, int) {
                const bool inside = factor != nullptr && column + c < n;
                copy_async<16>(factors + row * WP + c, inside ? factor + (long long)place * n + column + c : h, inside);
            });
        }
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
    const int row = warp / 2 * 32, part = warp % 2 * 64;
    float sums[2][8][4];
    clear_sums(sums);
#pragma unroll
    for (int k = 0; k < R; k += 16) {
        unsigned a[2][4];
        left<false>(a[0], memory + row * HP + k, HP);
        left<false>(a[1], memory + (row + 16) * HP + k, HP);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            unsigned b[4];
            if (TRANSPOSED)
                right<true>(b, factors + (part + 16 * j) * WP + k, WP);
            else
                right<false>(b, factors + k * WP + part + 16 * j, WP);
            mma_pair(sums[0][2 * j], sums[0][2 * j + 1], a[0], b);
            mma_pair(sums[1][2 * j], sums[1][2 * j + 1], a[1], b);
        }
    }
    __syncthreads();
    // through shared memory, so that whole rows are written
    const int g = threadIdx.x % 32 / 4, lane = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e)
                *(unsigned*)(memory + (row + 16 * i + g + 8 * e) * YP + part + 8 * j + 2 * lane) =
                    pack(sums[i][j][2 * e], sums[i][j][2 * e + 1]);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < UP_TILE * UP_TILE / 8 / UP_THREADS; ++i) {
        const int at = threadIdx.x + i * UP_THREADS, line = at / (UP_TILE / 8), c = at % (UP_TILE / 8) * 8;
        if (first + line >= t || column + c >= n) continue;
        const long long to = (long long)(first + line) * n + column + c;
        float v[8];
        load(v, memory + line * YP + c, 8, true);
        if (base) {
            float before[8];
            load(before, base + to, 8, true);
#pragma unroll
            for (int e = 0; e < 8; ++e) v[e] += before[e];
        }
        store(y + to, v, 8, true);
    }
}

#define LOW_RANK_OF(kernel, threads, parameters, ...)                        \
    LINKAGE void __launch_bounds__(threads) kernel parameters { __VA_ARGS__; } \
    REGISTER(kernel)
#define LOW_RANK(R)                                                                                                     \
    LOW_RANK_OF(low_rank_down_##R, DOWN_THREADS,                                                                        \
                (const bf16* x, int pitch, float* parts, int t, int k, int span, STACK_PARAMETERS(const bf16)),         \
                low_rank_down<R>(x, pitch, parts, t, k, span, STACK(const bf16)))                                       \
    LOW_RANK_OF(low_rank_outer_##R, OUTER_THREADS,                                                                      \
                (const bf16* x, const bf16* g, int pitch, int r, float* parts, int t, int columns, int span),           \
                low_rank_outer<R, false>(x, g, pitch, r, parts, nullptr, t, columns, span, Stack<const bf16>()))        \
    LOW_RANK_OF(low_rank_up_##R, UP_THREADS,                                                                            \
                (const bf16* h, int pitch, int r, const bf16* base, bf16* y, int t, int n,                              \
                 STACK_PARAMETERS(const bf16)),                                                                         \
                low_rank_up<R, false>(h, pitch, r, base, y, t, n, STACK(const bf16)))
// what a single layer has, whose rank is at most 64
#define LOW_RANK_OF_LAYER(R)                                                                                            \
    LOW_RANK(R)                                                                                                         \
    LOW_RANK_OF(low_rank_both_##R, OUTER_THREADS,                                                                       \
                (const bf16* x, const bf16* g, int pitch, int r, float* parts, float* projected, int t, int columns,    \
                 int span, STACK_PARAMETERS(const bf16)),                                                               \
                low_rank_outer<R, true>(x, g, pitch, r, parts, projected, t, columns, span, STACK(const bf16)))         \
    LOW_RANK_OF(low_rank_up_t_##R, UP_THREADS,                                                                          \
                (const bf16* h, int pitch, int r, const bf16* base, bf16* y, int t, int n,                              \
                 STACK_PARAMETERS(const bf16)),                                                                         \
                low_rank_up<R, true>(h, pitch, r, base, y, t, n, STACK(const bf16)))

LOW_RANK_OF_LAYER(16)
LOW_RANK_OF_LAYER(32)
LOW_RANK_OF_LAYER(48)
LOW_RANK_OF_LAYER(64)
LOW_RANK(96)
LOW_RANK(128)
