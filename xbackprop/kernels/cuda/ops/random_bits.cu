// Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011): each thread mixes one block of four outputs.
// All positions are counted in 64 bits: a draw may hold more than 2^32 elements, start anywhere.

struct Words { unsigned int words[4]; };

// `state` holds key, key, call number, call number.
__host__ __device__ inline Words philox(const unsigned int* state, unsigned long long number)
{
    unsigned int key0 = state[0], key1 = state[1];
    unsigned int word0 = (unsigned int)number, word1 = (unsigned int)(number >> 32);
    unsigned int word2 = state[2], word3 = state[3];
    for (int round = 0; round < 10; ++round) {
        unsigned long long first = (unsigned long long)0xD2511F53u * word0;
        unsigned long long second = (unsigned long long)0xCD9E8D57u * word2;
        word0 = (unsigned int)(second >> 32) ^ word1 ^ key0;
        word1 = (unsigned int)second;
        word2 = (unsigned int)(first >> 32) ^ word3 ^ key1;
        word3 = (unsigned int)first;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return {{word0, word1, word2, word3}};
}

__device__ inline unsigned long long thread_number()
{
    return (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
}

__global__ void random_bits(
    const unsigned int* state,
    unsigned int* out,
    unsigned long long first_block,  // number of the Philox block of the first output
    unsigned int skip,               // outputs of that block before the first one wanted
    unsigned long long size)
{
    unsigned long long index = thread_number();
    if (index >= (size + skip + 3) / 4) return;
    Words mixed = philox(state, first_block + index);
    if (skip == 0 && 4 * index + 4 <= size) {  // whole and aligned: one store of 16 bytes
        const unsigned int* words = mixed.words;
        *(uint4*)(out + 4 * index) = make_uint4(words[0], words[1], words[2], words[3]);
        return;
    }
    for (unsigned int lane = 0; lane < 4; ++lane) {
        unsigned long long place = 4 * index + lane;  // counted from the start of the first block
        if (place >= skip && place - skip < size) out[place - skip] = mixed.words[lane];
    }
}

// What dropout keeps: bits that are not below a bound. Four answers of one byte are one store.
__global__ void random_kept(
    const unsigned int* state,
    unsigned char* kept,
    unsigned int silenced_below,
    unsigned long long first_block,
    unsigned int skip,
    unsigned long long size)
{
    unsigned long long index = thread_number();
    if (index >= (size + skip + 3) / 4) return;
    Words mixed = philox(state, first_block + index);
    if (skip == 0 && 4 * index + 4 <= size) {
        unsigned int answers = 0;
        for (int lane = 0; lane < 4; ++lane)
            answers |= (unsigned int)(mixed.words[lane] >= silenced_below) << (8 * lane);
        *(unsigned int*)(kept + 4 * index) = answers;
        return;
    }
    for (unsigned int lane = 0; lane < 4; ++lane) {
        unsigned long long place = 4 * index + lane;
        if (place >= skip && place - skip < size)
            kept[place - skip] = mixed.words[lane] >= silenced_below;
    }
}

// The state with its call number, of 64 bits, increased by one.
__global__ void next_call(const unsigned int* state, unsigned int* next)
{
    if (threadIdx.x != 0) return;
    unsigned long long call = state[2] | (unsigned long long)state[3] << 32;
    ++call;
    next[0] = state[0];
    next[1] = state[1];
    next[2] = (unsigned int)call;
    next[3] = (unsigned int)(call >> 32);
}
