// Cross-entropy of class indices over rows (rows, classes): one block for each row.
#include "numbers.cuh"
#include "reduce.cuh"

// The greatest logit so far, and the sum of exp(x - greatest) so far: one pass over the row.
struct Softmax {
    float greatest = minus_infinity(), total = 0.0f;

    __host__ __device__ void add(float x)
    {
        if (x > greatest || x != x) {
            total = total * expf(greatest - x) + 1.0f;
            greatest = x;
        } else if (x != minus_infinity()) {  // which adds 0, and is no distance from itself
            total += expf(x - greatest);
        }
    }
};

// The logsumexp in two parts; the first is 0 where it would not be finite.
struct LogSumExp { float shift, log_total; };

__host__ __device__ inline LogSumExp log_sum_exp(float greatest, float total)
{
    if (is_finite(greatest)) return {greatest, logf(total)};
    return {0.0f, greatest};  // inf, NaN, or -inf for a row of nothing else
}

__host__ __device__ inline float loss_of(float logit, LogSumExp sum)
{
    return -((logit - sum.shift) - sum.log_total);
}

// What a target counts: nothing if it is ignored, NaN if it names no class.
__host__ __device__ inline float sample_weight(long long target, long long classes,
                                               long long ignore_index)
{
    if (target == ignore_index) return 0.0f;
    return target >= 0 && target < classes ? 1.0f : not_a_number();
}

__host__ __device__ inline float gradient_of(float logit, LogSumExp sum, bool is_target)
{
    return expf((logit - sum.shift) - sum.log_total) - (is_target ? 1.0f : 0.0f);
}

// Losses that are to be added up are kept as floats.
template <typename T, typename Loss, typename Index, bool ALIGNED>
__global__ void cross_entropy_rows(const T* logits, const Index* target, long long classes,
                                   long long ignore_index, Loss* losses, T* shift, T* log_total)
{
    const T* row = logits + blockIdx.x * classes;
    constexpr int SIZE = Pack<T, ALIGNED>::SIZE;
    Softmax own;
    for (long long pack = threadIdx.x; pack < classes / SIZE; pack += blockDim.x) {
        Pack<T, ALIGNED> x = load<ALIGNED>(row, pack);
        for (int i = 0; i < SIZE; ++i) own.add(to_float(x.values[i]));
    }
    float greatest = block_max(own.greatest);
    // A thread without a part of the row has -inf here, and exp(-inf) is 0.
    float total = block_sum(own.total * expf(own.greatest - greatest));
    if (threadIdx.x != 0) return;

    LogSumExp sum = log_sum_exp(greatest, total);
    long long label = target[blockIdx.x];
    float weight = sample_weight(label, classes, ignore_index);
    float loss = weight == 1.0f ? loss_of(to_float(row[label]), sum) : weight;
    losses[blockIdx.x] = Rounded<Loss>::from(loss);
    shift[blockIdx.x] = Rounded<T>::from(sum.shift);
    log_total[blockIdx.x] = Rounded<T>::from(sum.log_total);
}

// The sum of the losses in one block, divided by the number of targets that count.
template <typename T, typename Index>
__global__ void cross_entropy_total(const float* losses, const Index* target, long long rows,
                                    long long classes, long long ignore_index, int is_mean,
                                    T* result)
{
    float total = 0.0f, count = 0.0f;
    for (long long row = threadIdx.x; row < rows; row += blockDim.x) {
        total += losses[row];
        count += sample_weight(target[row], classes, ignore_index);
    }
    total = block_sum(total);
    count = block_sum(count);
    if (threadIdx.x == 0) *result = Rounded<T>::from(is_mean ? total / count : total);
}

// The number of targets that count, NaN where one names no class.
template <typename Index>
__global__ void cross_entropy_count(const Index* target, long long rows, long long classes,
                                    long long ignore_index, float* result)
{
    float count = 0.0f;
    for (long long row = threadIdx.x; row < rows; row += blockDim.x)
        count += sample_weight(target[row], classes, ignore_index);
    count = block_sum(count);
    if (threadIdx.x == 0) *result = count;
}

// (softmax - one_hot) * weight * grad_output. `grad_output` is one number for each row, one for
// all, or none (then `scale` alone counts); `count` divides it, if given.
template <typename T, typename Index, bool ALIGNED>
__global__ void cross_entropy_gradient(const T* grad_output, float scale, int is_each,
                                       const float* count, const T* logits, const Index* target,
                                       const T* shift, const T* log_total, long long classes,
                                       long long ignore_index, T* grad)
{
    long long row = blockIdx.x, label = target[row];
    constexpr int SIZE = Pack<T, ALIGNED>::SIZE;
    if (grad_output) scale *= to_float(grad_output[is_each ? row : 0]);
    if (count) scale = *count == 0.0f ? 0.0f : scale / *count;  // all ignored: 0, as in PyTorch
    float weight = sample_weight(label, classes, ignore_index);
    LogSumExp sum = {to_float(shift[row]), to_float(log_total[row])};
    for (long long pack = threadIdx.x; pack < classes / SIZE; pack += blockDim.x) {
        Pack<T, ALIGNED> x = load<ALIGNED>(logits + row * classes, pack), result;
        for (int i = 0; i < SIZE; ++i) {
            float value = gradient_of(to_float(x.values[i]), sum, pack * SIZE + i == label);
            result.values[i] = Rounded<T>::from(value * weight * scale);
        }
        store(grad + row * classes, pack, result);
    }
}
