// Activations and their derivatives of floats, for elements alone and together with a bias.
#include "numbers.cuh"

struct Relu {
    __host__ __device__ static float of(float x) { return x < 0.0f ? 0.0f : x; }  // a NaN stays one
};

struct ReluGradient {  // told by the output
    __host__ __device__ static float of(float g, float output) { return output > 0.0f ? g : 0.0f; }
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
