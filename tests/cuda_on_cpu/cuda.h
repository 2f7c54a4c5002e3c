// What CUDA builds in, for running a kernel's source on the CPU: each thread of a block is a fiber
// with a stack of its own, which gives way where it waits for others. A warp runs until all of its
// threads wait for the block, then the next one; from the first to the last, or from the last to the
// first: so a result that depends on who comes first shows, and a barrier that is missing.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 { unsigned int x, y, z; };
struct uint4 { unsigned int x, y, z, w; };
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static dim3 gridDim, blockDim, blockIdx, threadIdx;

static const int MOST_THREADS = 1024, STACK = 64 * 1024;
static ucontext_t scheduler, fibers[MOST_THREADS];
static char* stacks;
static bool is_done[MOST_THREADS], is_waiting[MOST_THREADS];  // for the block
static float lanes[MOST_THREADS];

static void give_way()
{
    unsigned int self = threadIdx.x;
    swapcontext(&fibers[self], &scheduler);
    threadIdx.x = self;
}

static void __syncthreads()
{
    is_waiting[threadIdx.x] = true;
    give_way();
}

static float __shfl_xor_sync(unsigned int, float value, int distance)
{
    lanes[threadIdx.x] = value;
    give_way();
    float other = lanes[threadIdx.x ^ distance];
    give_way();
    return other;
}

static inline unsigned int __float_as_uint(float value)
{
    unsigned int bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline float __uint_as_float(unsigned int bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline float half_to_float(unsigned short bits)
{
    int exponent = (bits >> 10) & 31, fraction = bits & 1023;
    float size = exponent == 31 ? (fraction ? NAN : INFINITY)
               : exponent == 0  ? std::ldexp((float)fraction, -24)
                                : std::ldexp((float)(fraction + 1024), exponent - 25);
    return bits & 0x8000 ? -size : size;
}

static inline unsigned short float_to_half(float value)  // to nearest, ties to even
{
    unsigned short sign = __float_as_uint(value) >> 31 << 15;
    float size = std::fabs(value);
    if (size != size) return sign | 0x7e00;
    if (size >= 65520.0f) return sign | 0x7c00;
    int exponent = size < 6.103515625e-05f ? -14 : std::ilogb(size);
    // The unit in the last place is 2^(exponent - 10); a carry runs over into the exponent.
    int units = (int)std::nearbyint(std::ldexp(size, 10 - exponent));
    return sign | (unsigned short)(units + (exponent + 14) * 1024);
}

template <typename Kernel> struct Launch;
template <typename... A> struct Launch<void (*)(A...)> {
    static void (*kernel)(A...);
    static void** arguments;

    template <std::size_t... I> static void call(std::index_sequence<I...>)
    {
        kernel(*static_cast<std::remove_const_t<A>*>(arguments[I])...);
    }

    static void run_thread()
    {
        unsigned int self = threadIdx.x;
        call(std::index_sequence_for<A...>());
        is_done[self] = true;
        swapcontext(&fibers[self], &scheduler);  // for good
    }

    static void run_block(bool is_reversed)
    {
        for (unsigned int i = 0; i < blockDim.x; ++i) {
            is_done[i] = false;
            getcontext(&fibers[i]);
            fibers[i].uc_stack.ss_sp = stacks + (std::size_t)i * STACK;
            fibers[i].uc_stack.ss_size = STACK;
            makecontext(&fibers[i], run_thread, 0);
        }
        unsigned int warps = blockDim.x / 32;
        for (bool goes_on = true; goes_on;) {
            goes_on = false;
            for (unsigned int turn = 0; turn < warps; ++turn)
                goes_on |= run_warp(is_reversed ? warps - 1 - turn : turn, is_reversed);
            memset(is_waiting, 0, sizeof is_waiting);
        }
    }

    // Until each of its threads is done or waits for the block; tells whether one waits.
    static bool run_warp(unsigned int warp, bool is_reversed)
    {
        bool waits = false;
        for (bool goes_on = true; goes_on;) {
            goes_on = waits = false;
            for (unsigned int turn = 0; turn < 32; ++turn) {
                unsigned int i = 32 * warp + (is_reversed ? 31 - turn : turn);
                if (!is_done[i] && !is_waiting[i]) {
                    threadIdx.x = i;
                    swapcontext(&scheduler, &fibers[i]);
                }
                goes_on |= !is_done[i] && !is_waiting[i];
                waits |= is_waiting[i];
            }
        }
        return waits;
    }

    static void run(void (*given)(A...), const unsigned int* grid, unsigned int threads,
                    void** given_arguments, bool is_reversed)
    {
        if (!stacks) stacks = static_cast<char*>(malloc((std::size_t)MOST_THREADS * STACK));
        kernel = given;
        arguments = given_arguments;
        gridDim = {grid[0], grid[1], 1};
        blockDim = {threads, 1, 1};
        unsigned int blocks = grid[0] * grid[1];
        for (unsigned int turn = 0; turn < blocks; ++turn) {
            unsigned int block = is_reversed ? blocks - 1 - turn : turn;
            blockIdx = {block % grid[0], block / grid[0], 0};
            run_block(is_reversed);
        }
    }
};
template <typename... A> void (*Launch<void (*)(A...)>::kernel)(A...);
template <typename... A> void** Launch<void (*)(A...)>::arguments;
