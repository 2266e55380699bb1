#include "tests/specs.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/strbuf.h"

#define DIFFER(field)                                                                              \
    if (a->field != b->field)                                                                      \
    return #field

static const char *layer_difference(const struct tg_layer_spec *a, const struct tg_layer_spec *b)
{
    DIFFER(mixer);
    DIFFER(heads);
    DIFFER(kv_heads);
    DIFFER(head_dim);
    DIFFER(rotary_dim);
    DIFFER(window);
    DIFFER(sinks);
    DIFFER(feature_dim);
    DIFFER(feature_map);
    DIFFER(gated);
    DIFFER(qkv_bias);
    DIFFER(o_bias);
    DIFFER(qk_norm);
    DIFFER(attn_scale);
    DIFFER(mlp_dim);
    DIFFER(activation);
    DIFFER(mlp_bias);
    return NULL;
}

const char *tg_spec_difference(const struct tg_model_spec *a, const struct tg_model_spec *b)
{
    if (strcmp(a->base_family, b->base_family) != 0)
        return "base_family";
    DIFFER(vocab);
    DIFFER(width);
    DIFFER(norm.eps);
    DIFFER(tied_head);
    DIFFER(ropes[0].kind);
    DIFFER(ropes[0].theta);
    DIFFER(ropes[0].factor);
    DIFFER(ropes[0].low_freq_factor);
    DIFFER(ropes[0].high_freq_factor);
    DIFFER(ropes[0].original_max_positions);
    DIFFER(max_positions);
    DIFFER(bos_id);
    DIFFER(eos_count);
    if (memcmp(a->eos_ids, b->eos_ids, a->eos_count * sizeof *a->eos_ids) != 0)
        return "eos_ids";
    DIFFER(layer_count);
    for (size_t i = 0; i < a->layer_count; i++) {
        const char *field = layer_difference(&a->layers[i], &b->layers[i]);
        if (field)
            return field;
    }
    return NULL;
}

char *tg_json_with(const char *text, const char *key, const char *value)
{
    struct tg_json_doc *object = NULL;
    struct tg_json_out j;
    struct tg_strbuf to;
    char *made = NULL;

    tg_strbuf_init(&to, 1 << 20);
    if (tg_json_parse(&object, text, strlen(text), "object", TG_JSON_INFINITY, NULL))
        goto out;
    tg_jout_init(&j, &to, 0);
    tg_jout_object(&j, NULL);
    for (struct tg_json c = tg_json_first(tg_json_root(object)); c.node; c = tg_json_next(c))
        if (strcmp(tg_json_name(c), key) != 0)
            tg_jout_copy(&j, tg_json_name(c), c);
    tg_jout_end_object(&j);
    if (value && !to.failed) { /* as it stands: the writer has no NaN */
        to.len--;
        tg_strbuf_printf(&to, "%s\"%s\":%s}", to.len > 1 ? "," : "", key, value);
    }
    made = tg_strbuf_take(&to);
out:
    tg_strbuf_release(&to);
    tg_json_free(object);
    return made;
}
