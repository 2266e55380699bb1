/* Writing the block types of GGUF, part of dtype_tmpl.h, after quant_tmpl.h: byte for byte what
 * ggml's reference quantisers (quantize_row_*_ref, no importance matrix) give when every float32
 * operation rounds by itself. Numbers that do not fit where ggml converts them are converted as
 * x86 does, there to nothing and here to 0. */

/* The copy is a loop, not memcpy, so that it is made in the widths that the block is then read in:
 * a load that gathers several narrower stores waits for all of them. */
#define BLOCK_WRITER(type, elements, bytes)                                                        \
    static void f32_to_##type(const unsigned char *restrict src, unsigned char *restrict dst,      \
                              size_t n)                                                            \
    {                                                                                              \
        float x[elements];                                                                         \
        for (size_t i = 0; i < n / elements; i++) {                                                \
            for (size_t j = 0; j < elements; j++)                                                  \
                x[j] = float_of(load32(src + i * sizeof x + 4 * j));                               \
            type##_write(x, dst + i * bytes);                                                      \
        }                                                                                          \
    }

static inline void store_half(unsigned char *p, float x)
{
    store16(p, narrow(bits_of(x), f16));
}

static inline float inverse(float d)
{
    return d != 0 ? 1.0f / d : 0.0f;
}

/* Towards zero; 0 for what is no 32-bit integer. */
static inline int32_t truncated(float x)
{
    const int32_t mag = (int32_t)(bits_of(x) & 0x7FFFFFFF);
    return (int32_t)(mag < 0x4F000000 ? x : 0.0f);
}

/* The largest magnitude, in bits, whose order is that of the numbers. */
static inline int32_t largest_bits(const float *x)
{
    int32_t top = 0;
    for (int j = 0; j < 32; j++) {
        int32_t mag = (int32_t)(bits_of(x[j]) & 0x7FFFFFFF);
        top = mag > top ? mag : top;
    }
    return top;
}

/* d = max |x| / 127, q = x / d rounded half away from zero: x plus one half (the float below it, so
 * that the sum cannot round up) with the sign of x, cut. */
#ifndef OWN_Q8_0
static inline void q8_0_write(const float *restrict x, unsigned char *restrict b)
{
    const float d = float_of((uint32_t)largest_bits(x)) / 127, id = inverse(d);
    store_half(b, d);
    for (int j = 0; j < 32; j++) {
        const float v = x[j] * id;
        b[2 + j] = (unsigned char)truncated(v + float_of((bits_of(v) & 0x80000000) | 0x3EFFFFFF));
    }
}
#endif
BLOCK_WRITER(q8_0, 32, 34)

/* The number of the largest magnitude, with its sign; of several the first; of zeros +0. */
static inline float signed_largest(const float *x)
{
    const int32_t top = largest_bits(x);
    int first = 32;
    for (int j = 0; j < 32; j++) {
        int at = (int32_t)(bits_of(x[j]) & 0x7FFFFFFF) == top ? j : 32;
        first = at < first ? at : first;
    }
    return top ? x[first] : 0.0f;
}

/* d gives the number of the largest magnitude the code 0; q = x / d + half, rounded, at most
 * 2 half - 1. `q` gets the codes of the 32 elements. */
static inline float codes_around(const float *restrict x, int half, int32_t *restrict q)
{
    const float d = signed_largest(x) / (float)-half, id = inverse(d);
    for (int j = 0; j < 32; j++) {
        int32_t code = truncated(x[j] * id + ((float)half + 0.5f));
        q[j] = code < 2 * half - 1 ? code : 2 * half - 1;
    }
    return d;
}

/* d and m from the least and the largest number; q = (x - m) / d, rounded, at most `top`. */
static inline float codes_above(const float *restrict x, int top, float *m, int32_t *restrict q)
{
    float min = x[0], max = x[0];
    for (int j = 1; j < 32; j++) {
        min = x[j] < min ? x[j] : min;
        max = x[j] > max ? x[j] : max;
    }
    const float d = (max - min) / (float)top, id = inverse(d);
    for (int j = 0; j < 32; j++) {
        int32_t code = truncated((x[j] - min) * id + 0.5f);
        q[j] = code < top ? code : top;
    }
    *m = min;
    return d;
}

static inline void store_nibbles(const int32_t *restrict q, unsigned char *restrict qs)
{
    for (int j = 0; j < 16; j++)
        qs[j] = (unsigned char)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

static inline void store_fifth_bits(const int32_t *restrict q, unsigned char *restrict qh)
{
    uint32_t bits = 0;
    for (int j = 0; j < 32; j++)
        bits |= (uint32_t)(q[j] >> 4 & 1) << j;
    store32(qh, bits);
}

static inline void q4_0_write(const float *restrict x, unsigned char *restrict b)
{
    int32_t q[32];
    store_half(b, codes_around(x, 8, q));
    store_nibbles(q, b + 2);
}
BLOCK_WRITER(q4_0, 32, 18)

static inline void q5_0_write(const float *restrict x, unsigned char *restrict b)
{
    int32_t q[32];
    store_half(b, codes_around(x, 16, q));
    store_fifth_bits(q, b + 2);
    store_nibbles(q, b + 6);
}
BLOCK_WRITER(q5_0, 32, 22)

static inline void q4_1_write(const float *restrict x, unsigned char *restrict b)
{
    int32_t q[32];
    float m;
    store_half(b, codes_above(x, 15, &m, q));
    store_half(b + 2, m);
    store_nibbles(q, b + 4);
}
BLOCK_WRITER(q4_1, 32, 20)

static inline void q5_1_write(const float *restrict x, unsigned char *restrict b)
{
    int32_t q[32];
    float m;
    store_half(b, codes_above(x, 31, &m, q));
    store_half(b + 2, m);
    store_fifth_bits(q, b + 4);
    store_nibbles(q, b + 8);
}
BLOCK_WRITER(q5_1, 32, 24)
