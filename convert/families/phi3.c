/* Phi-3, 3.5 and 4 (Phi3Config): Llama with q, k and v in one tensor, gate and up in another; a
 * window in every layer if there is one; longrope. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults defaults = {
        .max_positions = 4096, .bos_id = 1, .eos_id = 32000, .norm.eps = 1e-5, .rotary_share = 1};
    size_t window;
    int rc;

    if ((rc = tg_config_decoder(c, &defaults, spec, err)) ||
        (rc = tg_config_window(c, 0, &window, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++)
        tg_layer_attend(&spec->layers[i], window);
    return TG_OK;
}

#define IN "[model.]layers.{i}."
static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    {IN "self_attn.qkv_proj.weight", "layers.{i}.mixer.q.weight", tg_layout_qkv_q},
    {IN "self_attn.qkv_proj.weight", "layers.{i}.mixer.k.weight", tg_layout_qkv_k},
    {IN "self_attn.qkv_proj.weight", "layers.{i}.mixer.v.weight", tg_layout_qkv_v},
    {IN "self_attn.o_proj.weight", "layers.{i}.mixer.o.weight", NULL},
    {IN "mlp.gate_up_proj.weight", "layers.{i}.mlp.gate.weight", tg_layout_half_first},
    {IN "mlp.gate_up_proj.weight", "layers.{i}.mlp.up.weight", tg_layout_half_second},
    {IN "mlp.down_proj.weight", "layers.{i}.mlp.down.weight", NULL},
    {NULL, NULL, NULL},
};
#undef IN

static const char *const types[] = {"phi3", NULL};

const struct tg_family tg_family_phi3 = {
    .name = "phi3",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
