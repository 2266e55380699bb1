/* Forward, backward and decode of the joint-denominator mixers: projections and gates around
 * joint.h and joint_step.h. */
#include "linearize/mixers/joint_mixer.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/mixers/attn_proj.h"

void tg_mixer_fill(float *data, size_t count, float value)
{
    for (size_t i = 0; i < count; i++)
        data[i] = value;
}

void tg_mixer_start_fill(const struct tg_mixer *m, const struct tg_mixer_start *starts, size_t rule,
                         float *data, size_t count)
{
    const struct tg_param_rule *r = &m->spec->mixer->params[rule];
    size_t K = m->spec->head_dim, F = m->spec->feature_dim;
    float value = 0;
    for (; starts->name; starts++)
        if (strcmp(starts->name, r->name) == 0)
            value = starts->value;
    tg_mixer_fill(data, count, value);
    for (size_t i = 0; i < count && r->flags & TG_PARAM_IF_MAP; i++)
        data[i] = i / F % K == i % F ? 1 : 0;
}

float tg_mixer_decay_logit(double distance)
{
    return (float)log(fmin(fmax(distance, 2), 1e4) - 1);
}

struct tg_attn tg_mixer_attn(const struct tg_mixer *m)
{
    const struct tg_layer_spec *s = m->spec;
    return (struct tg_attn){.H = s->heads,
                            .G = s->kv_heads,
                            .K = s->head_dim,
                            .V = tg_value_dim(s),
                            .window = s->window,
                            .scale = (float)s->attn_scale,
                            .cap = (float)s->attn_softcap};
}

struct tg_far tg_mixer_far(const struct tg_mixer *m, size_t lag)
{
    const struct tg_layer_spec *s = m->spec;
    return (struct tg_far){.H = s->heads,
                           .G = s->kv_heads,
                           .V = tg_value_dim(s),
                           .map = {s->feature_map, s->head_dim, s->feature_dim},
                           .lag = lag,
                           .chunk = m->chunk,
                           .wq = tg_mixer_param(m, "map_q.weight"),
                           .wk = tg_mixer_param(m, "map_k.weight")};
}

struct tg_joint tg_mixer_joint(const struct tg_mixer *m)
{
    bool from_max = tg_mixer_has(m, "window_logit");
    size_t block = m->spec->mixer->flags & TG_MIXER_CHUNKED ? m->spec->recurrent.chunk : 0;
    struct tg_far far = tg_mixer_far(m, m->spec->window);
    far.across = block > 0;
    if (far.across)
        far.chunk = block; /* not how it is computed, but what */
    return (struct tg_joint){.attn = tg_mixer_attn(m),
                             .sinks = tg_mixer_has(m, "sink") ? m->spec->sinks : 0,
                             .sink = tg_mixer_param(m, "sink"),
                             .has_far = m->spec->mixer->flags & TG_MIXER_FAR,
                             .from_max = from_max,
                             .logit = tg_mixer_param(m, from_max ? "window_logit" : "far_logit"),
                             .block = block,
                             .far = far};
}

static bool gated(const struct tg_mixer *m)
{
    return tg_mixer_has(m, "gate.weight");
}

struct kept {
    float *q, *k, *v, *g, *y; /* g NULL without gate */
    float *proj, *joint;
    float *gates; /* of the output */
};

static size_t kept_lay(const struct tg_mixer *m, const struct tg_joint *j, const struct tg_batch *b,
                       bool keep, float *base, struct kept *k)
{
    struct tg_carve c = {base, 0};
    size_t rows = tg_batch_rows(b), K = j->attn.K, V = j->attn.V;
    memset(k, 0, sizeof *k);
    k->q = tg_carve(&c, rows * j->attn.H * K);
    k->k = tg_carve(&c, rows * j->attn.G * K);
    k->v = tg_carve(&c, rows * j->attn.G * V);
    k->y = tg_carve(&c, rows * j->attn.H * V);
    if (gated(m))
        k->g = tg_carve(&c, rows * j->attn.H);
    k->gates = tg_carve(&c, tg_proj_out_floats(m, b));
    if (keep) {
        k->proj = tg_carve(&c, tg_proj_saved(m, b));
        k->joint = tg_carve(&c, tg_joint_saved(j, b));
    }
    return c.used;
}

size_t tg_joint_mixer_saved(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct tg_joint j = tg_mixer_joint(m);
    struct kept k;
    return kept_lay(m, &j, b, true, NULL, &k);
}

struct scratch {
    float *kept, *dq, *dk, *dv, *dy, *dg, *proj, *joint;
};

static size_t work_lay(const struct tg_mixer *m, const struct tg_joint *j, const struct tg_batch *b,
                       int threads, bool backward, float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    struct kept k;
    size_t rows = tg_batch_rows(b), K = j->attn.K, V = j->attn.V;
    memset(s, 0, sizeof *s);
    s->joint = tg_carve(&c, tg_joint_work(j, b, threads, backward));
    if (!backward) {
        s->kept = tg_carve(&c, kept_lay(m, j, b, false, NULL, &k));
        return c.used;
    }
    s->dq = tg_carve(&c, rows * j->attn.H * K);
    s->dk = tg_carve(&c, rows * j->attn.G * K);
    s->dv = tg_carve(&c, rows * j->attn.G * V);
    s->dy = tg_carve(&c, rows * j->attn.H * V);
    s->dg = tg_carve(&c, rows * j->attn.H);
    s->proj = tg_carve(&c, tg_proj_work(m, b));
    return c.used;
}

size_t tg_joint_mixer_work(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                           bool backward)
{
    struct tg_joint j = tg_mixer_joint(m);
    struct scratch s;
    return work_lay(m, &j, b, threads, backward, NULL, &s);
}

/* x -> rotated q, k, v and gates */
static void heads_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                      const float *x, const struct kept *k)
{
    tg_proj_fwd(ctx, m, b, x, k->q, k->k, k->v, k->proj);
    tg_proj_rotate(ctx, m, b, k->q, k->k, 1);
    if (k->g)
        tg_gate_fwd(ctx, m, tg_batch_rows(b), x, k->g);
}

void tg_joint_mixer_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                        const struct tg_batch *b, const float *x, float *y, float *saved,
                        float *work)
{
    struct tg_joint j = tg_mixer_joint(m);
    struct scratch s;
    struct kept k;
    work_lay(m, &j, b, ctx->threads, false, work, &s);
    kept_lay(m, &j, b, saved != NULL, saved ? saved : s.kept, &k);
    heads_fwd(ctx, m, b, x, &k);
    tg_joint_fwd(ctx, &j, b, k.q, k.k, k.v, k.g, k.y, NULL, k.joint, s.joint);
    tg_proj_out_fwd(ctx, m, b, x, k.y, y, k.gates);
}

void tg_joint_mixer_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                        const struct tg_batch *b, const float *x, const float *dy,
                        const float *saved, float *dx, const struct tg_mixer_grads *d, float *work)
{
    struct tg_joint j = tg_mixer_joint(m);
    struct scratch s;
    struct kept k;
    size_t rows = tg_batch_rows(b), K = j.attn.K, V = j.attn.V;
    work_lay(m, &j, b, ctx->threads, true, work, &s);
    kept_lay(m, &j, b, true, (float *)(uintptr_t)saved, &k);
    struct tg_joint_grads grads = {
        .logit = tg_mixer_grad(m, d, j.from_max ? "window_logit" : "far_logit"),
        .sink = tg_mixer_grad(m, d, "sink"),
        .wq = tg_mixer_grad(m, d, "map_q.weight"),
        .wk = tg_mixer_grad(m, d, "map_k.weight")};
    tg_proj_out_bwd(ctx, m, b, k.y, dy, s.dy, d, k.gates);
    memset(s.dq, 0, rows * j.attn.H * K * sizeof *s.dq);
    memset(s.dk, 0, rows * j.attn.G * K * sizeof *s.dk);
    memset(s.dv, 0, rows * j.attn.G * V * sizeof *s.dv);
    memset(s.dg, 0, rows * j.attn.H * sizeof *s.dg);
    tg_joint_bwd(ctx, &j, b, k.q, k.k, k.v, k.g, k.y, k.joint, s.dy, s.dq, s.dk, s.dv,
                 k.g ? s.dg : NULL, &grads, s.joint);
    tg_proj_rotate(ctx, m, b, s.dq, s.dk, -1);
    tg_proj_bwd(ctx, m, b, x, k.proj, s.dq, s.dk, s.dv, dx, d, s.proj);
    tg_proj_out_gate_bwd(ctx, m, b, x, k.gates, dx, d);
    if (k.g)
        tg_gate_bwd(ctx, m, rows, x, k.g, s.dg, dx, d);
}

size_t tg_joint_mixer_state(const struct tg_mixer *m, size_t capacity)
{
    struct tg_joint j = tg_mixer_joint(m);
    return tg_joint_state(&j, gated(m), capacity);
}

struct step_scratch {
    struct kept kept;
    float *joint;
};

static size_t step_lay(const struct tg_mixer *m, const struct tg_joint *j, const struct tg_batch *b,
                       size_t capacity, int threads, float *base, struct step_scratch *s)
{
    struct tg_carve c = {base, 0};
    float *kept = tg_carve(&c, kept_lay(m, j, b, false, NULL, &s->kept));
    kept_lay(m, j, b, false, kept, &s->kept);
    s->joint = tg_carve(&c, tg_joint_step_work(j, b, capacity, threads));
    return c.used;
}

size_t tg_joint_mixer_step_work(const struct tg_mixer *m, const struct tg_batch *b, size_t capacity,
                                int threads)
{
    struct tg_joint j = tg_mixer_joint(m);
    struct step_scratch s;
    return step_lay(m, &j, b, capacity, threads, NULL, &s);
}

void tg_joint_mixer_step(const struct tg_ctx *ctx, const struct tg_mixer *m,
                         const struct tg_batch *b, size_t capacity, const float *x,
                         float *const *states, float *y, float *work)
{
    struct tg_joint j = tg_mixer_joint(m);
    struct step_scratch s;
    step_lay(m, &j, b, capacity, ctx->threads, work, &s);
    heads_fwd(ctx, m, b, x, &s.kept);
    tg_joint_step(ctx, &j, b, capacity, s.kept.q, s.kept.k, s.kept.v, s.kept.g, states, s.kept.y,
                  s.joint);
    tg_proj_out_fwd(ctx, m, b, x, s.kept.y, y, s.kept.gates);
}
