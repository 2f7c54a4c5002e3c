// GELU, of the normal distribution and of its approximation by tanh, and their derivatives.
#include "activations.cuh"
#include "elementwise.cuh"

__host__ __device__ inline float normal_distribution(float x)
{
    return 0.5f * erfcf(x * -0.70710678f);  // keeps its digits where it is close to 0
}

struct Gelu {
    __host__ __device__ static float of(float x) { return x * normal_distribution(x); }
};

struct GeluGradient {  // g (Phi(x) + x phi(x))
    __host__ __device__ static float of(float g, float x)
    {
        float density = 0.39894228f * expf(-0.5f * x * x);
        return g * (normal_distribution(x) + x * density);
    }
};
