/* Element types of tensors in files. One row each in dtype.c: name in safetensors, bits, conversion
 * to and from float32. */
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
    TG_DTYPE_COUNT
};

struct tg_dtype_info {
    const char *name; /* "BF16" as in safetensors */
    unsigned bits;
    bool is_float; /* a real floating type that Tegu converts to float32 */
};
const struct tg_dtype_info *tg_dtype_info(enum tg_dtype t);
bool tg_dtype_parse(const char *name, enum tg_dtype *out); /* "BF16" */
bool tg_dtype_parse_short(
    const char *name,
    enum tg_dtype *out); /* the CLI's and config's: f32 bf16 f16 float32 bfloat16 float16 ... */

/* n elements to float32 / from float32 (round to nearest even; NaN and infinities kept; f16, e4m3
 * and e5m2 as PyTorch does). Only for is_float types. Unaligned source and target allowed. */
void tg_dtype_to_f32(enum tg_dtype t, const void *src, float *dst, size_t n);
void tg_dtype_from_f32(enum tg_dtype t, const float *src, void *dst, size_t n);

#endif
