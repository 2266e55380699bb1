/* Patterns of tensor names. In a pattern {i} stands for a layer's number, written as Python writes
 * it; a bracketed beginning "[model.]" may be missing (checkpoints saved from the bare decoder);
 * a final '*' stands for the rest of the name. Each pattern has at most one {i} or '*'. */
#include "convert/names.h"

#include <stdio.h>
#include <string.h>

const struct tg_name_rule tg_decoder_names[] = {
    {"[model.]embed_tokens.weight", "embed.weight"},
    {"[model.]layers.{i}.input_layernorm.weight", "layers.{i}.norm_in.weight"},
    {"[model.]layers.{i}.self_attn.q_proj.weight", "layers.{i}.mixer.q.weight"},
    {"[model.]layers.{i}.self_attn.q_proj.bias", "layers.{i}.mixer.q.bias"},
    {"[model.]layers.{i}.self_attn.k_proj.weight", "layers.{i}.mixer.k.weight"},
    {"[model.]layers.{i}.self_attn.k_proj.bias", "layers.{i}.mixer.k.bias"},
    {"[model.]layers.{i}.self_attn.v_proj.weight", "layers.{i}.mixer.v.weight"},
    {"[model.]layers.{i}.self_attn.v_proj.bias", "layers.{i}.mixer.v.bias"},
    {"[model.]layers.{i}.self_attn.o_proj.weight", "layers.{i}.mixer.o.weight"},
    {"[model.]layers.{i}.self_attn.o_proj.bias", "layers.{i}.mixer.o.bias"},
    {"[model.]layers.{i}.self_attn.q_norm.weight", "layers.{i}.mixer.q_norm.weight"},
    {"[model.]layers.{i}.self_attn.k_norm.weight", "layers.{i}.mixer.k_norm.weight"},
    {"[model.]layers.{i}.post_attention_layernorm.weight", "layers.{i}.norm_mlp.weight"},
    {"[model.]layers.{i}.mlp.gate_proj.weight", "layers.{i}.mlp.gate.weight"},
    {"[model.]layers.{i}.mlp.gate_proj.bias", "layers.{i}.mlp.gate.bias"},
    {"[model.]layers.{i}.mlp.up_proj.weight", "layers.{i}.mlp.up.weight"},
    {"[model.]layers.{i}.mlp.up_proj.bias", "layers.{i}.mlp.up.bias"},
    {"[model.]layers.{i}.mlp.down_proj.weight", "layers.{i}.mlp.down.weight"},
    {"[model.]layers.{i}.mlp.down_proj.bias", "layers.{i}.mlp.down.bias"},
    {"[model.]norm.weight", "norm_out.weight"},
    {"lm_head.weight", "head.weight"},
    {NULL, NULL},
};

/* Buffers that older versions of transformers saved beside the weights */
const char *const tg_decoder_droppable[] = {
    "*rotary_emb.inv_freq",
    "*rotary_emb.cos_cached",
    "*rotary_emb.sin_cached",
    "*.masked_bias",
    NULL,
};

/* Length of a layer's number at s: digits without leading zeros, at most 9; 0 if there is none. */
static size_t number_at(const char *s)
{
    const size_t n = strspn(s, "0123456789");
    return n <= 9 && !(n > 1 && *s == '0') ? n : 0;
}

/* What stands in the pattern's hole goes to *hole, *length (0 without a hole). */
static bool match(const char *pattern, const char *name, const char **hole, size_t *length)
{
    *length = 0;
    *hole = name;
    while (*pattern) {
        if (*pattern == '*') {
            *hole = name;
            *length = strlen(name);
            return *length > 0;
        }
        if (!strncmp(pattern, "{i}", 3)) {
            if (!(*length = number_at(name)))
                return false;
            *hole = name;
            name += *length;
            pattern += 3;
        } else if (*pattern++ != *name++)
            return false;
    }
    return !*name;
}

static bool match_source(const char *pattern, const char *name, const char **hole, size_t *length)
{
    const char *close = *pattern == '[' ? strchr(pattern, ']') : NULL;
    size_t prefix;

    if (!close)
        return match(pattern, name, hole, length);
    prefix = (size_t)(close - pattern - 1);
    if (!strncmp(name, pattern + 1, prefix) && match(close + 1, name + prefix, hole, length))
        return true;
    return match(close + 1, name, hole, length);
}

static bool fill(const char *pattern, const char *hole, size_t length, char *out, size_t size)
{
    size_t n = 0;

    for (; *pattern; pattern++) {
        const bool number = !strncmp(pattern, "{i}", 3);
        if (*pattern == '[' || *pattern == ']')
            continue;
        if (number || *pattern == '*') {
            if (length >= size - n)
                return false;
            memcpy(out + n, hole, length);
            n += length;
            pattern += number ? 2 : 0;
        } else {
            if (n + 1 >= size)
                return false;
            out[n++] = *pattern;
        }
    }
    out[n] = '\0';
    return true;
}

bool tg_name_canonical(const struct tg_name_rule *rules, const char *source, char *out, size_t size)
{
    const char *hole;
    size_t length;

    for (; rules->source; rules++)
        if (match_source(rules->source, source, &hole, &length))
            return fill(rules->canonical, hole, length, out, size);
    return false;
}

bool tg_name_source(const struct tg_name_rule *rules, const char *canonical, char *out, size_t size)
{
    const char *hole;
    size_t length;

    for (; rules->source; rules++)
        if (match(rules->canonical, canonical, &hole, &length))
            return fill(rules->source, hole, length, out, size);
    return false;
}

bool tg_name_like(const char *pattern, const char *name)
{
    const char *star = NULL, *from = NULL;

    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            from = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star) { /* let the last star take one character more */
            pattern = star + 1;
            name = ++from;
        } else
            return false;
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

const char *tg_name_quantised(const char *name)
{
    static const struct {
        const char *pattern, *method;
    } known[] = {
        {"*.qweight", "GPTQ or AWQ"},
        {"*.qzeros", "GPTQ or AWQ"},
        {"*.g_idx", "GPTQ"},
        {"*.scales", "GPTQ or AWQ"},
        {"*.SCB", "bitsandbytes"},
        {"*.weight_format", "bitsandbytes"},
        {"*.absmax", "bitsandbytes"},
        {"*.quant_map", "bitsandbytes"},
        {"*.nested_absmax", "bitsandbytes"},
        {"*.nested_quant_map", "bitsandbytes"},
        {"*.quant_state.*", "bitsandbytes"},
        {"*.weight_packed", "compressed-tensors"},
        {"*.weight_scale", "compressed-tensors or fp8"},
        {"*.weight_scale_inv", "fp8"},
        {"*.weight_zero_point", "compressed-tensors"},
        {"*.input_scale", "compressed-tensors or fp8"},
        {"*_blocks", "mxfp4"},
        {"*_scales", "mxfp4"},
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (tg_name_like(known[i].pattern, name))
            return known[i].method;
    return NULL;
}
