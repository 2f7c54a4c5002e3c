// Updates of flat arrays: each thread has a few neighbouring elements. What is skipped is left
// untouched, and the rounded copy, where there is one, is written in the same pass.
#include "numbers.cuh"

// Elements in one go where there are enough of them, and one by one at the end of the array.
template <int COUNT, typename T>
__device__ inline Group<T, COUNT> load_part(const T* array, long long group, long long size)
{
    if ((group + 1) * COUNT <= size) return reinterpret_cast<const Group<T, COUNT>*>(array)[group];
    Group<T, COUNT> part = {};
    for (int i = 0; i < COUNT; ++i)
        if (group * COUNT + i < size) part.values[i] = array[group * COUNT + i];
    return part;
}

template <int COUNT, typename T>
__device__ inline void store_part(T* array, long long group, long long size,
                                  const Group<T, COUNT>& part)
{
    if ((group + 1) * COUNT <= size) {
        store(array, group, part);
        return;
    }
    for (int i = 0; i < COUNT; ++i)
        if (group * COUNT + i < size) array[group * COUNT + i] = part.values[i];
}

template <typename T, int COUNT>
__device__ inline Group<T, COUNT> rounded(const Group<float, COUNT>& part)
{
    Group<T, COUNT> result;
    for (int i = 0; i < COUNT; ++i) result.values[i] = Rounded<T>::from(part.values[i]);
    return result;
}

// The gradient to descend: negated to climb, with the gradient of the penalty.
__host__ __device__ inline float descended(float g, float w, int maximize, float penalty)
{
    if (maximize) g = -g;
    return penalty == 0.0f ? g : g + w * penalty;
}
