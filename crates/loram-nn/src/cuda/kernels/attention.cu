// Scaled dot-product attention over concatenated sequences, tiled so that no length × length matrix ever
// exists (arXiv:2205.14135, 2307.08691): grouped key heads, causal or not, sliding windows, dropout on the weights.
// For numbers in f32, heads of any width and soft-capped scores; attention_bf16.cu has the usual ones on tensor cores.
//
// A block works on one tile of queries (or keys) of one head. Tiles and sums lie in shared memory, rows of a tile one
// group of elements apart.
#include "attention.cuh"

#define TILE 32
#define PITCH (TILE + 4)  // of a tile of f32 scores
#define GROUP (THREADS / TILE)  // threads to a row of scores

// Width of a head in whole tensor core tiles, and the distances of rows in shared memory.
__device__ __forceinline__ int padded(int d) { return (d + 15) / 16 * 16; }
__device__ __forceinline__ int pitch(int d) { return padded(d) + 8; }
__device__ __forceinline__ int sum_pitch(int d) { return padded(d) + 4; }

// Rows first..first + TILE of one head, 0 beyond row `n` and column d.
template <typename T>
__device__ void load_tile(const T* from, long long stride, int first, int n, int d, T* to) {
    const int lane = threadIdx.x % 32, ld = pitch(d), wide_d = padded(d);
    for (int i = threadIdx.x / 32; i < TILE; i += THREADS / 32)
        for (int c = lane; c < wide_d; c += 32) {
            if (first + i < n && c < d)
                to[i * ld + c] = from[(first + i) * stride + c];
            else
                put(to + i * ld + c, 0.0f);
        }
}

// c (TILE × n) = (accumulate ? c : 0) + a·b over k. `a` is (TILE × k), stored transposed with TA; b is (k × n), stored
// transposed with TB. All threads of the block take part; a barrier must follow.
template <bool TA, bool TB, typename T>
__device__ void product(const T* a, int lda, const T* b, int ldb, float* c, int ldc, int n, int k, bool accumulate) {
    for (int at = threadIdx.x; at < TILE * n; at += THREADS) {
        const int i = at / n, j = at % n;
        float sum = accumulate ? c[i * ldc + j] : 0.0f;
        for (int p = 0; p < k; ++p)
            sum = fmaf(wide(TA ? a[p * lda + i] : a[i * lda + p]), wide(TB ? b[j * ldb + p] : b[p * ldb + j]), sum);
        c[i * ldc + j] = sum;
    }
}

// Sum or maximum over the threads that share a row of scores.
__device__ __forceinline__ float row_sum(float x) {
    for (int lanes = GROUP / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}
__device__ __forceinline__ float row_max(float x) {
    for (int lanes = GROUP / 2; lanes > 0; lanes /= 2) x = larger(x, __shfl_xor_sync(0xffffffffu, x, lanes));
    return x;
}

// Grid: (tiles of queries, heads). tiles[3i..] = first token of the sequence, its length, first query of the tile in it.
// Shared memory: q, k, v and weights in T, scores and sums in f32.
template <typename T>
__device__ void attention_forward(const T* q, const T* k, const T* v, T* o, float* lse, const unsigned* tiles, Shape s) {
    SHARED(T, qt);
    const int d = s.d, ld = pitch(d), lo = sum_pitch(d), wide_d = padded(d);
    T *kt = qt + TILE * ld, *vt = kt + TILE * ld, *pt = vt + TILE * ld;
    float *scores = (float*)(pt + TILE * (TILE + 8)), *sums = scores + TILE * PITCH;
    const int start = tiles[3 * blockIdx.x], n = tiles[3 * blockIdx.x + 1], first = tiles[3 * blockIdx.x + 2];
    const int head = blockIdx.y, kv_head = head / (s.heads / s.kv_heads);
    const long long qs = (long long)s.heads * d, ks = (long long)s.kv_heads * d;
    const int row = threadIdx.x / GROUP, part = threadIdx.x % GROUP, query = first + row;
    const Keys keys = mask_keys(s, start + query, head);

    load_tile(q + start * qs + head * d, qs, first, n, d, qt);
    for (int c = part; c < wide_d; c += GROUP) sums[row * lo + c] = 0.0f;
    float top = -INFINITY, total = 0.0f;
    const Range seen = keys_of(s, first, min(first + TILE, n), n, TILE);
    for (int at = seen.from; at < seen.to; at += TILE) {
        load_tile(k + start * ks + kv_head * d, ks, at, n, d, kt);
        load_tile(v + start * ks + kv_head * d, ks, at, n, d, vt);
        __syncthreads();
        product<false, true>(qt, ld, kt, ld, scores, PITCH, TILE, wide_d, false);
        __syncthreads();
        float new_top = top;
        for (int j = part; j < TILE; j += GROUP) {
            float* x = scores + row * PITCH + j;
            *x = at + j < n && sees(s, query, at + j) ? score_of(s, *x) : -INFINITY;
            new_top = larger(*x, new_top);
        }
        new_top = row_max(new_top);
        const float factor = expf(top - finite(new_top));
        float sum = 0.0f;
        for (int j = part; j < TILE; j += GROUP) {
            const float p = expf(scores[row * PITCH + j] - finite(new_top));
            sum += p;
            put(pt + row * (TILE + 8) + j, p * mask(s, keys, at + j));
        }
        total = fmaf(total, factor, row_sum(sum));
        top = new_top;
        for (int c = part; c < wide_d; c += GROUP) sums[row * lo + c] *= factor;
        __syncthreads();
        product<false, false>(pt, TILE + 8, vt, ld, sums, lo, wide_d, TILE, true);
        __syncthreads();
    }
    if (query >= n) return;
    // a query that sees nothing gets 0
    const float share = total == 0.0f ? 0.0f : 1.0f / total;
    T* out = o + (start + query) * qs + head * d;
    for (int c = part; c < d; c += GROUP) put(out + c, sums[row * lo + c] * share);
    if (part == 0) lse[(long long)(start + query) * s.heads + head] = top + logf(total);
}
BOTH(attention_forward,
     (const T* q, const T* k, const T* v, T* o, float* lse, const unsigned* tiles, SHAPE_PARAMETERS),
     (q, k, v, o, lse, tiles, SHAPE))

// delta = Σ d_o·o per token and head, a warp for each.
template <typename T> __device__ void attention_delta(const T* o, const T* d_o, float* delta, int d, long long n) {
    const long long i = element() / 32;
    if (i >= n) return;
    float sum = 0.0f;
    for (int c = threadIdx.x % 32; c < d; c += 32) sum = fmaf(wide(o[i * d + c]), wide(d_o[i * d + c]), sum);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[i] = sum;
}
BOTH(attention_delta, (const T* o, const T* d_o, float* delta, int d, long long n), (o, d_o, delta, d, n))

// Tiles of one step of the backward pass.
template <typename T> struct Tiles {
    T *q, *g, *k, *v, *p, *ds;
    float *scores, *dp, *sums;
};

template <typename T> __device__ Tiles<T> tiles_at(T* memory, int d) {
    const int size = TILE * pitch(d), square = TILE * (TILE + 8);
    T* weights = memory + 4 * size;
    float* scores = (float*)(weights + 2 * square);
    return {memory,  memory + size,    memory + 2 * size, memory + 3 * size,         weights,
            weights + square, scores, scores + TILE * PITCH, scores + 2 * TILE * PITCH};
}

// Weights p = exp(scale·q·kᵀ − lse), with the mask on, and ds = scale·p·(mask·(g·vᵀ) − delta) of a tile of queries × keys.
template <typename T>
__device__ void score_gradients(const Tiles<T>& t, const float* lse, const float* delta, int start, int n, int head,
                                int query_tile, int key_tile, const Shape& s) {
    const int ld = pitch(s.d), wide_d = padded(s.d);
    product<false, true>(t.q, ld, t.k, ld, t.scores, PITCH, TILE, wide_d, false);
    product<false, true>(t.g, ld, t.v, ld, t.dp, PITCH, TILE, wide_d, false);
    __syncthreads();
    const int row = threadIdx.x / GROUP, query = query_tile + row;
    const bool inside = query < n;
    const long long at = (long long)(start + (inside ? query : 0)) * s.heads + head;
    const float top = finite(lse[at]), mean = delta[at];
    const Keys keys = mask_keys(s, start + query, head);
    for (int j = threadIdx.x % GROUP; j < TILE; j += GROUP) {
        const int key = key_tile + j;
        const bool seen = inside && key < n && sees(s, query, key);
        const float score = score_of(s, t.scores[row * PITCH + j]), p = seen ? expf(score - top) : 0.0f;
        const float kept = mask(s, keys, key), slope = s.scale * slope_of(s, score);
        put(t.p + row * (TILE + 8) + j, p * kept);
        put(t.ds + row * (TILE + 8) + j, p * (t.dp[row * PITCH + j] * kept - mean) * slope);
    }
    __syncthreads();
}

// Grid as in the forward pass. dq = Σ ds·k.
template <typename T>
__device__ void attention_backward_q(const T* q, const T* k, const T* v, const float* lse, const float* delta, const T* d_o,
                                     T* dq, const unsigned* tiles, Shape s) {
    SHARED(T, memory);
    const Tiles<T> t = tiles_at(memory, s.d);
    const int d = s.d, ld = pitch(d), lo = sum_pitch(d), wide_d = padded(d);
    const int start = tiles[3 * blockIdx.x], n = tiles[3 * blockIdx.x + 1], first = tiles[3 * blockIdx.x + 2];
    const int head = blockIdx.y, kv_head = head / (s.heads / s.kv_heads);
    const long long qs = (long long)s.heads * d, ks = (long long)s.kv_heads * d;
    const int row = threadIdx.x / GROUP, part = threadIdx.x % GROUP;

    load_tile(q + start * qs + head * d, qs, first, n, d, t.q);
    load_tile(d_o + start * qs + head * d, qs, first, n, d, t.g);
    for (int c = part; c < wide_d; c += GROUP) t.sums[row * lo + c] = 0.0f;
    const Range seen = keys_of(s, first, min(first + TILE, n), n, TILE);
    for (int at = seen.from; at < seen.to; at += TILE) {
        load_tile(k + start * ks + kv_head * d, ks, at, n, d, t.k);
        load_tile(v + start * ks + kv_head * d, ks, at, n, d, t.v);
        __syncthreads();
        score_gradients(t, lse, delta, start, n, head, first, at, s);
        product<false, false>(t.ds, TILE + 8, t.k, ld, t.sums, lo, wide_d, TILE, true);
        __syncthreads();
    }
    if (first + row >= n) return;
    T* out = dq + (start + first + row) * qs + head * d;
    for (int c = part; c < d; c += GROUP) put(out + c, t.sums[row * lo + c]);
}
BOTH(attention_backward_q,
     (const T* q, const T* k, const T* v, const float* lse, const float* delta, const T* d_o, T* dq, const unsigned* tiles,
      SHAPE_PARAMETERS),
     (q, k, v, lse, delta, d_o, dq, tiles, SHAPE))

// Grid: (tiles of keys, key heads). dk = Σ dsᵀ·q and dv = Σ pᵀ·g over the queries of all heads that read this one.
template <typename T>
__device__ void attention_backward_kv(const T* q, const T* k, const T* v, const float* lse, const float* delta, const T* d_o,
                                      T* dk, T* dv, const unsigned* tiles, Shape s) {
    SHARED(T, memory);
    const Tiles<T> t = tiles_at(memory, s.d);
    const int d = s.d, ld = pitch(d), lo = sum_pitch(d), wide_d = padded(d);
    float *dk_sum = t.sums, *dv_sum = t.sums + TILE * lo;
    const int start = tiles[3 * blockIdx.x], n = tiles[3 * blockIdx.x + 1], first = tiles[3 * blockIdx.x + 2];
    const int kv_head = blockIdx.y, group = s.heads / s.kv_heads;
    const long long qs = (long long)s.heads * d, ks = (long long)s.kv_heads * d;
    const int row = threadIdx.x / GROUP, part = threadIdx.x % GROUP;

    load_tile(k + start * ks + kv_head * d, ks, first, n, d, t.k);
    load_tile(v + start * ks + kv_head * d, ks, first, n, d, t.v);
    for (int c = part; c < wide_d; c += GROUP) {
        dk_sum[row * lo + c] = 0.0f;
        dv_sum[row * lo + c] = 0.0f;
    }
    const Range seen = queries_of(s, first, min(first + TILE, n), n, TILE);
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
        for (int at = seen.from; at < seen.to; at += TILE) {
            load_tile(q + start * qs + head * d, qs, at, n, d, t.q);
            load_tile(d_o + start * qs + head * d, qs, at, n, d, t.g);
            __syncthreads();
            score_gradients(t, lse, delta, start, n, head, at, first, s);
            product<true, false>(t.p, TILE + 8, t.g, ld, dv_sum, lo, wide_d, TILE, true);
            product<true, false>(t.ds, TILE + 8, t.q, ld, dk_sum, lo, wide_d, TILE, true);
            __syncthreads();
        }
    if (first + row >= n) return;
    const long long out = (start + first + row) * ks + kv_head * d;
    for (int c = part; c < d; c += GROUP) {
        put(dk + out + c, dk_sum[row * lo + c]);
        put(dv + out + c, dv_sum[row * lo + c]);
    }
}
BOTH(attention_backward_kv,
     (const T* q, const T* k, const T* v, const float* lse, const float* delta, const T* d_o, T* dk, T* dv,
      const unsigned* tiles, SHAPE_PARAMETERS),
     (q, k, v, lse, delta, d_o, dk, dv, tiles, SHAPE))

// New queries, the last of a sequence of `n` tokens, against all keys and values so far. Grid: (queries, heads).
template <typename T>
__device__ void attention_cached(const T* q, const T* k, const T* v, T* o, float* lse, int queries, int n, Shape s) {
    SHARED(float, query);
    const int d = s.d, head = blockIdx.y, kv_head = head / (s.heads / s.kv_heads), position = n - queries + blockIdx.x;
    float *sums = query + d, *weights = sums + d;
    const long long qs = (long long)s.heads * d, ks = (long long)s.kv_heads * d, at = blockIdx.x * qs + head * d;
    for (int c = threadIdx.x; c < d; c += THREADS) {
        query[c] = wide(q[at + c]);
        sums[c] = 0.0f;
    }
    __syncthreads();
    float top = -INFINITY, total = 0.0f;
    const Range seen = keys_of(s, position, position + 1, n, 1);
    for (int tile = seen.from; tile < seen.to; tile += THREADS) {
        const int key = tile + threadIdx.x;
        float score = -INFINITY;
        if (key < seen.to && sees(s, position, key)) {
            score = 0.0f;
            for (int c = 0; c < d; ++c) score = fmaf(query[c], wide(k[key * ks + kv_head * d + c]), score);
            score = score_of(s, score);
        }
        const float new_top = larger(block_max(score), top), factor = expf(top - finite(new_top));
        const float p = expf(score - finite(new_top));
        weights[threadIdx.x] = p;
        total = fmaf(total, factor, block_sum(p));
        top = new_top;
        const int count = min(THREADS, seen.to - tile);
        for (int c = threadIdx.x; c < d; c += THREADS) {
            float sum = sums[c] * factor;
            for (int j = 0; j < count; ++j) sum = fmaf(weights[j], wide(v[(tile + j) * ks + kv_head * d + c]), sum);
            sums[c] = sum;
        }
        __syncthreads();
    }
    for (int c = threadIdx.x; c < d; c += THREADS) put(o + at + c, total == 0.0f ? 0.0f : sums[c] / total);
    if (lse && threadIdx.x == 0) lse[(long long)blockIdx.x * s.heads + head] = top + logf(total);
}
BOTH(attention_cached, (const T* q, const T* k, const T* v, T* o, float* lse, int queries, int n, SHAPE_PARAMETERS),
     (q, k, v, o, lse, queries, n, SHAPE))

// A row of o for each token and head, with a further score beside those of its keys, which adds nothing but to the denominator.
template <typename T> __device__ void add_sinks(T* o, float* lse, const float* sinks, int heads, int d) {
    const long long from = (long long)blockIdx.x * d;
    const float sink = sinks[blockIdx.x % heads], before = lse[blockIdx.x], over = sink - before;
    const float share = 1.0f / (1.0f + expf(over));
    for (int c = threadIdx.x; c < d; c += blockDim.x) put(o + from + c, wide(o[from + c]) * share);
    __syncthreads();  // all have read lse
    if (threadIdx.x == 0) lse[blockIdx.x] = over > 0.0f ? sink + log1pf(expf(-over)) : before + log1pf(expf(over));
}
BOTH(add_sinks, (T* o, float* lse, const float* sinks, int heads, int d), (o, lse, sinks, heads, d))
