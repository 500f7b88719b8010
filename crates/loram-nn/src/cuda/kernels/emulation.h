// CUDA C on a CPU, for tests: every thread of a block is a fiber, blocks run one after another. It is strict where a GPU
// is lenient: a barrier that not all threads reach, a write beyond the shared memory that was asked for, or an argument
// of another type than the kernel's ends the program, and shared memory starts as NaN.
#pragma once
#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
};
static dim3 blockIdx, threadIdx, blockDim, gridDim;

// bfloat16: the upper half of a float, rounded to even
struct __nv_bfloat16 {
    uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x) {
    uint32_t wide = uint32_t(x.bits) << 16;
    float y;
    memcpy(&y, &wide, 4);
    return y;
}

inline __nv_bfloat16 __float2bfloat16(float x) {
    uint32_t wide;
    memcpy(&wide, &x, 4);
    if (x != x) return {uint16_t(wide >> 16 | 64)};
    return {uint16_t((wide + 0x7fff + (wide >> 16 & 1)) >> 16)};
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

namespace emulation {

enum class State { Ready, Block, Warp, Done };

struct Fiber {
    jmp_buf at;
    ucontext_t start;
    std::vector<char> stack;
    bool begun = false;
    State state = State::Done;
    unsigned id = 0;
};

static std::vector<Fiber*> fibers;
static Fiber* current;
static jmp_buf scheduler;
static std::function<void()> body;
static const char* kernel;
static std::vector<float> shuffled(1024);
static std::vector<uint64_t> memory;
static char* shared;
// every second launch runs the threads backwards: a missing barrier gives other numbers then
static bool backwards;

[[noreturn]] inline void fail(const char* what) {
    fprintf(stderr, "kernel %s, block (%u, %u): %s\n", kernel, blockIdx.x, blockIdx.y, what);
    abort();
}

inline void pause(State state) {
    current->state = state;
    if (!_setjmp(current->at)) _longjmp(scheduler, 1);
}

inline void run_fiber() {
    for (;;) {
        body();
        pause(State::Done);
    }
}

inline void resume(Fiber& fiber) {
    current = &fiber;
    threadIdx = {fiber.id, 0, 0};
    if (_setjmp(scheduler)) return;
    if (fiber.begun) _longjmp(fiber.at, 1);
    fiber.begun = true;
    fiber.stack.resize(64 * 1024);
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.data();
    fiber.start.uc_stack.ss_size = fiber.stack.size();
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_fiber, 0);
    setcontext(&fiber.start);
}

// lets go the fibers from..to when all that still run wait for the same barrier
inline bool release(unsigned from, unsigned to, State barrier) {
    bool any = false;
    for (unsigned i = from; i < to; ++i) {
        if (fibers[i]->state == State::Done) continue;
        if (fibers[i]->state != barrier) return false;
        any = true;
    }
    for (unsigned i = from; any && i < to; ++i)
        if (fibers[i]->state == barrier) fibers[i]->state = State::Ready;
    return any;
}

inline void run_block(unsigned threads, unsigned bytes) {
    const uint64_t nan = 0xffffffffffffffff, guard = 0x5ca1ab1e5ca1ab1e;
    const size_t words = (bytes + 7) / 8;
    memory.assign(words + 64 + 16, nan);
    // as aligned as shared memory has to be for tiles
    shared = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory.data()) + 127) / 128 * 128);
    uint64_t* end = reinterpret_cast<uint64_t*>(shared) + words;
    for (int i = 0; i < 32; ++i) end[i] = guard;
    while (fibers.size() < threads) {
        fibers.push_back(new Fiber);
        fibers.back()->id = unsigned(fibers.size() - 1);
    }
    for (unsigned i = 0; i < threads; ++i) fibers[i]->state = State::Ready;
    for (;;) {
        bool live = false;
        for (unsigned i = 0; i < threads; ++i) {
            Fiber& fiber = *fibers[backwards ? threads - 1 - i : i];
            if (fiber.state == State::Ready) resume(fiber);
        }
        bool released = false;
        for (unsigned w = 0; w < threads; w += 32) released |= release(w, std::min(w + 32, threads), State::Warp);
        if (!released) released = release(0, threads, State::Block);
        for (unsigned i = 0; i < threads; ++i) live |= fibers[i]->state != State::Done;
        if (!live) break;
        if (!released) fail("not all threads reach the same barrier");
    }
    for (int i = 0; i < 32; ++i)
        if (end[i] != guard) fail("wrote beyond its shared memory");
}

template <typename A> char kind() {
    if (std::is_pointer<A>::value) return 'p';
    if (std::is_same<A, int>::value) return 'i';
    if (std::is_same<A, unsigned>::value) return 'u';
    if (std::is_same<A, long long>::value) return 'l';
    if (std::is_same<A, unsigned long long>::value) return 'U';
    if (std::is_same<A, float>::value) return 'f';
    return '?';
}

struct Kernel {
    std::string kinds;
    std::function<void(void**)> call;
};

inline std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

template <typename... A, size_t... I> void call(void (*f)(A...), void** args, std::index_sequence<I...>) {
    f(*static_cast<A*>(args[I])...);
}

struct Registered {
    template <typename... A> Registered(const char* name, void (*f)(A...)) {
        kernels()[name] = {{kind<A>()...}, [f](void** args) { call(f, args, std::index_sequence_for<A...>()); }};
    }
};

}  // namespace emulation

inline void __syncthreads() { emulation::pause(emulation::State::Block); }
inline void __syncwarp() { emulation::pause(emulation::State::Warp); }

inline float __shfl_xor_sync(unsigned, float x, int lanes) {
    emulation::shuffled[threadIdx.x] = x;
    __syncwarp();
    float y = emulation::shuffled[threadIdx.x ^ unsigned(lanes)];
    __syncwarp();
    return y;
}

// Tiles of 16 × 16 × 16 on tensor cores: here the first lane of a warp has the whole tile, the others nothing.
namespace nvcuda {
namespace wmma {
struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major };

template <typename Use, int M, int N, int K, typename T, typename Layout = void> struct fragment {
    float x[256];
};

inline bool first() { return threadIdx.x % 32 == 0; }

template <typename Use, typename T, typename Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout>& f, const T* from, unsigned ld) {
    if (reinterpret_cast<uintptr_t>(from) % 32 || ld * sizeof(T) % 16) emulation::fail("a tile is not aligned");
    for (int i = 0; first() && i < 16; ++i)
        for (int j = 0; j < 16; ++j)
            f.x[16 * i + j] = __bfloat162float(std::is_same<Layout, row_major>::value ? from[i * ld + j] : from[j * ld + i]);
}

inline void load_matrix_sync(fragment<accumulator, 16, 16, 16, float>& f, const float* from, unsigned ld, layout_t) {
    for (int i = 0; first() && i < 16; ++i)
        for (int j = 0; j < 16; ++j) f.x[16 * i + j] = from[i * ld + j];
}

inline void store_matrix_sync(float* to, const fragment<accumulator, 16, 16, 16, float>& f, unsigned ld, layout_t) {
    if (reinterpret_cast<uintptr_t>(to) % 32 || ld % 4) emulation::fail("a tile is not aligned");
    for (int i = 0; first() && i < 16; ++i)
        for (int j = 0; j < 16; ++j) to[i * ld + j] = f.x[16 * i + j];
}

inline void fill_fragment(fragment<accumulator, 16, 16, 16, float>& f, float x) {
    for (int i = 0; first() && i < 256; ++i) f.x[i] = x;
}

template <typename C, typename A, typename B> void mma_sync(C& d, const A& a, const B& b, const C& c) {
    for (int i = 0; first() && i < 16; ++i)
        for (int j = 0; j < 16; ++j) {
            float sum = c.x[16 * i + j];
            for (int k = 0; k < 16; ++k) sum = fmaf(a.x[16 * i + k], b.x[16 * k + j], sum);
            d.x[16 * i + j] = sum;
        }
}
}  // namespace wmma
}  // namespace nvcuda
