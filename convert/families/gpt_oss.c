/* gpt-oss (GptOssConfig): experts with biases in every layer, chosen before the softmax; a window
 * in every other layer; one sink per head; yarn. Gate and up columns take turns in one tensor of
 * matrices stored [in,out]; mxfp4 has them [out,in]. */
#include <string.h>

#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .kv_heads = 8,
        .head_dim = 64,
        .max_positions = 131072,
        .bos_id = -1,
        .eos_id = -1,
        .norm.eps = 1e-5,
        .theta = 150000,
        .layer.sinks = 1,
    };
    struct tg_moe_spec moe = {.experts = 128,
                              .per_token = 4,
                              .router = TG_ROUTER_TOP_SOFTMAX,
                              .router_bias = true,
                              .expert_bias = true};
    size_t window;
    bool bias = true;
    int rc;

    if (!tg_json_has(tg_json_key(c, "rope_scaling")) &&
        !tg_json_has(tg_json_key(c, "rope_parameters")))
        return tg_json_fail(c, "rope_parameters", TG_ERR_VALUE, err, "is missing");
    if ((rc = tg_json_get_bool_or(c, "attention_bias", &bias, err)))
        return rc;
    d.layer.qkv_bias = d.layer.o_bias = bias;
    if ((rc = tg_config_decoder(c, &d, spec, err)) ||
        (rc = tg_config_window(c, 128, &window, err)) ||
        (rc = tg_config_layer_types(c, window, 2, spec, err)) ||
        (rc = tg_config_size_or(c, "num_local_experts", 1, TG_MAX_EXPERTS, &moe.experts, err)) ||
        (rc = tg_config_size_or(c, "num_experts_per_tok", 1, TG_MAX_EXPERTS, &moe.per_token, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++) {
        moe.mlp_dim = spec->layers[i].mlp_dim;
        spec->layers[i].activation = TG_ACT_CLAMPED_GLU; /* whatever hidden_act says */
        tg_layer_experts(&spec->layers[i], &moe);
    }
    return TG_OK;
}

/* Parameter [E,R,C], or a bias [E,R]; stored [E,C,n R] or [E,n R], of which every n-th column from
 * `first` on is taken. */
static void columns(const struct tg_layout_ask *ask, struct tg_layout *out, size_t n, size_t first)
{
    const int64_t *shape = ask->param->shape;
    const size_t E = (size_t)shape[0], R = (size_t)shape[1],
                 C = ask->param->rank == 3 ? (size_t)shape[2] : 1;
    struct tg_piece *p = &out->piece[out->pieces++];

    out->rank = ask->param->rank;
    out->shape[0] = shape[0];
    if (out->rank == 3)
        out->shape[1] = shape[2];
    out->shape[out->rank - 1] = shape[1] * (int64_t)n;
    *p = (struct tg_piece){
        .from = first, .loops = 3, .loop = {{E, C * n * R, R * C}, {R, n, C}, {C, n * R, 1}}};
}

static void gate_columns(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    columns(ask, out, 2, 0);
}

static void up_columns(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    columns(ask, out, 2, 1);
}

static void down_columns(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    columns(ask, out, 1, 0);
}

/* mxfp4 keeps the matrices [out,in]: rows of gate and up take turns, down is as it is. */
static void rows(const struct tg_layout_ask *ask, struct tg_layout *out, size_t first)
{
    const int64_t *shape = ask->param->shape;
    const size_t E = (size_t)shape[0], R = (size_t)shape[1], C = (size_t)shape[2];
    struct tg_piece *p = &out->piece[out->pieces++];

    out->rank = 3;
    memcpy(out->shape, shape, 3 * sizeof *shape);
    out->shape[1] *= 2;
    *p = (struct tg_piece){
        .from = first * C, .loops = 3, .loop = {{E, 2 * R * C, R * C}, {R, 2 * C, C}, {C, 1, 1}}};
}

static void gate_rows(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    rows(ask, out, 0);
}

static void up_rows(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    rows(ask, out, 1);
}

#define IN "[model.]layers.{i}."
static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_ATTENTION(NULL),
    {IN "self_attn.sinks", "layers.{i}.mixer.sink", tg_layout_squeeze},
    {IN "mlp.router.weight", "layers.{i}.moe.router.weight", NULL},
    {IN "mlp.router.bias", "layers.{i}.moe.router.bias", NULL},
    {IN "mlp.experts.gate_up_proj", "layers.{i}.moe.gate.weight", gate_columns},
    {IN "mlp.experts.gate_up_proj", "layers.{i}.moe.up.weight", up_columns},
    {IN "mlp.experts.gate_up_proj_bias", "layers.{i}.moe.gate.bias", gate_columns},
    {IN "mlp.experts.gate_up_proj_bias", "layers.{i}.moe.up.bias", up_columns},
    {IN "mlp.experts.down_proj", "layers.{i}.moe.down.weight", down_columns},
    {IN "mlp.experts.gate_up_proj_blocks", "layers.{i}.moe.gate.weight", gate_rows},
    {IN "mlp.experts.gate_up_proj_blocks", "layers.{i}.moe.up.weight", up_rows},
    {IN "mlp.experts.down_proj_blocks", "layers.{i}.moe.down.weight", NULL},
    {IN "mlp.experts.down_proj_bias", "layers.{i}.moe.down.bias", NULL},
    {NULL, NULL, NULL},
};
#undef IN

static const char *const types[] = {"gpt_oss", NULL};

const struct tg_family tg_family_gpt_oss = {
    .name = "gpt_oss",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
