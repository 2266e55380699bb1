/* llama.cpp's Granite 4 hybrid: Llama-like hybrids with Mamba-2 as GGUF files. */
#include <math.h>

#include "base/mem.h"
#include "convert/gguf_model.h"
#include "convert/targets/gguf.h"
#include "convert/targets/granite.h"
#include "convert/targets/plain.h"

static void check_recurrent(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    const struct tg_layer_spec *m = tg_granite_recurrent(spec);

    for (size_t i = 0; i < spec->layer_count; i++) {
        const struct tg_recurrent_spec *r = &spec->layers[i].recurrent;
        if (r->proj_bias || r->out_bias) {
            tg_remark(why, "layer %zu: mamba2 has biases in its projections: plan with bias=false",
                      i);
            break;
        }
    }
    if (m && m->recurrent.inner != 2 * spec->width)
        tg_remark(why,
                  "mamba2 layers have %zu channels, must be twice the width, %zu: option expand of "
                  "a plan",
                  m->recurrent.inner, 2 * spec->width);
    if (m && m->recurrent.groups > 1)
        tg_remark(why,
                  "mamba2 layers have %zu groups, and llama.cpp takes their norm for each by "
                  "itself: plan with groups=1",
                  m->recurrent.groups);
    if (m && (m->recurrent.dt_min > 0 || m->recurrent.dt_max > 0))
        tg_remark(why, "the time steps of mamba2 layers have limits, which no key says");
}

static void check(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    const struct tg_layer_spec *a = tg_granite_attention(spec);
    const char *no =
        tg_granite_rotary(spec) ? tg_gguf_rope_why_not(&spec->ropes[a->rope], true) : NULL;

    tg_gguf_check_model(spec, why);
    tg_granite_check(spec, why);
    check_recurrent(spec, why);
    if (no)
        tg_remark(why, "layer %zu: %s", (size_t)(a - spec->layers), no);
    if (!a)
        tg_remark(why, "no layer is softmax: one at least must be kept");
    if (!tg_granite_recurrent(spec))
        tg_remark(why, "no layer is mamba2: llama.cpp's other architectures hold such models");
}

/* What scores are multiplied by if no key says so */
static double usual_scale(const struct tg_layer_spec *a)
{
    return 1 / sqrt((double)a->head_dim);
}

static bool has_usual_scale(const struct tg_layer_spec *a)
{
    return (float)a->attn_scale == (float)usual_scale(a);
}

/* Numbers as they come back from the keys */
static void round_scales(struct tg_model_spec *s)
{
    s->embed_scale = tg_gguf_decimal((float)s->embed_scale);
    s->logit_scale = 1 / tg_gguf_decimal((float)tg_granite_divisor(s));
    for (size_t i = 0; i < s->layer_count; i++) {
        struct tg_layer_spec *l = &s->layers[i];
        l->mixer_scale = l->mlp_scale = tg_gguf_decimal((float)l->mixer_scale);
        if (l->recurrent.norm)
            l->recurrent.norm_eps = s->norm.eps;
        else
            l->attn_scale =
                has_usual_scale(l) ? usual_scale(l) : tg_gguf_decimal((float)l->attn_scale);
    }
}

static int adapt(struct tg_export *x, struct tg_err *err)
{
    const int rc = tg_granite_adapt(x, err);

    if (rc == TG_OK) {
        tg_gguf_round(&x->spec);
        round_scales(&x->spec);
    }
    return rc;
}

/* Scales that are not 1 */
static void put_scales(const struct tg_export *x, const struct tg_layer_spec *a,
                       struct tg_gguf_list *out)
{
    const struct tg_model_spec *s = &x->spec;
    const struct {
        const char *suffix;
        double scale;
    } scales[] = {
        {"embedding_scale", s->embed_scale},
        {"residual_scale", s->layers[0].mixer_scale},
        {"logit_scale", tg_granite_divisor(s)},
    };

    if (!has_usual_scale(a))
        tg_gguf_put_number(out, x->target->name, "attention.scale", a->attn_scale);
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
        if ((float)scales[i].scale != 1)
            tg_gguf_put_number(out, x->target->name, scales[i].suffix, scales[i].scale);
}

/* 0 kv heads say that a layer is mamba2. */
static void put_kinds(const struct tg_export *x, struct tg_gguf_list *out)
{
    const size_t n = x->spec.layer_count;
    int32_t *heads = tg_gguf_own(out, tg_alloc_array(n, sizeof *heads));

    for (size_t i = 0; heads && i < n; i++)
        heads[i] = (int32_t)x->spec.layers[i].kv_heads;
    tg_gguf_put_arch(out, x->target->name, "attention.head_count_kv",
                     tg_gguf_array(TG_GGUF_I32, heads, heads ? n : 0));
}

static void keys(const struct tg_export *x, struct tg_gguf_list *out)
{
    const struct tg_model_spec *s = &x->spec;
    const struct tg_layer_spec *a = tg_granite_attention(s);
    const struct tg_recurrent_spec *r = &tg_granite_recurrent(s)->recurrent;
    const char *arch = x->target->name;

    tg_gguf_keys_model(x, a, out);
    put_kinds(x, out);
    tg_gguf_put_size(out, arch, "feed_forward_length", s->layers[0].mlp_dim);
    tg_gguf_put_arch(out, arch, "rope.scaling.finetuned", tg_gguf_bool(a->rotary_dim > 0));
    if (a->rotary_dim)
        tg_gguf_keys_rope(x, a, out);
    put_scales(x, a, out);
    tg_gguf_put_size(out, arch, "ssm.conv_kernel", r->conv);
    tg_gguf_put_size(out, arch, "ssm.inner_size", r->inner);
    tg_gguf_put_size(out, arch, "ssm.state_size", r->state);
    tg_gguf_put_size(out, arch, "ssm.time_step_rank", r->v_heads);
    tg_gguf_put_size(out, arch, "ssm.group_count", r->groups);
}

const struct tg_target tg_target_granitehybrid = {
    .name = "granitehybrid",
    .engines = "llama.cpp",
    .gguf = true,
    .check = check,
    .adapt = adapt,
    .fill = tg_plain_fill,
    .names = tg_gguf_granitehybrid_names,
    .keys = keys,
    .extra = tg_gguf_rope_freqs,
    .plan = tg_granite_plan,
};
