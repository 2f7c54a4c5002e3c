// Sums of the rows of one index, which a stable sort has brought side by side: each block adds up
// the rows of one index, in a strip of columns. No atomics: the same bits in every run.
#include "numbers.cuh"
#include "columns.cuh"

// The first place whose index is not less than `index`.
__host__ __device__ inline long long lower_bound(const long long* sorted, long long count,
                                                 long long index)
{
    long long first = 0;
    while (count > 0) {
        long long half = count / 2;
        bool is_less = sorted[first + half] < index;
        first = is_less ? first + half + 1 : first;
        count = is_less ? count - half - 1 : half;
    }
    return first;
}

// `order` holds the row that stands at each place of `sorted`. Blocks have 256 threads, 32 columns
// times 8 rows at once; gridDim.x counts indices.
template <typename T>
__global__ void sum_rows(const T* rows, const long long* order, const long long* sorted,
                         long long count, long long width, T* totals)
{
    __shared__ float sums[ROWS_AT_ONCE][COLUMNS];
    const int lane = threadIdx.x % COLUMNS, part = threadIdx.x / COLUMNS;
    const long long index = blockIdx.x, column = (long long)blockIdx.y * COLUMNS + lane;
    const long long first = lower_bound(sorted, count, index);
    const long long end = first + lower_bound(sorted + first, count - first, index + 1);

    LongSum sum;
    if (column < width)
        for (long long place = first + part; place < end; place += ROWS_AT_ONCE)
            sum.add(to_float(rows[order[place] * width + column]));
    sums[part][lane] = sum.sum();
    __syncthreads();
    if (part != 0 || column >= width) return;
    float total = 0.0f;
    for (int other = 0; other < ROWS_AT_ONCE; ++other) total += sums[other][lane];
    totals[index * width + column] = Rounded<T>::from(total);
}
