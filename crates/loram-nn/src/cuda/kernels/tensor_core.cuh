// Warps at tensor cores: products of tiles of 16 × 8 × 16, their operands out of shared memory, and copies into it that
// go on while a block computes. The layouts are those of PTX's mma.m16n8k16, ldmatrix and cp.async.
#pragma once
#include "portable.cuh"

#ifdef __CUDACC__
// c += a·b: a is 16 × 16, b is 16 × 8, c is 16 × 8 in f32. Lane 4g + t has elements (g, 2t..2t+2) and (g + 8, 2t..2t+2) of c.
__device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices of 8 × 8: lane 8i + j gives row j of matrix i, lane 4g + t gets elements (g, 2t..2t+2) of each, or of
// its transpose.
template <bool TRANSPOSED> __device__ __forceinline__ void load_matrices(unsigned (&r)[4], const bf16* row) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
}

// BYTES (4 or 16) from global to shared memory, or zeros; done when a wait for its group returns.
template <int BYTES> __device__ __forceinline__ void copy_async(void* to, const void* from, bool inside) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(to);
    const int bytes = inside ? BYTES : 0;
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}

// Ends a group of copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for all groups of this thread but the last GROUPS.
template <int GROUPS> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

// 2^x, to about 2 units in the last place.
__device__ __forceinline__ float power_of_2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two numbers in bf16, the first in the low half.
__device__ __forceinline__ unsigned pack(float a, float b) {
    unsigned y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(b), "f"(a));
    return y;
}
#endif
