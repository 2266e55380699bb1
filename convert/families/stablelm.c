/* StableLM (StableLmConfig): layer norms, a quarter of each head rotated; with
 * use_parallel_residual one norm for both branches; with qk_layernorm a norm of its own for every
 * head. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .kv_heads = 32,
        .max_positions = 4096,
        .bos_id = 0,
        .eos_id = 0,
        .norm = {TG_NORM_LAYER, .eps = 1e-5, .bias = true},
        .rotary_share = 0.25,
        .keys.eps = "layer_norm_eps",
    };
    bool norms = false, parallel = false;
    int rc;

    if ((rc = tg_json_get_bool_or(c, "use_qkv_bias", &d.layer.qkv_bias, err)) ||
        (rc = tg_json_get_bool_or(c, "qk_layernorm", &norms, err)) ||
        (rc = tg_json_get_bool_or(c, "use_parallel_residual", &parallel, err)))
        return rc;
    d.layer.qk_norm = norms ? TG_QK_EACH : TG_QK_NONE;
    d.layer.residual = parallel ? TG_RESIDUAL_SHARED : TG_RESIDUAL_PRE;
    return tg_config_decoder(c, &d, spec, err);
}

#define IN "[model.]layers.{i}.self_attn."
static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_ATTENTION(NULL),
    {IN "q_layernorm.norms.{e}.weight", "layers.{i}.mixer.q_norm.weight", tg_layout_expert},
    {IN "k_layernorm.norms.{e}.weight", "layers.{i}.mixer.k_norm.weight", tg_layout_expert},
    TG_NAMES_MLP,
    {NULL, NULL, NULL},
};
#undef IN

static const char *const types[] = {"stablelm", NULL};

const struct tg_family tg_family_stablelm = {
    .name = "stablelm",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
