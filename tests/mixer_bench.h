/* A mixer of any row on a workbench: a layer of a given shape, its parameters and gradients, texts,
 * forward, backward and decode. Nothing here knows what a row computes. */
#ifndef TG_TESTS_MIXER_BENCH_H
#define TG_TESTS_MIXER_BENCH_H

#include "linearize/mixers/mixer.h"

enum { TG_BENCH_SEQUENCES = 6 };

struct tg_bench_shape {
    const char *name;
    size_t D, H, G, K, rotary, window, sinks, F;
    enum tg_feature_map map;
    bool gated, bias, qk_norm;
    bool every; /* gradients element by element, not along random directions */
    size_t lengths[TG_BENCH_SEQUENCES];
    size_t count;
};
struct tg_bench_pair {
    const struct tg_mixer_ops *ops;
    const struct tg_mixer_schema *schema;
    const struct tg_bench_shape *shape;
    size_t way; /* of the options that rows of a kind have (tg_linear_vary, tg_rwkv_vary) */
};

struct tg_bench {
    const struct tg_mixer_ops *ops;
    struct tg_layer_spec spec;
    struct tg_mixer m;
    struct tg_ctx ctx;
    struct tg_batch b;
    size_t begin[TG_BENCH_SEQUENCES + 1], rows, longest;
    float *param[TG_MIXER_MAX_PARAMS], *grad[TG_MIXER_MAX_PARAMS];
    size_t count[TG_MIXER_MAX_PARAMS];
    float *cosine, *sine, *x, *dy, *y, *dx;
};
struct tg_bench tg_bench_open(const struct tg_bench_pair *p);
/* The bench holds pointers into itself, so they are set where it finally lies. Parameters get
 * values at which every part of a row matters. */
void tg_bench_settle(struct tg_bench *t, const struct tg_bench_shape *s);
void tg_bench_close(struct tg_bench *t);
/* y, and with `backward` dx and grad, in memory that ends at a guard page and begins as NaN */
void tg_bench_run(struct tg_bench *t, bool backward);
float *tg_bench_floats(size_t n); /* zeroed, n + 1 of them; tg_free */

/* Decode of the whole bench */
struct tg_bench_decode {
    struct tg_bench *t;
    float *states[TG_BENCH_SEQUENCES], *copies[TG_BENCH_SEQUENCES];
    size_t past[TG_BENCH_SEQUENCES], bytes, capacity;
    float *y; /* like the bench's */
};
void tg_bench_decode_open(struct tg_bench_decode *d, struct tg_bench *t);
void tg_bench_decode_close(struct tg_bench_decode *d);
/* Up to n more tokens of each sequence; false when all are at their end */
bool tg_bench_advance(struct tg_bench_decode *d, size_t n);
void tg_bench_restart(struct tg_bench_decode *d);

#endif
