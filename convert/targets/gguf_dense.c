/* llama.cpp's plain decoders as GGUF files: softmax in every layer, all layers of one shape. Which
 * models they hold is said by the plainest spec of the same sizes: what else a model's spec says
 * has no place in them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/export.h"
#include "convert/gguf_model.h"
#include "convert/targets/gguf.h"

static struct tg_layer_spec plain_layer(const struct tg_layer_spec *l)
{
    return (struct tg_layer_spec){
        .mixer = tg_mixer_schema_find("softmax"),
        .heads = l->heads,
        .kv_heads = l->kv_heads,
        .head_dim = l->head_dim,
        .rotary_dim = l->head_dim,
        .qkv_bias = l->qkv_bias,
        .o_bias = l->o_bias,
        .qk_norm = l->qk_norm,
        .attn_scale = 1 / sqrt((double)l->head_dim),
        .residual = TG_RESIDUAL_PRE,
        .mlp_kind = TG_MLP_GATED,
        .mlp_dim = l->mlp_dim,
        .activation = TG_ACT_SILU,
        .mlp_bias = l->mlp_bias,
    };
}

/* *p is the caller's to release; false: no memory. */
static bool make_plain(const struct tg_model_spec *s, struct tg_model_spec *p)
{
    *p = (struct tg_model_spec){
        .vocab = s->vocab,
        .width = s->width,
        .norm = {.kind = TG_NORM_RMS, .eps = s->norm.eps},
        .tied_head = s->tied_head,
        .ropes = {s->ropes[0]},
        .max_positions = s->max_positions,
        .bos_id = s->bos_id,
        .eos_count = s->eos_count,
        .layer_count = s->layer_count,
        .layers = tg_alloc_array(s->layer_count, sizeof *p->layers),
    };
    for (size_t i = 0; i < s->eos_count; i++)
        p->eos_ids[i] = s->eos_ids[i];
    for (size_t i = 0; p->layers && i < s->layer_count; i++)
        p->layers[i] = plain_layer(&s->layers[0]);
    return p->layers != NULL;
}

static void take_one(double from, double *to)
{
    if (tg_factor(from) == 1)
        *to = from;
}

/* What says the same in other numbers: factors of 1, and scales of scores, which engines compute
 * in float32. */
static void take_same(const struct tg_model_spec *from, struct tg_model_spec *to)
{
    take_one(from->embed_scale, &to->embed_scale);
    take_one(from->logit_scale, &to->logit_scale);
    for (size_t i = 0; i < to->layer_count; i++) {
        const struct tg_layer_spec *l = &from->layers[i];
        struct tg_layer_spec *p = &to->layers[i];
        take_one(l->mixer_scale, &p->mixer_scale);
        take_one(l->mlp_scale, &p->mlp_scale);
        take_one(l->gate_scale, &p->gate_scale);
        take_one(l->down_scale, &p->down_scale);
        if ((float)l->attn_scale == (float)p->attn_scale)
            p->attn_scale = l->attn_scale;
    }
}

static void check(const struct tg_model_spec *s, bool divisors, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &s->layers[0];
    struct tg_model_spec plain;
    char buf[512];

    if (!make_plain(s, &plain)) {
        why->failed = true;
        return;
    }
    take_same(s, &plain);
    const char *difference = tg_export_difference(s, &plain, buf, sizeof buf);
    const char *end = difference ? strstr(difference, " against ") : NULL;
    const char *rope = tg_gguf_rope_why_not(&s->ropes[0], divisors);
    if (difference)
        tg_remark(why, "%.*s has no place in this architecture",
                  (int)(end ? (size_t)(end - difference) : strlen(difference)), difference);
    else if (rope)
        tg_remark(why, "layer 0: %s", rope);
    if (l->head_dim % 2)
        tg_remark(why, "layer 0: heads of %zu cannot be turned in pairs", l->head_dim);
    if (s->max_positions < 1 || s->max_positions > INT32_MAX)
        tg_remark(why, "max_positions is %zu, must be from 1 to 2^31 - 1", s->max_positions);
    tg_gguf_check_model(s, why);
    tg_spec_release(&plain);
}

static void check_llama(const struct tg_model_spec *s, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &s->layers[0];

    check(s, true, why);
    if (l->qk_norm != TG_QK_NONE)
        tg_remark(why, "layer 0: q and k have norms (qwen3 holds such)");
    if (l->qkv_bias != l->o_bias)
        tg_remark(why, "layer 0: q, k and v have biases and o has none, or the other way round "
                       "(qwen2 holds the first)");
}

static void check_qwen2(const struct tg_model_spec *s, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &s->layers[0];

    check(s, false, why);
    if (l->qk_norm != TG_QK_NONE)
        tg_remark(why, "layer 0: q and k have norms (qwen3 holds such)");
    if (!l->qkv_bias || l->o_bias || l->mlp_bias)
        tg_remark(why, "layer 0: not q, k and v alone have biases (llama holds such)");
    if (l->heads * l->head_dim != s->width)
        tg_remark(why, "layer 0: %zu heads of %zu are not the width, %zu", l->heads, l->head_dim,
                  s->width);
}

static void check_qwen3(const struct tg_model_spec *s, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &s->layers[0];

    check(s, false, why);
    if (l->qk_norm != TG_QK_HEAD)
        tg_remark(why, "layer 0: q and k have no norms of each head (llama holds such)");
    if (l->qkv_bias || l->o_bias || l->mlp_bias)
        tg_remark(why, "layer 0: it has biases");
}

static int adapt(struct tg_export *x, struct tg_err *err)
{
    struct tg_model_spec plain;

    if (!make_plain(&x->spec, &plain))
        return tg_fail(err, TG_ERR_NOMEM, "%s: no memory for a spec of %zu layers", x->target->name,
                       x->spec.layer_count);
    snprintf(plain.family, sizeof plain.family, "%s", x->target->name);
    snprintf(plain.base_family, sizeof plain.base_family, "%s", x->target->name);
    tg_gguf_round(&plain);
    tg_spec_release(&x->spec);
    x->spec = plain;
    return TG_OK;
}

static void keys(const struct tg_export *x, struct tg_gguf_list *out)
{
    const struct tg_layer_spec *l = &x->spec.layers[0];

    tg_gguf_keys_model(x, l, out);
    tg_gguf_put_size(out, x->target->name, "attention.head_count_kv", l->kv_heads);
    tg_gguf_put_size(out, x->target->name, "feed_forward_length", l->mlp_dim);
    tg_gguf_keys_rope(x, l, out);
}

const struct tg_target tg_target_llama = {
    .name = "llama",
    .engines = "llama.cpp",
    .gguf = true,
    .check = check_llama,
    .adapt = adapt,
    .names = tg_gguf_llama_names,
    .keys = keys,
    .extra = tg_gguf_rope_freqs,
};
const struct tg_target tg_target_qwen2 = {
    .name = "qwen2",
    .engines = "llama.cpp",
    .gguf = true,
    .check = check_qwen2,
    .adapt = adapt,
    .names = tg_gguf_qwen_names,
    .keys = keys,
};
const struct tg_target tg_target_qwen3 = {
    .name = "qwen3",
    .engines = "llama.cpp",
    .gguf = true,
    .check = check_qwen3,
    .adapt = adapt,
    .names = tg_gguf_qwen_names,
    .keys = keys,
};
