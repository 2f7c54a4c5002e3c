// The derivative of ReLU, told by its output.
#include "elementwise.cuh"

struct ReluGradient {
    __host__ __device__ static float of(float g, float output) { return output > 0.0f ? g : 0.0f; }
};
