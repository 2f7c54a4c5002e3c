// GELU, of the normal distribution and of its approximation by tanh, and their derivatives.
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

// 2 sqrt(2/pi) (x + 0.044715 x^3)
__host__ __device__ inline float twice_cubic(float x)
{
    return 1.5957691f * (x + 0.044715f * (x * x * x));
}

struct GeluTanh {  // x sigmoid(2 u)
    __host__ __device__ static float of(float x) { return x / (1.0f + expf(-twice_cubic(x))); }
};

struct GeluTanhGradient {  // g (s + x s (1 - s) 2 du/dx)
    __host__ __device__ static float of(float g, float x)
    {
        float u = twice_cubic(x), e = expf(-fabsf(u)), root = 1.0f / (1.0f + e);
        float value = u < 0.0f ? e * root : root, slope = e * root * root;
        float inner = 1.5957691f * (1.0f + 3.0f * 0.044715f * (x * x));
        return g * (value + x * slope * inner);
    }
};
