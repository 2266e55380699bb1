#include "convert/targets/gguf.h"

#include <math.h>
#include <string.h>

#include "convert/gguf_model.h"

enum { MOST_LAYERS = 512 }; /* of the engine */

void tg_gguf_put_size(struct tg_gguf_list *l, const char *arch, const char *suffix, size_t n)
{
    tg_gguf_put_arch(l, arch, suffix, tg_gguf_u32((uint32_t)n));
}

void tg_gguf_put_number(struct tg_gguf_list *l, const char *arch, const char *suffix, double x)
{
    tg_gguf_put_arch(l, arch, suffix, tg_gguf_f32((float)x));
}

void tg_gguf_check_model(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    if (spec->layer_count > MOST_LAYERS)
        tg_remark(why, "%zu layers, llama.cpp takes at most %d", spec->layer_count, MOST_LAYERS);
    if (spec->eos_count > TG_GGUF_EOS_KEYS)
        tg_remark(why, "%zu tokens end a text, a GGUF file names at most %d", spec->eos_count,
                  TG_GGUF_EOS_KEYS);
}

void tg_gguf_keys_model(const struct tg_export *x, const struct tg_layer_spec *a,
                        struct tg_gguf_list *out)
{
    const struct tg_model_spec *s = &x->spec;
    const char *arch = x->target->name;

    tg_gguf_put_text(out, "general.architecture", arch);
    tg_gguf_put_text(out, "general.type", "model");
    tg_gguf_put_size(out, arch, "block_count", s->layer_count);
    tg_gguf_put_size(out, arch, "context_length", s->max_positions);
    tg_gguf_put_size(out, arch, "embedding_length", s->width);
    tg_gguf_put_size(out, arch, "vocab_size", s->vocab);
    tg_gguf_put_size(out, arch, "attention.head_count", a->heads);
    tg_gguf_put_size(out, arch, "attention.key_length", a->head_dim);
    tg_gguf_put_size(out, arch, "attention.value_length", a->head_dim);
    tg_gguf_put_number(out, arch, "attention.layer_norm_rms_epsilon", s->norm.eps);
}

void tg_gguf_keys_rope(const struct tg_export *x, const struct tg_layer_spec *a,
                       struct tg_gguf_list *out)
{
    const struct tg_rope *r = &x->spec.ropes[0];
    const char *arch = x->target->name;

    tg_gguf_put_size(out, arch, "rope.dimension_count", a->rotary_dim);
    tg_gguf_put_number(out, arch, "rope.freq_base", r->theta);
    if (r->kind == TG_ROPE_LINEAR || r->kind == TG_ROPE_YARN) {
        const char *type = tg_rope_kind_name(r->kind);
        tg_gguf_put_arch(out, arch, "rope.scaling.type", tg_gguf_text(type, strlen(type)));
        tg_gguf_put_number(out, arch, "rope.scaling.factor", r->factor);
    }
    if (r->kind == TG_ROPE_LLAMA3 || r->kind == TG_ROPE_YARN)
        tg_gguf_put_size(out, arch, "rope.scaling.original_context_length",
                         (size_t)r->original_max_positions);
}

/* What yarn does to the size of scores unless it is told otherwise */
static double yarn_attention(double factor)
{
    return factor <= 1 ? 1 : 0.1 * log(factor) + 1;
}

const char *tg_gguf_rope_why_not(const struct tg_rope *r, bool divisors)
{
    const double f = r->factor, n = r->original_max_positions;

    switch (r->kind) {
    case TG_ROPE_DEFAULT:
    case TG_ROPE_LINEAR:
        return NULL;
    case TG_ROPE_YARN:
        if (r->beta_fast != 32 || r->beta_slow != 1 || !r->truncate)
            return "yarn scaling has other limits than beta_fast 32, beta_slow 1, truncated, which "
                   "engines take for all";
        if (!(fabs(r->attention_factor - yarn_attention(f)) <= 1e-6))
            return "yarn scaling has an attention_factor of its own, which no key says";
        break;
    case TG_ROPE_LLAMA3:
        if (!divisors)
            return "llama3 scaling has no place in this architecture";
        if (r->low_freq_factor != 1 || r->high_freq_factor != 4 || f != nearbyint(f))
            return "llama3 scaling is read back with low_freq_factor 1, high_freq_factor 4 and a "
                   "whole factor alone";
        break;
    default:
        return "its rotary scaling is none of default, linear, llama3, yarn";
    }
    return n >= 1 && n <= 1 << 30 && n == nearbyint(n) ? NULL
                                                       : "its original positions are no whole "
                                                         "number from 1 to 2^30";
}

bool tg_gguf_rope_freqs(const struct tg_export *x, size_t i, struct tg_tensor_plan *plan,
                        float *values)
{
    const struct tg_rope *r = &x->spec.ropes[0];
    size_t pairs = 0;

    for (size_t l = 0; l < x->spec.layer_count && !pairs; l++)
        pairs = x->spec.layers[l].rotary_dim / 2;
    if (i || r->kind != TG_ROPE_LLAMA3 || !pairs)
        return false;
    *plan = (struct tg_tensor_plan){
        .name = "rope_freqs.weight", .dtype = TG_F32, .rank = 1, .shape = {(int64_t)pairs}};
    for (size_t p = 0; values && p < pairs; p++)
        values[p] = (float)tg_gguf_llama3_divisor(r, p, pairs);
    return true;
}

void tg_gguf_round(struct tg_model_spec *spec)
{
    struct tg_rope *r = &spec->ropes[0];

    spec->norm.eps = tg_gguf_decimal((float)spec->norm.eps);
    r->theta = tg_gguf_decimal((float)r->theta);
    r->factor = tg_gguf_decimal((float)r->factor);
    if (r->kind == TG_ROPE_YARN)
        r->attention_factor = yarn_attention(r->factor);
}
