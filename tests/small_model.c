#include "tests/small_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "linearize/surgery/surgery.h"
#include "tests/check.h"

void tg_test_must(int status, const struct tg_err *err)
{
    if (status)
        print_error("%s\n", err->msg);
    assert_int_equal(status, TG_OK);
}

struct tg_model *tg_test_teacher(const struct tg_test_shape *shape, int threads, uint64_t seed)
{
    struct tg_layer_spec layers[64] = {{0}};
    struct tg_model_spec spec = {.vocab = shape->vocab,
                                 .width = shape->width,
                                 .norm.eps = 1e-6,
                                 .tied_head = shape->tied,
                                 .ropes = {{.theta = 10000}},
                                 .bos_id = -1,
                                 .layer_count = shape->layers,
                                 .layers = layers};
    struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = threads};
    struct tg_err err = {0};
    struct tg_model *m;
    snprintf(spec.family, sizeof spec.family, "llama");
    snprintf(spec.base_family, sizeof spec.base_family, "llama");
    assert_true(shape->layers <= 64);
    for (size_t l = 0; l < shape->layers; l++)
        layers[l] = (struct tg_layer_spec){.mixer = tg_mixer_schema_find("softmax"),
                                           .heads = shape->heads,
                                           .kv_heads = shape->kv_heads,
                                           .head_dim = shape->head_dim,
                                           .rotary_dim = shape->head_dim,
                                           .qkv_bias = shape->bias,
                                           .o_bias = shape->bias,
                                           .mlp_bias = shape->bias,
                                           .qk_norm = shape->qk_norm,
                                           .attn_scale = 1 / sqrt((double)shape->head_dim),
                                           .mlp_dim = shape->mlp};
    tg_test_must(tg_model_create(&m, &spec, &ctx, &err), &err);
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        struct tg_rng rng = tg_rng_make(seed, i);
        bool bias = strstr(p->name, "bias") != NULL;
        double size = p->rank >= 2 ? 1 / sqrt((double)p->shape[1]) : 0.2;
        for (size_t j = 0; j < p->count; j++)
            m->data[p->offset + j] = (float)((p->rank < 2 && !bias) + size * tg_rng_normal(&rng));
    }
    return m;
}

void tg_test_stir_new(struct tg_model *m, double size, uint64_t seed)
{
    for (size_t i = 0; i < m->params.count; i++) {
        struct tg_rng rng = tg_rng_make(seed, i);
        const struct tg_param *p = &m->params.items[i];
        for (size_t j = 0; p->is_new && j < p->count; j++) {
            float *w = &m->data[p->offset + j];
            *w = *w / 2 + (float)(size * tg_rng_normal(&rng));
        }
    }
}

void tg_test_ids(int32_t *ids, size_t n, size_t vocab, uint64_t seed)
{
    struct tg_rng rng = tg_rng_make(seed, 99);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)tg_rng_below(&rng, vocab);
}

struct tg_model *tg_test_hybrid(const struct tg_test_shape *of, size_t window, unsigned flags,
                                const char *without, size_t first, size_t count, int threads)
{
    struct tg_test_shape shape = *of;
    struct tg_plan_layer layers[TG_TEST_ALL_ROWS + 1] = {{0}};
    struct tg_err err = {0};
    struct tg_model *s;
    size_t n = 0, seen = 0;
    for (size_t i = 0; tg_mixer_schemas[i]; i++) {
        if ((tg_mixer_schemas[i]->flags & flags) != flags ||
            strcmp(tg_mixer_schemas[i]->name, without) == 0 || seen++ < first || n == count)
            continue;
        layers[n].mixer = tg_mixer_schemas[i];
        if (tg_mixer_schemas[i]->flags & (TG_MIXER_WINDOW | TG_MIXER_BESIDE))
            layers[n].set[TG_PLAN_WINDOW] = tg_given((double)(window - n % 4));
        n++;
    }
    shape.layers = n + 1;
    struct tg_plan p = {layers, shape.layers};
    struct tg_model *t = tg_test_teacher(&shape, threads, 7);
    tg_test_must(tg_surgery_apply(t, &p, NULL, &s, &err), &err);
    tg_test_stir_new(s, 0.2, 11);
    for (size_t l = 0; l < s->spec.layer_count; l++) /* no choice that a small step could change */
        s->spec.layers[l].recurrent.active = s->spec.layers[l].recurrent.partitions;
    for (size_t l = 0; l < s->spec.layer_count; l++) /* short chunks: most texts have several */
        if (s->spec.layers[l].recurrent.chunk)
            s->spec.layers[l].recurrent.chunk = window;
    tg_model_free(t);
    return s;
}
