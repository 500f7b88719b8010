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

inline float __expf(float x) { return expf(x); }
inline float __fdividef(float x, float y) { return x / y; }

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

// a copy into shared memory that goes on beside the thread
struct Copy {
    void* to;
    const void* from;
    size_t bytes;
    bool inside;
    void done() const { inside ? memcpy(to, from, bytes) : memset(to, 0, bytes); }
};
// groups of copies that a thread has not waited for; copies happen at the latest or at the earliest moment, by turns
static std::vector<std::vector<Copy>> pending[1024];

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
    for (unsigned i = 0; i < threads; ++i) {
        fibers[i]->state = State::Ready;
        pending[i].clear();
    }
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

// tensor_core.cuh: lanes lay down what they give, and each takes its own part of the result.
namespace emulation {
static uint32_t given[1024][6];
static const __nv_bfloat16* rows[1024];

// the half of a register as a number
inline float half(uint32_t pair, int upper) { return __bfloat162float({uint16_t(pair >> 16 * upper)}); }
}  // namespace emulation

inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    using namespace emulation;
    uint32_t* mine = given[threadIdx.x];
    for (int i = 0; i < 4; ++i) mine[i] = a[i];
    mine[4] = b0;
    mine[5] = b1;
    __syncwarp();
    const unsigned warp = threadIdx.x / 32 * 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int e = 0; e < 4; ++e) {
        const unsigned row = g + 8 * (e / 2), column = 2 * t + e % 2;
        for (unsigned k = 0; k < 16; ++k) {
            const unsigned lane = k % 8 / 2;
            const float x = half(given[warp + 4 * (row % 8) + lane][row / 8 + 2 * (k / 8)], k % 2);
            c[e] = fmaf(x, half(given[warp + 4 * column + lane][4 + k / 8], k % 2), c[e]);
        }
    }
    __syncwarp();
}

template <bool TRANSPOSED> void load_matrices(unsigned (&r)[4], const __nv_bfloat16* row) {
    using namespace emulation;
    if (reinterpret_cast<uintptr_t>(row) % 16) fail("a row of a matrix is not aligned");
    rows[threadIdx.x] = row;
    __syncwarp();
    const unsigned warp = threadIdx.x / 32 * 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (unsigned i = 0; i < 4; ++i) {
        uint16_t pair[2];
        for (unsigned e = 0; e < 2; ++e)
            pair[e] = TRANSPOSED ? rows[warp + 8 * i + 2 * t + e][g].bits : rows[warp + 8 * i + g][2 * t + e].bits;
        r[i] = uint32_t(pair[1]) << 16 | pair[0];
    }
    __syncwarp();
}

template <int BYTES> void copy_async(void* to, const void* from, bool inside) {
    using namespace emulation;
    if (reinterpret_cast<uintptr_t>(to) % BYTES || reinterpret_cast<uintptr_t>(from) % BYTES) fail("a copy is not aligned");
    auto& groups = pending[threadIdx.x];
    if (groups.empty()) groups.emplace_back();
    const Copy copy = {to, from, BYTES, inside};
    if (backwards)
        copy.done();
    else
        groups.back().push_back(copy);
}

inline void commit_copies() {
    auto& groups = emulation::pending[threadIdx.x];
    if (groups.empty()) groups.emplace_back();
    groups.emplace_back();
}

// the last group is the one that is not committed yet
template <int GROUPS> void wait_for_copies() {
    auto& groups = emulation::pending[threadIdx.x];
    while (groups.size() > GROUPS + 1) {
        for (const auto& copy : groups.front()) copy.done();
        groups.erase(groups.begin());
    }
}

inline float power_of_2(float x) { return exp2f(x); }

inline unsigned pack(float a, float b) {
    return uint32_t(__float2bfloat16(b).bits) << 16 | __float2bfloat16(a).bits;
}
