/* EXAONE 4 (Exaone4Config): norms after the branches, norms of q and k by head; if there is a
 * window, three layers of four have it and the others are not rotated. */
#include <string.h>

#include "convert/config.h"
#include "convert/names.h"

/* sliding_window_pattern: a number, or a string such as "LLLG" whose length says the same */
static int read_period(struct tg_json c, size_t *period, struct tg_err *err)
{
    const struct tg_json v = tg_json_key(c, "sliding_window_pattern");

    *period = 4;
    if (tg_json_is_string(v) && *tg_json_string(v)) {
        *period = strlen(tg_json_string(v));
        return TG_OK;
    }
    return tg_config_size_or(c, "sliding_window_pattern", 0, (int64_t)1 << 31, period, err);
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults defaults = {
        .kv_heads = 32,
        .max_positions = 2048,
        .bos_id = 0,
        .eos_id = 2,
        .norm.eps = 1e-5,
        .layer = {.residual = TG_RESIDUAL_POST, .qk_norm = TG_QK_HEAD},
    };
    size_t window, period;
    int rc;

    if ((rc = tg_config_decoder(c, &defaults, spec, err)) ||
        (rc = tg_config_window(c, 4096, &window, err)) || (rc = read_period(c, &period, err)) ||
        (rc = tg_config_layer_types(c, window, period, spec, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++)
        if (window && !spec->layers[i].window)
            spec->layers[i].rotary_dim = 0;
    return TG_OK;
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME, TG_NAMES_POST, TG_NAMES_ATTENTION(NULL), TG_NAMES_MLP, {NULL, NULL, NULL},
};

static const char *const types[] = {"exaone4", NULL};

const struct tg_family tg_family_exaone4 = {
    .name = "exaone4",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
