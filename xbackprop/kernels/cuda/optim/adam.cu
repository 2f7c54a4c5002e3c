// A step of Adam or AdamW over a flat array, in one pass.
#include "flat.cuh"

struct Adam {
    float beta1, share1, beta2, share2, step_size, correction, eps;
    float penalty, kept;  // coupled weight decay, and what decoupled weight decay leaves
    int maximize;
};

// In double: float would lose 1.3e-5 in the corrections.
__host__ __device__ inline Adam adam_coefficients(double step, double lr, double beta1, double beta2,
                                                  double weight_decay, float eps, int decoupled,
                                                  int maximize)
{
    Adam c;
    c.beta1 = (float)beta1, c.share1 = (float)(1.0 - beta1);
    c.beta2 = (float)beta2, c.share2 = (float)(1.0 - beta2);
    c.step_size = (float)(lr / (1.0 - pow(beta1, step)));
    c.correction = (float)(1.0 / sqrt(1.0 - pow(beta2, step)));
    c.penalty = decoupled ? 0.0f : (float)weight_decay;
    c.kept = decoupled ? (float)(1.0 - lr * weight_decay) : 1.0f;
    c.eps = eps;
    c.maximize = maximize;
    return c;
}

__host__ __device__ inline void adam_element(const Adam& c, float& w, float g, float& mean,
                                             float& square, float* greatest)
{
    g = descended(g, w, c.maximize, c.penalty);
    w *= c.kept;
    mean = mean * c.beta1 + g * c.share1;
    square = square * c.beta2 + g * g * c.share2;
    float used = square;
    if (greatest) {  // AMSGrad; a NaN is greater than every number
        if (!(*greatest > square || *greatest != *greatest)) *greatest = square;
        used = *greatest;
    }
    w -= mean / (sqrtf(used) * c.correction + c.eps) * c.step_size;
}

// `max_exp_avg_sq`, `weight_decay`, `finite` and `half` may be null.
template <typename H, bool ALIGNED>
__global__ void adam_step(float* data, const float* grad, float* exp_avg, float* exp_avg_sq,
                          float* max_exp_avg_sq, const long long* step, const double* lr,
                          const double* beta1, const double* beta2, const double* weight_decay,
                          const bool* finite, H* half, float eps, int decoupled, int maximize,
                          long long size)
{
    if (finite && !*finite) return;
    __shared__ Adam shared;
    if (threadIdx.x == 0)
        shared = adam_coefficients((double)*step, *lr, *beta1, *beta2,
                                   weight_decay ? *weight_decay : 0.0, eps, decoupled, maximize);
    __syncthreads();
    const Adam c = shared;

    constexpr int COUNT = ALIGNED ? 4 : 1;
    long long group = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (group * COUNT >= size) return;
    auto w = load_part<COUNT>(data, group, size), g = load_part<COUNT>(grad, group, size);
    auto mean = load_part<COUNT>(exp_avg, group, size);
    auto square = load_part<COUNT>(exp_avg_sq, group, size), greatest = square;
    if (max_exp_avg_sq) greatest = load_part<COUNT>(max_exp_avg_sq, group, size);
    for (int i = 0; i < COUNT; ++i)
        adam_element(c, w.values[i], g.values[i], mean.values[i], square.values[i],
                     max_exp_avg_sq ? &greatest.values[i] : nullptr);
    store_part(data, group, size, w);
    store_part(exp_avg, group, size, mean);
    store_part(exp_avg_sq, group, size, square);
    if (max_exp_avg_sq) store_part(max_exp_avg_sq, group, size, greatest);
    if (half) store_part(half, group, size, rounded<H>(w));
}
