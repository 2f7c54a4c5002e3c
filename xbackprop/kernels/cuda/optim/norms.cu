// Sums of squares of many arrays in one launch, whose addresses come as an argument; a second launch
// joins the sums of blocks. No atomics: the same bits in every run.
#include "numbers.cuh"
#include "reduce.cuh"

static const int MOST_ARRAYS = 64;

struct Arrays {
    const float* address[MOST_ARRAYS];
    long long size[MOST_ARRAYS];
};

__host__ __device__ inline float with_square(float total, float x) { return total + x * x; }

// Of array `blockIdx.y`, over the elements of block `blockIdx.x`.
__global__ void sum_squares(Arrays arrays, float* partial)
{
    const float* array = arrays.address[blockIdx.y];
    const long long size = arrays.size[blockIdx.y];
    const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long stride = (long long)gridDim.x * blockDim.x;
    float total = 0.0f;
    if ((unsigned long long)array % 16 == 0) {
        for (long long pack = first; pack < size / 4; pack += stride) {
            Pack<float, true> x = load<true>(array, pack);
            float part = 0.0f;
            for (int i = 0; i < 4; ++i) part = with_square(part, x.values[i]);
            total += part;
        }
        if (first < size % 4) total = with_square(total, array[size / 4 * 4 + first]);
    } else {
        for (long long place = first; place < size; place += stride)
            total = with_square(total, array[place]);
    }
    total = block_sum(total);
    if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = total;
}

// One warp for each array.
__global__ void join_squares(const float* partial, int blocks, float* sums)
{
    float total = 0.0f;
    for (int block = threadIdx.x; block < blocks; block += blockDim.x)
        total += partial[(long long)blockIdx.x * blocks + block];
    total = block_sum(total);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}
