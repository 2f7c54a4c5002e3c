// Numbers of 16 bits, and several numbers in one load.

// IEEE 754 half precision. Types of our own: no header of CUDA's is needed, and none can clash.
struct Half { unsigned short bits; };

// The upper 16 bits of a float.
struct BFloat16 { unsigned short bits; };

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
__device__ inline float half_to_float(unsigned short bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ inline unsigned short float_to_half(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif  // on the CPU the tests give these two

__host__ __device__ inline float to_float(float value) { return value; }
__host__ __device__ inline float to_float(Half value) { return half_to_float(value.bits); }
__host__ __device__ inline float to_float(BFloat16 value)
{
    return __uint_as_float((unsigned int)value.bits << 16);
}

template <typename T> struct Rounded;
template <> struct Rounded<float> {
    __host__ __device__ static float from(float value) { return value; }
};
template <> struct Rounded<Half> {
    __host__ __device__ static Half from(float value) { return {float_to_half(value)}; }
};
template <> struct Rounded<BFloat16> {
    __host__ __device__ static BFloat16 from(float value)  // to nearest, ties to even
    {
        unsigned int bits = __float_as_uint(value);
        if (value != value) return {(unsigned short)((bits >> 16) | 0x40u)};  // a NaN stays one
        return {(unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
    }
};

__host__ __device__ inline float minus_infinity() { return __uint_as_float(0xff800000u); }
__host__ __device__ inline float not_a_number() { return __uint_as_float(0x7fc00000u); }
__host__ __device__ inline bool is_finite(float value)
{
    return (__float_as_uint(value) & 0x7f800000u) != 0x7f800000u;
}

// Elements that are read and written at once.
template <typename T, int COUNT> struct alignas(sizeof(T) * COUNT) Group {
    static constexpr int SIZE = COUNT;
    T values[COUNT];
};

// As many as 16 bytes hold, or one where rows are not aligned to 16 bytes.
template <typename T, bool ALIGNED> using Pack = Group<T, ALIGNED ? 16 / sizeof(T) : 1>;

template <bool ALIGNED, typename T>
__host__ __device__ inline Pack<T, ALIGNED> load(const T* row, long long pack)
{
    return reinterpret_cast<const Pack<T, ALIGNED>*>(row)[pack];
}

template <typename T, int COUNT>
__host__ __device__ inline void store(T* row, long long pack, const Group<T, COUNT>& values)
{
    reinterpret_cast<Group<T, COUNT>*>(row)[pack] = values;
}
