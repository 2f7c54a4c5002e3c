// A step of stochastic gradient descent over a flat array, in one pass.
#include "flat.cuh"

struct Descent {
    float lr, momentum, grad_factor, penalty;
    int nesterov, maximize;
};

// `buffer` is null without momentum.
__host__ __device__ inline void descend(const Descent& c, float& w, float g, float* buffer)
{
    g = descended(g, w, c.maximize, c.penalty);
    if (buffer) {
        *buffer = *buffer * c.momentum + g * c.grad_factor;
        g = c.nesterov ? g + *buffer * c.momentum : *buffer;
    }
    w -= g * c.lr;
}

// `momentum_buffer` and `momentum`, `weight_decay`, `finite` and `half` may be null.
template <typename H, bool ALIGNED>
__global__ void sgd_step(float* data, const float* grad, float* momentum_buffer,
                         const long long* step, const double* lr, const double* momentum,
                         const double* weight_decay, const bool* finite, H* half, double dampening,
                         int nesterov, int maximize, long long size)
{
    if (finite && !*finite) return;
    constexpr int COUNT = ALIGNED ? 4 : 1;
    long long group = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (group * COUNT >= size) return;
    // The first step takes the whole gradient, as PyTorch does.
    Descent c = {(float)*lr, momentum ? (float)*momentum : 0.0f,
                 *step > 1 ? (float)(1.0 - dampening) : 1.0f,
                 weight_decay ? (float)*weight_decay : 0.0f, nesterov, maximize};
    auto w = load_part<COUNT>(data, group, size), g = load_part<COUNT>(grad, group, size), buffer = g;
    if (momentum_buffer) buffer = load_part<COUNT>(momentum_buffer, group, size);
    for (int i = 0; i < COUNT; ++i)
        descend(c, w.values[i], g.values[i], momentum_buffer ? &buffer.values[i] : nullptr);
    store_part(data, group, size, w);
    if (momentum_buffer) store_part(momentum_buffer, group, size, buffer);
    if (half) store_part(half, group, size, rounded<H>(w));
}
