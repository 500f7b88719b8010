// The kernels as C++, behind one function.
#include <algorithm>
using std::max;
using std::min;
#include "all.cu"

// Runs a kernel. `kinds` says what the caller passes, a letter for each argument. 0: done, 1: no such kernel, 2: it takes
// other arguments.
extern "C" int loram_emulated_launch(const char* name, unsigned x, unsigned y, unsigned threads, unsigned bytes,
                                     void** arguments, const char* kinds) {
    using namespace emulation;
    auto found = kernels().find(name);
    if (found == kernels().end()) return 1;
    if (found->second.kinds != kinds) return 2;
    kernel = name;
    body = [&] { found->second.call(arguments); };
    blockDim = {threads, 1, 1};
    gridDim = {x, y, 1};
    for (unsigned j = 0; j < y; ++j)
        for (unsigned i = 0; i < x; ++i) {
            blockIdx = {i, j, 0};
            run_block(threads, bytes);
        }
    backwards = !backwards;
    return 0;
}
