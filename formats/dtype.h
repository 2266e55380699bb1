/* Element types of tensors in files. One row each in dtype.c: name, size of a block, conversion to
 * and from float32. */
#ifndef TG_FORMATS_DTYPE_H
#define TG_FORMATS_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tg_dtype {
    TG_F32,
    TG_F16,
    TG_BF16,
    TG_F64,
    TG_F8_E4M3,
    TG_F8_E5M2,
    TG_F8_E8M0,
    TG_BOOL,
    TG_U8,
    TG_I8,
    TG_U16,
    TG_I16,
    TG_U32,
    TG_I32,
    TG_U64,
    TG_I64,
    TG_C64,
    TG_F4,
    TG_F6_E2M3,
    TG_F6_E3M2,
    TG_F8_E4M3FNUZ,
    TG_F8_E5M2FNUZ,
    /* block-quantised types of GGUF: see docs/formats/dtypes.md */
    TG_Q4_0,
    TG_Q4_1,
    TG_Q5_0,
    TG_Q5_1,
    TG_Q8_0,
    TG_Q2_K,
    TG_Q3_K,
    TG_Q4_K,
    TG_Q5_K,
    TG_Q6_K,
    TG_MXFP4,
    TG_DTYPE_COUNT
};

/* Elements come in blocks that fill whole bytes: one element of most types, 2 of F4, 4 of F6, 32 or
 * 256 of the quantised types. A row of a quantised tensor is a whole number of blocks. */
struct tg_dtype_info {
    const char *name; /* "BF16" as in safetensors, "Q4_K" as in GGUF */
    unsigned block, block_bytes;
    bool is_float; /* a real type that Tegu converts to float32 */
    bool from_f32; /* and from it */
};
/* Bytes of n elements; false when n is no whole number of blocks or the product overflows. */
bool tg_dtype_bytes(enum tg_dtype t, size_t n, size_t *bytes);
const struct tg_dtype_info *tg_dtype_info(enum tg_dtype t);
bool tg_dtype_parse(const char *name, enum tg_dtype *out); /* "BF16" */
bool tg_dtype_parse_short(
    const char *name,
    enum tg_dtype *out); /* the CLI's and config's: f32 bf16 f16 float32 bfloat16 float16 ... */

/* n elements (whole blocks) to float32 / from float32. Only for is_float, from_f32 types. Unaligned
 * source and target allowed; they must not overlap. To float32 all is exact but F64, which rounds;
 * from it everything rounds to nearest, ties to even, f16, e4m3 and e5m2 as PyTorch does, the
 * quantised types as ggml does. Infinities and NaN are kept where the type has them; docs/formats/
 * dtypes.md says what the others do. */
void tg_dtype_to_f32(enum tg_dtype t, const void *src, float *dst, size_t n);
void tg_dtype_from_f32(enum tg_dtype t, const float *src, void *dst, size_t n);

/* n elements (whole blocks of both) from one type to another through float32, a few thousand at a
 * time, so that they pass through memory once. A type to itself is a copy, of any type; else `from`
 * must be is_float and `to` from_f32. F64 to a smaller type is rounded twice, to float32 first. */
void tg_dtype_convert(enum tg_dtype from, const void *src, enum tg_dtype to, void *dst, size_t n);

/* Index of the first element that is NaN or larger in magnitude than `limit`; n if there is none.
 * With tg_dtype_largest(t) it finds what would not come back from t as a finite number. */
size_t tg_f32_beyond(const float *x, size_t n, float limit);
/* The largest magnitude that is finite in a from_f32 type: 65519.996 for F16, FLT_MAX for a type
 * that saturates. For the quantised types it bounds a whole block, whose scale is a half: no block
 * of numbers up to it has an infinite scale. */
float tg_dtype_largest(enum tg_dtype t);

#endif
