/* Products of bfloat16 in the tile unit (AMX). With PARTS = 1 a factor x is bf16(x); with 2 it is
 * x0 + x1, x0 = bf16(x), x1 = bf16(x - x0), and
 *
 *   x y = x0 y0 + x0 y1 + x1 y0 + below 2^-15 |x y|
 *
 * Products are exact and summed in float32.
 *
 * op(A) and op(B) are packed into tiles of 16 rows or columns and 32 terms, the parts of one after
 * the other; a tile of B holds pairs of terms, column beside column, as the unit wants. */
#if defined(__x86_64__) && defined(__linux__)
#include "linearize/kernels/tables.h"

#include <immintrin.h>
#include <stdalign.h>

enum {
    SIDE = 16,          /* rows or columns of a tile */
    STEP = 32,          /* terms of a tile */
    TILE = SIDE * STEP, /* bfloat16 numbers of a tile */
    MAX_PARTS = 2,
    PAIR = 2 * SIDE,                         /* rows and columns of C that are computed at once */
    DEPTH = 256,                             /* terms summed before C is touched */
    PANEL = DEPTH / STEP * MAX_PARTS * TILE, /* room of SIDE rows or columns */
    ROWS = 512,                              /* of A packed at once */
    STRIP = 128,                             /* columns of B packed at once, for all those rows */
};

typedef uint16_t bf16;
#define INLINE static inline __attribute__((always_inline))

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

INLINE __mmask16 lanes(size_t n)
{
    return (__mmask16)(n < 16 ? (1u << n) - 1 : 0xffffu);
}

/* the parts of 32 numbers, those of `low` first */
INLINE void cut(__m512 low, __m512 high, size_t parts, __m512i part[MAX_PARTS])
{
    part[0] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    if (parts == 1)
        return;
    const __m512i low0 = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(part[0]));
    const __m512i high0 = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(part[0], 1));
    low = _mm512_sub_ps(low, _mm512_castsi512_ps(_mm512_slli_epi32(low0, 16)));
    high = _mm512_sub_ps(high, _mm512_castsi512_ps(_mm512_slli_epi32(high0, 16)));
    part[1] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* 16 rows of 16 words of 32 bits, turned over */
INLINE void transpose(__m512i r[SIDE])
{
    __m512i t[SIDE];
    for (size_t i = 0; i < SIDE; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (size_t i = 0; i < SIDE; i += 4)
        for (size_t l = 0; l < 2; l++) {
            r[i + 2 * l] = _mm512_unpacklo_epi64(t[i + l], t[i + l + 2]);
            r[i + 2 * l + 1] = _mm512_unpackhi_epi64(t[i + l], t[i + l + 2]);
        }
    for (size_t i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (size_t i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

/* 16 numbers from x, those that `mask` leaves out are zero */
INLINE __m512 some(const float *x, __mmask16 mask)
{
    return mask ? _mm512_maskz_loadu_ps(mask, x) : _mm512_setzero_ps();
}

/* A tile of `side` <= 16 rows (or columns) and `terms` <= 32 terms, each row's terms beside each
 * other at x + i * ld; the rest is zero. across: pairs of terms become rows. */
INLINE void pack_along(const float *x, size_t ld, size_t side, size_t terms, bool across,
                       size_t parts, bf16 *to)
{
    __m512i row[MAX_PARTS][SIDE], part[MAX_PARTS];
    const __mmask16 first = lanes(terms), second = lanes(terms > 16 ? terms - 16 : 0);
    for (size_t i = 0; i < SIDE; i++) {
        const float *from = x + smaller(i, side - 1) * ld;
        const __mmask16 all = i < side ? 0xffff : 0;
        cut(some(from, first & all), some(from + 16, second & all), parts, part);
        for (size_t p = 0; p < parts; p++)
            row[p][i] = part[p];
    }
    for (size_t p = 0; p < parts; p++, to += TILE) {
        if (across)
            transpose(row[p]);
        for (size_t i = 0; i < SIDE; i++)
            _mm512_store_si512(to + i * STEP, row[p][i]);
    }
}

/* The same of numbers that lie across: term l of row i at x + l * ld + i. */
INLINE void pack_across(const float *x, size_t ld, size_t side, size_t terms, bool along,
                        size_t parts, bf16 *to)
{
    alignas(64) static const uint16_t in_pairs[STEP] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                        21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                        11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i pairs = _mm512_load_si512(in_pairs);
    __m512i row[MAX_PARTS][SIDE], part[MAX_PARTS];
    const __mmask16 mask = lanes(side);
    for (size_t i = 0; i < SIDE; i++) {
        const size_t even = 2 * i, odd = even + 1;
        cut(some(x + even * ld, even < terms ? mask : 0),
            some(x + odd * ld, odd < terms ? mask : 0), parts, part);
        for (size_t p = 0; p < parts; p++)
            row[p][i] = _mm512_permutexvar_epi16(pairs, part[p]);
    }
    for (size_t p = 0; p < parts; p++, to += TILE) {
        if (along)
            transpose(row[p]);
        for (size_t i = 0; i < SIDE; i++)
            _mm512_store_si512(to + i * STEP, row[p][i]);
    }
}

/* `count` rows of op(A) or columns of op(B) and `terms` <= DEPTH terms, in panels of SIDE. The
 * panel that fills up a last pair is left as it is: no sum of it is used. beside: a row's terms lie
 * beside each other. pairs: as tiles of B. */
INLINE void pack(const float *x, size_t ld, bool beside, bool pairs, size_t count, size_t terms,
                 size_t parts, bf16 *to)
{
    for (size_t i = 0; i < count; i += SIDE, to += PANEL) {
        const size_t side = smaller(SIDE, count - i);
        bf16 *tile = to;
        for (size_t l = 0; l < terms; l += STEP, tile += parts * TILE)
            if (beside)
                pack_along(x + i * ld + l, ld, side, smaller(STEP, terms - l), pairs, parts, tile);
            else
                pack_across(x + l * ld + i, ld, side, smaller(STEP, terms - l), !pairs, parts,
                            tile);
    }
}

enum { ROW_BYTES = STEP * sizeof(bf16) };

/* C's tiles are 0 to 3, two rows of two; A's 4 and 5, B's 6 and 7. */
INLINE void load_a(const bf16 *a)
{
    _tile_loadd(4, a, ROW_BYTES);
    _tile_loadd(5, a + PANEL, ROW_BYTES);
}

INLINE void load_b(const bf16 *b)
{
    _tile_loadd(6, b, ROW_BYTES);
    _tile_loadd(7, b + PANEL, ROW_BYTES);
}

INLINE void add_products(void)
{
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* PAIR x PAIR sums over `steps` tiles, into out with a row stride in floats */
INLINE void multiply(const bf16 *a, const bf16 *b, size_t steps, size_t parts, float *out,
                     size_t ld)
{
    /* the loads below do not tell the compiler that they read memory */
    __asm__ volatile("" ::: "memory");
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t s = 0; s < steps; s++, a += parts * TILE, b += parts * TILE) {
        load_a(a);
        if (parts == 2)
            load_b(b + TILE), add_products();
        load_b(b), add_products();
        if (parts == 2)
            load_a(a + TILE), add_products();
    }
    _tile_stored(0, out, ld * sizeof *out);
    _tile_stored(1, out + SIDE, ld * sizeof *out);
    _tile_stored(2, out + SIDE * ld, ld * sizeof *out);
    _tile_stored(3, out + SIDE * ld + SIDE, ld * sizeof *out);
    __asm__ volatile("" ::: "memory");
}

/* C = alpha sums + beta C, `rows` x `columns` of the sums */
static void add_to(const float sums[PAIR * PAIR], size_t rows, size_t columns, float alpha,
                   float beta, float *c, size_t ldc)
{
    const __m512 va = _mm512_set1_ps(alpha), vb = _mm512_set1_ps(beta);
    for (size_t j = 0; j < columns; j += SIDE) {
        const __mmask16 mask = lanes(columns - j);
        for (size_t i = 0; i < rows; i++) {
            float *to = c + i * ldc + j;
            __m512 sum = _mm512_mul_ps(va, _mm512_load_ps(sums + i * PAIR + j));
            if (beta != 0)
                sum = _mm512_fmadd_ps(vb, _mm512_maskz_loadu_ps(mask, to), sum);
            _mm512_mask_storeu_ps(to, mask, sum);
        }
    }
}

/* Eight tiles of 16 rows of 64 bytes */
static void configure(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (size_t i = 0; i < 8; i++) {
        config.row_bytes[i] = ROW_BYTES;
        config.rows[i] = SIDE;
    }
    _tile_loadconfig(&config);
}

/* Rows [i0, i0 + count) of C, whose terms [l, l + terms) of op(A) lie packed in `left` */
INLINE void rows_of(const struct tg_product *p, size_t parts, size_t i0, size_t count, size_t l,
                    size_t terms, const bf16 *left, bf16 *right)
{
    alignas(64) float sums[PAIR * PAIR];
    const float beta = l ? 1 : p->beta;
    const size_t steps = (terms + STEP - 1) / STEP;
    for (size_t j0 = 0; j0 < p->n; j0 += STRIP) {
        const size_t strip = smaller(STRIP, p->n - j0);
        const float *b = p->b + (p->tb ? j0 * p->ldb + l : l * p->ldb + j0);
        pack(b, p->ldb, p->tb, true, strip, terms, parts, right);
        for (size_t i = 0; i < count; i += PAIR)
            for (size_t j = 0; j < strip; j += PAIR) {
                const size_t rows = smaller(PAIR, count - i), columns = smaller(PAIR, strip - j);
                const bf16 *x = left + i / SIDE * PANEL, *y = right + j / SIDE * PANEL;
                float *c = p->c + (i0 + i) * p->ldc + j0 + j;
                if (rows == PAIR && columns == PAIR && p->alpha == 1 && beta == 0) {
                    multiply(x, y, steps, parts, c, p->ldc);
                } else {
                    multiply(x, y, steps, parts, sums, PAIR);
                    add_to(sums, rows, columns, p->alpha, beta, c, p->ldc);
                }
            }
    }
}

INLINE void product(const struct tg_product *p, size_t parts)
{
    static _Thread_local alignas(64) bf16 left[ROWS / SIDE * PANEL], right[STRIP / SIDE * PANEL];
    configure();
    for (size_t i = 0; i < p->m; i += ROWS)
        for (size_t l = 0; l < p->k; l += DEPTH) {
            const size_t count = smaller(ROWS, p->m - i), terms = smaller(DEPTH, p->k - l);
            const float *a = p->a + (p->ta ? l * p->lda + i : i * p->lda + l);
            pack(a, p->lda, !p->ta, false, count, terms, parts, left);
            rows_of(p, parts, i, count, l, terms, left, right);
        }
    _tile_release();
}

static void product_bf16(const struct tg_product *p)
{
    product(p, 1);
}

static void product_bf16x2(const struct tg_product *p)
{
    product(p, 2);
}

void tg_product_amx(const struct tg_product *p, enum tg_precision precision)
{
    if (precision == TG_PREC_BF16)
        product_bf16(p);
    else
        product_bf16x2(p);
}
#endif
