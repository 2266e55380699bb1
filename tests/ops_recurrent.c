/* Golden layers of transformers (tests/ref/make_mixers.py): a whole mixer with its projections. The
 * file says which row of the registry and every setting; forward, decode in pieces, and all
 * gradients. */
#include "tests/ops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "linearize/mixers/mixer.h"

/* A setting that may be missing */
static double setting(struct tg_op *op, const char *key)
{
    return tg_tensors_meta(op->file, key) ? tg_op_number(op, key) : 0;
}

/* q, k and v in one tensor */
static const char JOINED[] = "in.qkv.weight";

/* Heads of linear attention, whose files have q, k and v joined */
static void linear_heads(struct tg_op *op, struct tg_layer_spec *s)
{
    s->heads = s->kv_heads = (size_t)setting(op, "k_heads");
    s->value_heads = (size_t)setting(op, "v_heads");
    s->head_dim = (size_t)setting(op, "k_dim");
    s->value_dim = (size_t)setting(op, "v_dim");
    /* the delta rule's output has the scale of softmax, lightning's none */
    s->attn_scale = setting(op, "conv") > 0 ? 1 / sqrt((double)s->head_dim) : 1;
}

static struct tg_layer_spec spec_of(struct tg_op *op)
{
    const char *mixer = tg_tensors_meta(op->file, "mixer");
    struct tg_layer_spec s = {.mixer = tg_mixer_schema_find(mixer ? mixer : ""),
                              .heads = (size_t)setting(op, "heads"),
                              .kv_heads = (size_t)setting(op, "kv_heads"),
                              .head_dim = (size_t)setting(op, "head_dim"),
                              .rotary_dim = (size_t)setting(op, "rotary_dim"),
                              .attn_scale = setting(op, "attn_scale")};
    if (tg_tensors_find(op->file, JOINED))
        linear_heads(op, &s);
    s.recurrent = (struct tg_recurrent_spec){
        .v_heads = (size_t)setting(op, "v_heads"),
        .v_dim = (size_t)setting(op, "v_dim"),
        .conv = (size_t)setting(op, "conv"),
        .state = (size_t)setting(op, "state"),
        .groups = (size_t)setting(op, "groups"),
        .inner = (size_t)setting(op, "inner"),
        .rank = (size_t)setting(op, "rank"),
        .norm_groups = (size_t)setting(op, "norm_groups"),
        .conv_bias = setting(op, "conv_bias") != 0,
        .proj_bias = setting(op, "proj_bias") != 0,
        .out_bias = setting(op, "out_bias") != 0,
        .norm = setting(op, "norm") != 0,
        .norm_before_gate = setting(op, "norm_before_gate") != 0,
        .negative_eigenvalues = setting(op, "negative") != 0,
        .dt_min = setting(op, "dt_min"),
        .dt_max = setting(op, "dt_max"),
        .norm_eps = setting(op, "norm_eps"),
        .in_scale = setting(op, "in_scale"),
        .out_scale = setting(op, "out_scale"),
        .beside_scale = setting(op, "beside_scale"),
    };
    for (int i = 0; i < 5; i++) {
        char key[16];
        snprintf(key, sizeof key, "scale_%d", i);
        s.recurrent.scales[i] = setting(op, key);
    }
    return s;
}

static void rotary(struct tg_op *op, struct tg_mixer *m, size_t T)
{
    size_t half = m->spec->rotary_dim / 2;
    double theta = setting(op, "theta");
    float *cosine = tg_op_floats(op, T * half), *sine = tg_op_floats(op, T * half);
    for (size_t i = 0; i < T * half; i++) {
        double angle = (double)(i / half) * pow(theta, -(double)(i % half) / (double)half);
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    m->rope_cos = cosine;
    m->rope_sin = sine;
}

/* Rows q, k and v of the joined tensor, the first three weights of the row; their gradients lie
 * joined too, and are compared so. */
static float *load_joined(struct tg_op *op, struct tg_mixer *m, struct tg_mixer_grads *d)
{
    const struct tg_layer_spec *s = m->spec;
    const size_t keys = s->kv_heads * s->head_dim * m->width;
    const char *names[] = {"q.weight", "k.weight", "v.weight"};
    float *w = tg_op_load(op, JOINED), *dw = tg_op_floats(op, tg_joined_rows(s) * m->width);
    for (size_t i = 0; i < s->mixer->param_count; i++)
        for (size_t part = 0; part < 3; part++)
            if (!strcmp(s->mixer->params[i].name, names[part])) {
                m->param[i] = w + part * keys;
                d->param[i] = dw + part * keys;
            }
    return dw;
}

/* MiniMax calls its z a gate. */
static const char *name_of(const struct tg_op *op, const struct tg_param_rule *rule)
{
    bool other = !strcmp(rule->name, "z.weight") && tg_tensors_find(op->file, "in.gate.weight");
    return other ? "gate.weight" : rule->name;
}

/* Every parameter that applies, by its rule; gradients beside them */
static void load(struct tg_op *op, struct tg_mixer *m, struct tg_mixer_grads *d, size_t *count)
{
    for (size_t i = 0; i < m->spec->mixer->param_count; i++) {
        const struct tg_param_rule *rule = &m->spec->mixer->params[i];
        char name[64];
        if (!tg_param_rule_applies(rule, m->spec) || d->param[i])
            continue;
        snprintf(name, sizeof name, "in.%s", name_of(op, rule));
        const struct tg_tensor *t = tg_op_tensor(op, name);
        count[i] = t ? t->elements : 0;
        m->param[i] = tg_op_load(op, name);
        d->param[i] = tg_op_floats(op, count[i]);
    }
}

/* Token by token, and in pieces of 1, 5, 9, .. tokens, both sequences at once */
static void decode(struct tg_op *op, const struct tg_mixer_ops *ops, const struct tg_mixer *m,
                   size_t B, size_t T, const float *x, float *y, bool pieces)
{
    size_t D = m->width, n = ops->state_floats(m, T);
    float *states[8];
    size_t begin[9], past[8];
    if (B > 8) {
        tg_op_fail(op, "%zu sequences", B);
        return;
    }
    for (size_t i = 0; i < B; i++)
        states[i] = tg_op_floats(op, n);
    for (size_t at = 0, piece = 1; at < T; at += piece, piece += pieces ? 4 : 0) {
        piece = at + piece < T ? piece : T - at;
        for (size_t i = 0; i <= B; i++)
            begin[i] = i * piece;
        for (size_t i = 0; i < B; i++)
            past[i] = at;
        struct tg_batch b = {B, begin, past};
        float *in = malloc(B * piece * D * sizeof *in), *out = malloc(B * piece * D * sizeof *out);
        float *work = malloc(tg_mixer_step_work(ops, m, &b, T, op->ctx.threads) * sizeof *work);
        for (size_t i = 0; in && i < B; i++)
            memcpy(in + i * piece * D, x + (i * T + at) * D, piece * D * sizeof *in);
        if (in && out && work)
            ops->step(&op->ctx, m, &b, T, in, states, out, work);
        for (size_t i = 0; out && i < B; i++)
            memcpy(y + (i * T + at) * D, out + i * piece * D, piece * D * sizeof *out);
        free(in);
        free(out);
        free(work);
    }
}

static void layer(struct tg_op *op)
{
    struct tg_layer_spec spec = spec_of(op);
    const struct tg_mixer_ops *ops = tg_mixer_find(spec.mixer);
    size_t B = tg_op_dim(op, "in.x", 0), T = tg_op_dim(op, "in.x", 1), D = tg_op_dim(op, "in.x", 2);
    size_t count[TG_MIXER_MAX_PARAMS] = {0}, n = B * T * D;
    struct tg_batch b = tg_op_batch(op, B, T);
    struct tg_mixer m = {.spec = &spec, .width = D};
    struct tg_mixer_grads d = {{NULL}};
    if (!ops) {
        tg_op_fail(op, "no such mixer");
        return;
    }
    rotary(op, &m, T);
    float *joined = tg_tensors_find(op->file, JOINED) ? load_joined(op, &m, &d) : NULL;
    load(op, &m, &d, count);
    const float *x = tg_op_load(op, "in.x"), *dy = tg_op_load(op, "grad_out");
    float *y = tg_op_floats(op, n), *dx = tg_op_floats(op, n);
    if (op->failed)
        return;
    float *saved = tg_op_floats(op, ops->saved_floats(&m, &b));
    ops->forward(&op->ctx, &m, &b, x, y, saved,
                 tg_op_floats(op, ops->work_floats(&m, &b, op->ctx.threads, false)));
    tg_op_check(op, "out", y, n);
    for (int pieces = 0; pieces < 2; pieces++) {
        memset(y, 0, n * sizeof *y);
        decode(op, ops, &m, B, T, x, y, pieces);
        tg_op_check(op, "out", y, n);
    }
    ops->backward(&op->ctx, &m, &b, x, dy, saved, dx, &d,
                  tg_op_floats(op, ops->work_floats(&m, &b, op->ctx.threads, true)));
    tg_op_check(op, "grad.x", dx, n);
    if (joined)
        tg_op_check(op, "grad.qkv.weight", joined, tg_joined_rows(&spec) * D);
    for (size_t i = 0; i < spec.mixer->param_count; i++) {
        char name[64];
        snprintf(name, sizeof name, "grad.%s", name_of(op, &spec.mixer->params[i]));
        if (count[i])
            tg_op_check(op, name, d.param[i], count[i]);
    }
}

const struct tg_op_row tg_ops_recurrent[] = {
    {"mixer_gated_deltanet", layer},
    {"mixer_gated_deltanet_negative", layer},
    {"mixer_kda", layer},
    {"mixer_lightning", layer},
    {"mixer_mamba2", layer},
    {"mixer_mamba2_attention", layer},
    {"mixer_mamba2_attention_normed", layer},
    {"mixer_mamba2_attention_gated", layer},
    {"mixer_mamba1", layer},
    {"mixer_short_conv", layer},
    {"mixer_rglru", layer},
    {NULL, NULL},
};
