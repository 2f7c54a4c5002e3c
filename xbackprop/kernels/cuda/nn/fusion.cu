// A bias added to rows (rows, n), and a function of the sum; backward, the gradient of the rows, and
// its sum over the rows in the same pass.
#include "activations.cuh"
#include "columns.cuh"

// What both directions compute of an element: the sum is rounded as the arrays are.
template <typename T> __host__ __device__ inline float biased(T x, T bias)
{
    return to_float(Rounded<T>::from(to_float(x) + to_float(bias)));
}

template <typename Function, typename T, bool ALIGNED>
__global__ void bias_forward(const T* x, const T* bias, long long size, long long n, T* output)
{
    constexpr int SIZE = Pack<T, ALIGNED>::SIZE;
    long long pack = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (pack * SIZE >= size) return;
    Pack<T, ALIGNED> in = load<ALIGNED>(x, pack), out;
    Pack<T, ALIGNED> added = load<ALIGNED>(bias, pack * SIZE % n / SIZE);
    for (int i = 0; i < SIZE; ++i)
        out.values[i] = Rounded<T>::from(Function::of(biased(in.values[i], added.values[i])));
    store(output, pack, out);
}

// `bias` is null where the gradient is told by the output, `sums` (gridDim.y, n) where it is not
// wanted. Each block has a strip of columns over some rows, and 256 threads.
template <typename Gradient, typename T, bool ALIGNED>
__global__ void bias_backward(const T* g, const T* x, const T* bias, long long rows, long long n,
                              long long rows_of_block, T* grad_input, float* sums)
{
    constexpr int SIZE = Pack<T, ALIGNED>::SIZE;
    __shared__ float parts[ROWS_AT_ONCE][COLUMNS * SIZE];
    const int lane = threadIdx.x % COLUMNS, part = threadIdx.x / COLUMNS;
    const long long packs = n / SIZE, column = (long long)blockIdx.x * COLUMNS + lane;
    const long long first = blockIdx.y * rows_of_block, end = first + rows_of_block;

    LongSum of_columns[SIZE];
    if (column < packs) {
        Pack<T, ALIGNED> added = {};
        if (bias) added = load<ALIGNED>(bias, column);
        for (long long row = first + part; row < end && row < rows; row += ROWS_AT_ONCE) {
            const long long place = row * packs + column;
            Pack<T, ALIGNED> in = load<ALIGNED>(x, place), grad = load<ALIGNED>(g, place);
            for (int i = 0; i < SIZE; ++i) {
                float value = bias ? biased(in.values[i], added.values[i]) : to_float(in.values[i]);
                T result = Rounded<T>::from(Gradient::of(to_float(grad.values[i]), value));
                grad.values[i] = result;
                of_columns[i].add(to_float(result));
            }
            store(grad_input, place, grad);
        }
    }
    if (!sums) return;
    for (int i = 0; i < SIZE; ++i) parts[part][lane * SIZE + i] = of_columns[i].sum();
    __syncthreads();
    if (part != 0 || column >= packs) return;
    for (int i = 0; i < SIZE; ++i) {
        float total = 0.0f;
        for (int other = 0; other < ROWS_AT_ONCE; ++other) total += parts[other][lane * SIZE + i];
        sums[blockIdx.y * n + column * SIZE + i] = total;
    }
}
