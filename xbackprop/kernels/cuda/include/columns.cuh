// Sums over the rows of (rows, n): gradients of what is repeated along rows. Each block adds up a
// strip of 32 columns over some rows; a second launch joins the blocks' sums. No atomics: the same
// bits in every run.
#include "numbers.cuh"

static const int COLUMNS = 32, ROWS_AT_ONCE = 8;

// Adds in runs of 32, so that rounding errors grow with the number of runs.
struct LongSum {
    float total = 0.0f, run = 0.0f;
    int count = 0;

    __host__ __device__ void add(float value)
    {
        run += value;
        if (++count == 32) {
            total += run;
            run = 0.0f;
            count = 0;
        }
    }

    __host__ __device__ float sum() const { return total + run; }
};

// Of g into `plain` and of g * x into `products`, (gridDim.y, n); each may be null. Where `factors`
// is given, each row of x is multiplied by its own. Blocks have 256 threads.
template <typename T>
__global__ void sum_columns(const T* g, const T* x, const T* factors, long long rows, long long n,
                            long long rows_of_block, float* products, float* plain)
{
    __shared__ float sums[2][ROWS_AT_ONCE][COLUMNS];
    const int lane = threadIdx.x % COLUMNS, part = threadIdx.x / COLUMNS;
    const long long column = (long long)blockIdx.x * COLUMNS + lane;
    const long long first = blockIdx.y * rows_of_block, end = first + rows_of_block;

    LongSum of_products, of_g;
    if (column < n) {
        for (long long row = first + part; row < end && row < rows; row += ROWS_AT_ONCE) {
            float value = to_float(g[row * n + column]);
            of_g.add(value);
            if (!products) continue;
            float factor = factors ? to_float(factors[row]) : 1.0f;
            of_products.add(value * (to_float(x[row * n + column]) * factor));
        }
    }
    sums[0][part][lane] = of_products.sum();
    sums[1][part][lane] = of_g.sum();
    __syncthreads();
    if (part != 0 || column >= n) return;
    float product = 0.0f, total = 0.0f;
    for (int other = 0; other < ROWS_AT_ONCE; ++other) {
        product += sums[0][other][lane];
        total += sums[1][other][lane];
    }
    if (products) products[blockIdx.y * n + column] = product;
    if (plain) plain[blockIdx.y * n + column] = total;
}

template <typename T> __host__ __device__ inline T join_column(const float* sums, long long blocks,
                                                               long long n, long long column)
{
    LongSum sum;
    for (long long block = 0; block < blocks; ++block) sum.add(sums[block * n + column]);
    return Rounded<T>::from(sum.sum());
}

template <typename T>
__global__ void join_columns(const float* products, const float* plain, long long blocks,
                             long long n, T* of_products, T* of_plain)
{
    long long column = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= n) return;
    if (products) of_products[column] = join_column<T>(products, blocks, n, column);
    if (plain) of_plain[column] = join_column<T>(plain, blocks, n, column);
}
