// Rows (rows, n) to variance 1, or to mean square 1: one block for each row. CENTERED takes the mean
// off. All sums are floats that cannot overflow and lose no digits where the mean is large.
#include "numbers.cuh"
#include "reduce.cuh"

// A power of two that brings numbers up to `greatest` near 1 if their squares could overflow.
__host__ __device__ inline float scale_for(float greatest)
{
    unsigned int exponent = __float_as_uint(greatest) >> 23;  // of a number that is not negative
    return exponent < 177 || exponent == 255 ? 1.0f : __uint_as_float((255 - exponent) << 23);
}

// What is taken off an element, in two parts: rounded to one, a large mean would lose the digits
// that the rest of the row differs in.
struct Center {
    float shift, rest;
    __host__ __device__ float centered(float x) const { return (x - shift) - rest; }
};

__host__ __device__ inline float reciprocal_root(float scaled_square, float scale, float eps)
{
    return scale / sqrtf(scaled_square + eps * scale * scale);
}

// rstd (h - mean(h) - x_hat mean(h x_hat))
__host__ __device__ inline float input_gradient(float h, float x_hat, float mean_h,
                                                float mean_h_x_hat, float rstd)
{
    return rstd * ((h - mean_h) - x_hat * mean_h_x_hat);
}

template <bool ALIGNED, typename T, typename Visit>
__device__ inline void visit_row(const T* row, long long n, Visit visit)
{
    constexpr int SIZE = Pack<T, ALIGNED>::SIZE;
    for (long long pack = threadIdx.x; pack < n / SIZE; pack += blockDim.x) {
        Pack<T, ALIGNED> x = load<ALIGNED>(row, pack);
        for (int i = 0; i < SIZE; ++i) visit(to_float(x.values[i]));
    }
}

// `x_hat`, `mean` and `var` may be null; so may weight and bias.
template <typename T, bool CENTERED, bool ALIGNED>
__global__ void row_norm_forward(const T* x, const T* weight, const T* bias, long long n, float eps,
                                 T* output, T* x_hat, T* mean, T* var, T* rstd)
{
    constexpr int SIZE = Pack<T, ALIGNED>::SIZE;
    const T* row = x + blockIdx.x * n;
    const float part = 1.0f / n;  // of a sum, so that it cannot overflow
    const float first = CENTERED ? to_float(row[0]) : 0.0f;

    float greatest = 0.0f, total = 0.0f;
    visit_row<ALIGNED>(row, n, [&](float value) {
        float distance = value - first;
        greatest = Greatest::join(greatest, fabsf(distance));
        total += distance * part;
    });
    const float scale = scale_for(block_max(greatest));
    Center center = {0.0f, 0.0f};
    if (CENTERED) center.shift = first + block_sum(total);

    float rest = 0.0f, squares = 0.0f;
    visit_row<ALIGNED>(row, n, [&](float value) {
        float distance = value - center.shift, scaled = distance * scale;
        rest += distance * part;
        squares += scaled * scaled;
    });
    if (CENTERED) center.rest = block_sum(rest);
    const float scaled_rest = center.rest * scale;
    const float square = block_sum(squares) / n - scaled_rest * scaled_rest;
    const float root = reciprocal_root(square, scale, eps);
    if (threadIdx.x == 0) {
        rstd[blockIdx.x] = Rounded<T>::from(root);
        if (mean) mean[blockIdx.x] = Rounded<T>::from(center.shift + center.rest);
        if (var) var[blockIdx.x] = Rounded<T>::from(square / scale / scale);
    }

    for (long long pack = threadIdx.x; pack < n / SIZE; pack += blockDim.x) {
        Pack<T, ALIGNED> in = load<ALIGNED>(row, pack), hat, out;
        for (int i = 0; i < SIZE; ++i) {
            float value = center.centered(to_float(in.values[i])) * root;
            hat.values[i] = Rounded<T>::from(value);
            if (weight) value *= to_float(weight[pack * SIZE + i]);
            if (bias) value += to_float(bias[pack * SIZE + i]);
            out.values[i] = Rounded<T>::from(value);
        }
        if (x_hat) store(x_hat + blockIdx.x * n, pack, hat);
        store(output + blockIdx.x * n, pack, out);
    }
}

// `x` holds x_hat where CENTERED; else rstd makes x_hat of it.
template <typename T, bool CENTERED, bool ALIGNED>
__global__ void row_norm_backward(const T* grad_output, const T* x, const T* rstd, const T* weight,
                                  long long n, T* grad_input)
{
    constexpr int SIZE = Pack<T, ALIGNED>::SIZE;
    const T *grad_row = grad_output + blockIdx.x * n, *row = x + blockIdx.x * n;
    const float root = to_float(rstd[blockIdx.x]), factor = CENTERED ? 1.0f : root;

    float sum_h = 0.0f, sum_h_x_hat = 0.0f;
    for (long long pack = threadIdx.x; pack < n / SIZE; pack += blockDim.x) {
        Pack<T, ALIGNED> g = load<ALIGNED>(grad_row, pack), in = load<ALIGNED>(row, pack);
        for (int i = 0; i < SIZE; ++i) {
            float h = to_float(g.values[i]);
            if (weight) h *= to_float(weight[pack * SIZE + i]);
            sum_h += h;
            sum_h_x_hat += h * (to_float(in.values[i]) * factor);
        }
    }
    const float mean_h = CENTERED ? block_sum(sum_h) / n : 0.0f;
    const float mean_h_x_hat = block_sum(sum_h_x_hat) / n;

    for (long long pack = threadIdx.x; pack < n / SIZE; pack += blockDim.x) {
        Pack<T, ALIGNED> g = load<ALIGNED>(grad_row, pack), in = load<ALIGNED>(row, pack), out;
        for (int i = 0; i < SIZE; ++i) {
            float h = to_float(g.values[i]), x_hat = to_float(in.values[i]) * factor;
            if (weight) h *= to_float(weight[pack * SIZE + i]);
            out.values[i] = Rounded<T>::from(input_gradient(h, x_hat, mean_h, mean_h_x_hat, root));
        }
        store(grad_input + blockIdx.x * n, pack, out);
    }
}
