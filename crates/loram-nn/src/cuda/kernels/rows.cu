// Rows by number: embeddings, the positions that count, and gradients into them.
#include "portable.cuh"

// Row ids[i] of the table in row i of y; added where asked.
template <typename S, typename T>
__device__ void gather(const S* table, const unsigned* ids, T* y, int accumulate, int cols) {
    const long long from = (long long)ids[blockIdx.x] * cols, to = (long long)blockIdx.x * cols;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) put_or_add(y + to + j, wide(table[from + j]), accumulate);
}

KERNEL(gather_f32, const float* table, const unsigned* ids, float* y, int accumulate, int cols) {
    gather(table, ids, y, accumulate, cols);
}
KERNEL(gather_bf16, const bf16* table, const unsigned* ids, bf16* y, int accumulate, int cols) {
    gather(table, ids, y, accumulate, cols);
}
// out of a trained table, which is f32
KERNEL(gather_f32_bf16, const float* table, const unsigned* ids, bf16* y, int accumulate, int cols) {
    gather(table, ids, y, accumulate, cols);
}

// Row ids[i] of y += row i of x; no number twice.
template <typename T> __device__ void add_rows(T* y, const unsigned* ids, const T* x, int cols) {
    const long long to = (long long)ids[blockIdx.x] * cols, from = (long long)blockIdx.x * cols;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) put(y + to + j, wide(y[to + j]) + wide(x[from + j]));
}
BOTH(add_rows, (T* y, const unsigned* ids, const T* x, int cols), (y, ids, x, cols))

// Columns ids of x (rows, cols) into y (rows, k).
template <typename T> __device__ void gather_columns(const T* x, const unsigned* ids, T* y, int cols, int k) {
    const long long from = (long long)blockIdx.x * cols, to = (long long)blockIdx.x * k;
    for (int j = threadIdx.x; j < k; j += blockDim.x) put(y + to + j, wide(x[from + ids[j]]));
}
BOTH(gather_columns, (const T* x, const unsigned* ids, T* y, int cols, int k), (x, ids, y, cols, k))

// Columns ids of y (rows, cols) += the columns of x (rows, k); no number twice.
template <typename T> __device__ void add_columns(T* y, const unsigned* ids, const T* x, int cols, int k) {
    const long long to = (long long)blockIdx.x * cols, from = (long long)blockIdx.x * k;
    for (int j = threadIdx.x; j < k; j += blockDim.x) put(y + to + ids[j], wide(y[to + ids[j]]) + wide(x[from + j]));
}
BOTH(add_columns, (T* y, const unsigned* ids, const T* x, int cols, int k), (y, ids, x, cols, k))

// `width` columns of x (rows, x_cols) from `from` on into those of y (rows, y_cols) from `to` on.
template <typename T> __device__ void copy_columns(const T* x, int x_cols, int from, T* y, int y_cols, int to, int width) {
    const long long source = (long long)blockIdx.x * x_cols + from, target = (long long)blockIdx.x * y_cols + to;
    for (int j = threadIdx.x; j < width; j += blockDim.x) y[target + j] = x[source + j];
}
BOTH(copy_columns, (const T* x, int x_cols, int from, T* y, int y_cols, int to, int width),
     (x, x_cols, from, y, y_cols, to, width))

// Row s of y is the mean of the rows of sequence s of x, which end before ends[s].
template <typename T> __device__ void mean_rows(const T* x, const unsigned* ends, T* y, int cols) {
    const unsigned s = blockIdx.x, from = s == 0 ? 0 : ends[s - 1], to = ends[s];
    const float share = to > from ? 1.0f / (float)(to - from) : 0.0f;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) {
        float sum = 0.0f;
        for (unsigned i = from; i < to; ++i) sum += wide(x[(long long)i * cols + j]);
        put(y + (long long)s * cols + j, sum * share);
    }
}
BOTH(mean_rows, (const T* x, const unsigned* ends, T* y, int cols), (x, ends, y, cols))

// The rows of sequence s of dx are row s of dy, divided by their number.
template <typename T> __device__ void mean_rows_backward(const T* dy, const unsigned* ends, T* dx, int cols) {
    const unsigned s = blockIdx.x, from = s == 0 ? 0 : ends[s - 1], to = ends[s];
    const float share = to > from ? 1.0f / (float)(to - from) : 0.0f;
    for (int j = threadIdx.x; j < cols; j += blockDim.x) {
        const float d = wide(dy[(long long)s * cols + j]) * share;
        for (unsigned i = from; i < to; ++i) put(dx + (long long)i * cols + j, d);
    }
}
BOTH(mean_rows_backward, (const T* dy, const unsigned* ends, T* dx, int cols), (dy, ends, dx, cols))

// dtable[ids[i]] += row i of dy, rows in order, a thread for each column: numbers may come twice.
template <typename T> __device__ void scatter_add(const T* dy, const unsigned* ids, float* dtable, int n, int cols) {
    const long long col = element();
    if (col >= cols) return;
    for (int i = 0; i < n; ++i) dtable[(long long)ids[i] * cols + col] += wide(dy[(long long)i * cols + col]);
}
BOTH(scatter_add, (const T* dy, const unsigned* ids, float* dtable, int n, int cols), (dy, ids, dtable, n, cols))
