/* Patterns of tensor names. In a pattern {i} stands for a layer's number and {e} for an expert's,
 * written as Python writes them; a bracketed beginning "[model.]" may be missing (checkpoints saved
 * from the bare decoder); a final '*' stands for the rest of the name. Each pattern has at most one
 * of each. */
#include "convert/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct tg_name_rule tg_decoder_names[] = {
    TG_NAMES_FRAME, TG_NAMES_PRE, TG_NAMES_ATTENTION(NULL), TG_NAMES_MLP, {NULL, NULL, NULL},
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

/* What stands in a pattern's holes, borrowed from the name. */
struct holes {
    const char *at[3]; /* {i}, {e}, '*' */
    size_t length[3];
};
enum { LAYER, EXPERT, REST };

static int number_hole(const char *pattern)
{
    return !strncmp(pattern, "{i}", 3) ? LAYER : !strncmp(pattern, "{e}", 3) ? EXPERT : -1;
}

static bool match(const char *pattern, const char *name, struct holes *h)
{
    *h = (struct holes){0};
    while (*pattern) {
        const int number = number_hole(pattern);
        if (*pattern == '*') {
            h->at[REST] = name;
            h->length[REST] = strlen(name);
            return *name;
        }
        if (number >= 0) {
            if (!(h->length[number] = number_at(name)))
                return false;
            h->at[number] = name;
            name += h->length[number];
            pattern += 3;
        } else if (*pattern++ != *name++)
            return false;
    }
    return !*name;
}

static bool match_source(const char *pattern, const char *name, struct holes *h)
{
    const char *close = *pattern == '[' ? strchr(pattern, ']') : NULL;
    size_t prefix;

    if (!close)
        return match(pattern, name, h);
    prefix = (size_t)(close - pattern - 1);
    if (!strncmp(name, pattern + 1, prefix) && match(close + 1, name + prefix, h))
        return true;
    return match(close + 1, name, h);
}

static bool fill(const char *pattern, const struct holes *h, char *out, size_t size)
{
    size_t n = 0;

    for (; *pattern; pattern++) {
        const int number = number_hole(pattern), hole = *pattern == '*' ? REST : number;
        if (*pattern == '[' || *pattern == ']')
            continue;
        if (hole >= 0) {
            if (h->length[hole] >= size - n)
                return false;
            memcpy(out + n, h->at[hole], h->length[hole]);
            n += h->length[hole];
            pattern += number >= 0 ? 2 : 0;
        } else {
            if (n + 1 >= size)
                return false;
            out[n++] = *pattern;
        }
    }
    out[n] = '\0';
    return true;
}

bool tg_name_canonical(const struct tg_name_rule *rule, const char *source, char *out, size_t size,
                       size_t *expert)
{
    struct holes h;

    if (!match_source(rule->source, source, &h) || !fill(rule->canonical, &h, out, size))
        return false;
    *expert = h.length[EXPERT] ? strtoul(h.at[EXPERT], NULL, 10) : 0;
    return true;
}

bool tg_name_source(const struct tg_name_rule *rule, const char *canonical, size_t expert,
                    char *out, size_t size)
{
    struct holes h;
    char number[24];

    if (!match(rule->canonical, canonical, &h))
        return false;
    h.length[EXPERT] = (size_t)snprintf(number, sizeof number, "%zu", expert);
    h.at[EXPERT] = number;
    return fill(rule->source, &h, out, size);
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

bool tg_name_beyond(const char *pattern, const char *name, size_t layers)
{
    const char *hole = strstr(pattern, "{+}");
    const size_t prefix = hole ? (size_t)(hole - pattern) : 0;
    size_t digits;

    if (!hole || strncmp(pattern, name, prefix) != 0 || !(digits = number_at(name + prefix)))
        return false;
    return strtoul(name + prefix, NULL, 10) >= layers &&
           tg_name_like(hole + 3, name + prefix + digits);
}

const char *tg_name_inner(const char *name)
{
    static const char *const prefixes[] = {"model.language_model.", "language_model.",
                                           "model.text_model.", "text_model."};

    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (!strncmp(name, prefixes[i], strlen(prefixes[i])))
            return name + strlen(prefixes[i]);
    return name;
}

const char *const tg_wrapper_droppable[] = {
    "vision_tower.*",
    "model.vision_tower.*",
    "vision_model.*",
    "model.vision_model.*",
    "vision_encoder.*",
    "visual.*",
    "model.visual.*",
    "multi_modal_projector.*",
    "model.multi_modal_projector.*",
    "audio_tower.*",
    "model.audio_tower.*",
    "image_newline",
    "model.image_newline",
    "mtp.*",
    NULL,
};

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
