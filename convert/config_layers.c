/* Which layers see a window, and what else differs from layer to layer. */
#include <string.h>

#include "convert/config.h"

void tg_layer_attend(struct tg_layer_spec *l, size_t window)
{
    l->mixer = tg_mixer_schema_find(window ? "window" : "softmax");
    l->window = window;
}

void tg_layer_experts(struct tg_layer_spec *l, const struct tg_moe_spec *moe)
{
    l->moe = *moe;
    l->mlp_dim = 0;
    l->mlp_bias = false;
}

int tg_config_sparse_layers(struct tg_json c, const struct tg_moe_spec *moe,
                            struct tg_model_spec *spec, struct tg_err *err)
{
    const struct tg_json dense = tg_json_key(c, "mlp_only_layers");
    size_t step = 1;
    const int rc = tg_config_size_or(c, "decoder_sparse_step", 1, (int64_t)1 << 31, &step, err);

    if (rc != TG_OK)
        return rc;
    if (tg_json_has(dense) && !tg_json_is_array(dense))
        return tg_json_fail(c, "mlp_only_layers", TG_ERR_VALUE, err, "must be an array or null");
    for (size_t i = 0; i < spec->layer_count; i++) {
        bool sparse = (i + 1) % step == 0;
        for (struct tg_json v = tg_json_first(dense); v.node; v = tg_json_next(v))
            sparse = sparse && tg_json_number(v) != (double)i;
        if (sparse)
            tg_layer_experts(&spec->layers[i], moe);
    }
    return TG_OK;
}

int tg_config_window(struct tg_json c, int64_t absent, size_t *window, struct tg_err *err)
{
    int64_t value = tg_json_key(c, "sliding_window").node ? 0 : absent;
    const int rc = tg_json_get_int_or(c, "sliding_window", 1, TG_MAX_WINDOW, &value, err);

    if (rc == TG_OK)
        *window = (size_t)value;
    return rc;
}

static void set_kind(struct tg_model_spec *spec, size_t layer, size_t window)
{
    struct tg_layer_spec *l = &spec->layers[layer];

    tg_layer_attend(l, window);
    l->rope = window && spec->ropes[1].theta > 0;
}

static int read_layer_types(struct tg_json c, struct tg_json types, size_t window,
                            struct tg_model_spec *spec, struct tg_err *err)
{
    size_t i = 0;

    if (!tg_json_is_array(types) || tg_json_count(types) != spec->layer_count)
        return tg_json_fail(c, "layer_types", TG_ERR_VALUE, err,
                            "must be an array of num_hidden_layers = %zu names; it has %zu",
                            spec->layer_count, tg_json_count(types));
    for (struct tg_json t = tg_json_first(types); t.node; t = tg_json_next(t), i++) {
        const char *name = tg_json_string(t);
        const bool slides = !strcmp(name, "sliding_attention");

        if (!slides && strcmp(name, "full_attention") != 0)
            return tg_json_fail(t, "", TG_ERR_UNSUPPORTED, err,
                                "layer type \"%s\" is not supported; known: full_attention, "
                                "sliding_attention",
                                name);
        if (slides && !window)
            return tg_json_fail(t, "", TG_ERR_VALUE, err,
                                "sliding_attention, but use_sliding_window is not true or "
                                "sliding_window is null");
        set_kind(spec, i, slides ? window : 0);
    }
    return TG_OK;
}

int tg_config_layer_types(struct tg_json c, size_t window, size_t period,
                          struct tg_model_spec *spec, struct tg_err *err)
{
    const struct tg_json types = tg_json_key(c, "layer_types");

    if (tg_json_has(types))
        return read_layer_types(c, types, window, spec, err);
    for (size_t i = 0; i < spec->layer_count; i++)
        set_kind(spec, i, period && (i + 1) % period ? window : 0);
    return TG_OK;
}

int tg_config_qwen_windows(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    const struct tg_json types = tg_json_key(c, "layer_types");
    int64_t first = 28;
    bool use = false;
    size_t window;
    int rc;

    if ((rc = tg_json_get_bool_or(c, "use_sliding_window", &use, err)) ||
        (rc = tg_config_window(c, 4096, &window, err)) ||
        (rc = tg_json_get_int_or(c, "max_window_layers", 0, (int64_t)1 << 31, &first, err)))
        return rc;
    if (!use)
        window = 0;
    if (tg_json_has(types))
        return read_layer_types(c, types, window, spec, err);
    for (size_t i = 0; i < spec->layer_count; i++)
        set_kind(spec, i, (int64_t)i >= first ? window : 0);
    return TG_OK;
}
