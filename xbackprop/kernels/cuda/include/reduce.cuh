// Sums and maxima over the threads of a block, the same bits in every thread and in every run.

#include "numbers.cuh"

struct Add {
    __host__ __device__ static float neutral() { return 0.0f; }
    __host__ __device__ static float join(float a, float b) { return a + b; }
};

struct Greatest {  // a NaN is greater than every number
    __host__ __device__ static float neutral() { return minus_infinity(); }
    __host__ __device__ static float join(float a, float b) { return a > b || a != a ? a : b; }
};

template <typename Join> __device__ inline float warp_reduce(float value)
{
    for (int distance = 16; distance > 0; distance /= 2)
        value = Join::join(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

// For blocks of whole warps, all of whose threads come here.
template <typename Join> __device__ inline float block_reduce(float value)
{
    __shared__ float of_warps[32];
    unsigned int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    value = warp_reduce<Join>(value);
    __syncthreads();  // all have read what an earlier reduction left here
    if (lane == 0) of_warps[warp] = value;
    __syncthreads();
    return warp_reduce<Join>(lane < blockDim.x / 32 ? of_warps[lane] : Join::neutral());
}

__device__ inline float block_sum(float value) { return block_reduce<Add>(value); }
__device__ inline float block_max(float value) { return block_reduce<Greatest>(value); }
