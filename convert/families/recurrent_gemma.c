/* RecurrentGemma (RecurrentGemmaConfig): two RG-LRU blocks, then one of windowed attention with
 * half-rotated heads; Gemma's norms; embeddings times width^0.5 in bfloat16; half of
 * intermediate_size in each half of the mlp. */
#include <math.h>
#include <string.h>

#include "convert/config_recurrent.h"
#include "convert/names.h"

/* block_types, repeated over the layers */
static int read_kinds(struct tg_json c, size_t layer_count, bool *recurs, struct tg_err *err)
{
    const struct tg_json types = tg_json_key(c, "block_types");
    struct tg_json t = tg_json_first(types);

    for (size_t i = 0; i < layer_count && !tg_json_has(types); i++)
        recurs[i] = i % 3 != 2;
    if (!tg_json_has(types))
        return TG_OK;
    if (!tg_json_is_array(types) || !tg_json_count(types))
        return tg_json_fail(c, "block_types", TG_ERR_VALUE, err, "must be an array of names");
    for (size_t i = 0; i < layer_count; i++) {
        const char *name = tg_json_string(t);
        recurs[i] = !strcmp(name, "recurrent");
        if (!recurs[i] && strcmp(name, "attention") != 0)
            return tg_json_fail(t, "", TG_ERR_UNSUPPORTED, err,
                                "block type \"%s\" is not supported; known: recurrent, attention",
                                name);
        t = tg_json_next(t);
        if (!t.node)
            t = tg_json_first(types);
    }
    return TG_OK;
}

/* As its buffer is held: to the nearest bfloat16 */
static double embed_scale(size_t width)
{
    const float exact = (float)sqrt((double)width);
    uint32_t bits;
    float rounded;

    memcpy(&bits, &exact, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    memcpy(&rounded, &bits, sizeof rounded);
    return (double)rounded;
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {.max_positions = 8192,
                                   .bos_id = 2,
                                   .eos_id = 1,
                                   .norm.plus_one = true,
                                   .activation = "gelu_pytorch_tanh",
                                   .tied = true,
                                   .rotary_share = 0.5,
                                   .layer = {.o_bias = true, .mlp_bias = true},
                                   .keys.activation = "hidden_activation"};
    struct tg_recurrent_spec r = {.conv = 4};
    bool recurs[TG_MAX_LAYERS];
    size_t window = 2048;
    double cap = 30;
    int rc;

    if ((rc = tg_json_get_bool_or(c, "attention_bias", &d.layer.qkv_bias, err)) ||
        (rc = tg_config_decoder(c, &d, spec, err)) ||
        (rc = tg_config_size_or(c, "attention_window_size", 1, TG_MAX_WINDOW, &window, err)) ||
        (rc = tg_config_size_or(c, "conv1d_width", 1, 32, &r.conv, err)) ||
        (rc = tg_json_get_num_or(c, "logits_soft_cap", 1e-6, 1e9, &cap, err)) ||
        (rc = read_kinds(c, spec->layer_count, recurs, err)))
        return rc;
    if (spec->layers[0].activation != TG_ACT_GELU_TANH)
        return tg_json_fail(c, "hidden_activation", TG_ERR_UNSUPPORTED, err,
                            "only the tanh form of gelu is supported");
    if (spec->layers[0].mlp_dim % 2)
        return tg_json_fail(c, "intermediate_size", TG_ERR_VALUE, err, "%zu is not even",
                            spec->layers[0].mlp_dim);
    r.inner = spec->width;
    r.groups = spec->layers[0].heads;
    if ((rc = tg_config_size_or(c, "lru_width", 1, TG_MAX_MLP, &r.inner, err)))
        return rc;
    spec->embed_scale = embed_scale(spec->width);
    spec->logit_softcap = cap;
    for (size_t i = 0; i < spec->layer_count; i++) {
        struct tg_layer_spec *l = &spec->layers[i];
        l->mlp_dim /= 2;
        if (recurs[i])
            tg_layer_recur(l, "rglru", &r);
        else
            tg_layer_attend(l, window);
    }
    return TG_OK;
}

/* Stored [G, I / G], a parameter [I] */
static void flat(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const size_t G = ask->layer->recurrent.groups;
    struct tg_piece *p = &out->piece[out->pieces++];

    out->rank = 2;
    out->shape[0] = (int64_t)G;
    out->shape[1] = ask->param->shape[0] / (int64_t)G;
    p->loops = 1;
    p->loop[0].count = ask->param->count;
    p->loop[0].from = p->loop[0].to = 1;
}

static const struct tg_name_rule names[] = {
    {"[model.]embed_tokens.weight", "embed.weight", NULL},
    {"[model.]final_norm.weight", "norm_out.weight", NULL},
    {"lm_head.weight", "head.weight", NULL},
    {"[model.]layers.{i}.temporal_pre_norm.weight", "layers.{i}.norm_in.weight", NULL},
    {"[model.]layers.{i}.channel_pre_norm.weight", "layers.{i}.norm_mlp.weight", NULL},
    {"[model.]layers.{i}.mlp_block.gate_proj.weight", "layers.{i}.mlp.gate.weight", NULL},
    {"[model.]layers.{i}.mlp_block.gate_proj.bias", "layers.{i}.mlp.gate.bias", NULL},
    {"[model.]layers.{i}.mlp_block.up_proj.weight", "layers.{i}.mlp.up.weight", NULL},
    {"[model.]layers.{i}.mlp_block.up_proj.bias", "layers.{i}.mlp.up.bias", NULL},
    {"[model.]layers.{i}.mlp_block.down_proj.weight", "layers.{i}.mlp.down.weight", NULL},
    {"[model.]layers.{i}.mlp_block.down_proj.bias", "layers.{i}.mlp.down.bias", NULL},
    {"[model.]layers.{i}.temporal_block.q_proj.weight", "layers.{i}.mixer.q.weight", NULL},
    {"[model.]layers.{i}.temporal_block.q_proj.bias", "layers.{i}.mixer.q.bias", NULL},
    {"[model.]layers.{i}.temporal_block.k_proj.weight", "layers.{i}.mixer.k.weight", NULL},
    {"[model.]layers.{i}.temporal_block.k_proj.bias", "layers.{i}.mixer.k.bias", NULL},
    {"[model.]layers.{i}.temporal_block.v_proj.weight", "layers.{i}.mixer.v.weight", NULL},
    {"[model.]layers.{i}.temporal_block.v_proj.bias", "layers.{i}.mixer.v.bias", NULL},
    {"[model.]layers.{i}.temporal_block.o_proj.weight", "layers.{i}.mixer.o.weight", NULL},
    {"[model.]layers.{i}.temporal_block.o_proj.bias", "layers.{i}.mixer.o.bias", NULL},
    {"[model.]layers.{i}.temporal_block.linear_x.weight", "layers.{i}.mixer.x.weight", NULL},
    {"[model.]layers.{i}.temporal_block.linear_x.bias", "layers.{i}.mixer.x.bias", NULL},
    {"[model.]layers.{i}.temporal_block.linear_y.weight", "layers.{i}.mixer.y.weight", NULL},
    {"[model.]layers.{i}.temporal_block.linear_y.bias", "layers.{i}.mixer.y.bias", NULL},
    {"[model.]layers.{i}.temporal_block.linear_out.weight", "layers.{i}.mixer.out.weight", NULL},
    {"[model.]layers.{i}.temporal_block.linear_out.bias", "layers.{i}.mixer.out.bias", NULL},
    {"[model.]layers.{i}.temporal_block.conv_1d.weight", "layers.{i}.mixer.conv.weight",
     tg_layout_squeeze},
    {"[model.]layers.{i}.temporal_block.conv_1d.bias", "layers.{i}.mixer.conv.bias", NULL},
    {"[model.]layers.{i}.temporal_block.rg_lru.input_gate_weight",
     "layers.{i}.mixer.input_gate.weight", NULL},
    {"[model.]layers.{i}.temporal_block.rg_lru.input_gate_bias", "layers.{i}.mixer.input_gate.bias",
     flat},
    {"[model.]layers.{i}.temporal_block.rg_lru.recurrent_gate_weight",
     "layers.{i}.mixer.decay_gate.weight", NULL},
    {"[model.]layers.{i}.temporal_block.rg_lru.recurrent_gate_bias",
     "layers.{i}.mixer.decay_gate.bias", flat},
    {"[model.]layers.{i}.temporal_block.rg_lru.recurrent_param", "layers.{i}.mixer.decay", NULL},
    {NULL, NULL, NULL},
};

static const char *const types[] = {"recurrent_gemma", NULL};

const struct tg_family tg_family_recurrent_gemma = {
    .name = "recurrent_gemma",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
