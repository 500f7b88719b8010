// Short convolutions over the tokens between two gates; rows of the projection are (b, c, x), each `width` wide.
#include "portable.cuh"

// u = b ⊙ x
template <typename T> __device__ void gate_input(const T* bcx, T* u, int width, long long n) {
    const long long i = element();
    if (i >= n) return;
    const long long at = i / width * 3 * width + i % width;
    put(u + i, wide(bcx[at]) * wide(bcx[at + 2 * width]));
}
BOTH(gate_input, (const T* bcx, T* u, int width, long long n), (bcx, u, width, n))

// The convolution at one channel c of row t of u.
template <typename T>
__device__ float convolved(const T* u, const float* factors, const float* bias, long long t, unsigned position, int c, int width,
                           int length) {
    float sum = bias ? bias[c] : 0.0f;
    for (int j = 0; j < length && j <= (int)position; ++j) sum = fmaf(wide(u[(t - j) * width + c]), factors[j * width + c], sum);
    return sum;
}

// y = c ⊙ conv(u) for the rows from `first` on of u
template <typename T>
__device__ void short_convolution(const T* bcx, const T* u, const float* factors, const float* bias, const unsigned* positions, T* y,
                                  int first, int width, int length, long long n) {
    const long long i = element();
    if (i >= n) return;
    const long long t = i / width;
    const int c = (int)(i % width);
    put(y + i, convolved(u, factors, bias, first + t, positions[t], c, width, length) * wide(bcx[t * 3 * width + width + c]));
}
BOTH(short_convolution,
     (const T* bcx, const T* u, const float* factors, const float* bias, const unsigned* positions, T* y, int first, int width, int length,
      long long n),
     (bcx, u, factors, bias, positions, y, first, width, length, n))

// The gradient of bcx, over whole sequences.
template <typename T>
__device__ void short_convolution_backward(const T* bcx, const T* u, const float* factors, const float* bias, const unsigned* positions,
                                           const T* dy, T* out, int width, int length, int rows, long long n) {
    const long long i = element();
    if (i >= n) return;
    const long long t = i / width;
    const int c = (int)(i % width);
    const long long at = t * 3 * width + c;
    float du = 0.0f;
    for (int j = 0; j < length; ++j) {
        // the token that sees this one as the j-th before
        const long long later = t + j;
        if (later >= rows || positions[later] != positions[t] + j) break;
        du = fmaf(wide(dy[later * width + c]) * wide(bcx[(3 * later + 1) * width + c]), factors[j * width + c], du);
    }
    put(out + at, du * wide(bcx[at + 2 * width]));
    put(out + at + width, convolved(u, factors, bias, t, positions[t], c, width, length) * wide(dy[i]));
    put(out + at + 2 * width, du * wide(bcx[at]));
}
BOTH(short_convolution_backward,
     (const T* bcx, const T* u, const float* factors, const float* bias, const unsigned* positions, const T* dy, T* out, int width,
      int length, int rows, long long n),
     (bcx, u, factors, bias, positions, dy, out, width, length, rows, n))
