// Functions of one or two arrays, element by element; a structure gives the function of floats.
#include "flat.cuh"

template <typename Function, typename T, bool ALIGNED>
__global__ void map_one(const T* x, T* output, long long size)
{
    constexpr int COUNT = Pack<T, ALIGNED>::SIZE;
    long long group = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (group * COUNT >= size) return;
    auto in = load_part<COUNT>(x, group, size), out = in;
    for (int i = 0; i < COUNT; ++i)
        out.values[i] = Rounded<T>::from(Function::of(to_float(in.values[i])));
    store_part(output, group, size, out);
}

template <typename Function, typename T, bool ALIGNED>
__global__ void map_two(const T* grad_output, const T* x, T* output, long long size)
{
    constexpr int COUNT = Pack<T, ALIGNED>::SIZE;
    long long group = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (group * COUNT >= size) return;
    auto g = load_part<COUNT>(grad_output, group, size), in = load_part<COUNT>(x, group, size);
    auto out = in;
    for (int i = 0; i < COUNT; ++i)
        out.values[i] =
            Rounded<T>::from(Function::of(to_float(g.values[i]), to_float(in.values[i])));
    store_part(output, group, size, out);
}
