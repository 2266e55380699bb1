#include "convert/targets/plain.h"

struct row {
    bool bad;
    const char *what;
};

static void say(const struct row *rows, size_t count, struct tg_remarks *why)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].bad)
            tg_remark(why, "%s", rows[i].what);
}

static void say_of(size_t layer, const struct row *rows, size_t count, struct tg_remarks *why)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].bad)
            tg_remark(why, "layer %zu: %s", layer, rows[i].what);
}

void tg_plain_frame(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    const struct tg_norm_spec *n = &spec->norm;
    const struct row rows[] = {
        {n->kind != TG_NORM_RMS, "norms are LayerNorm, must be RMS norms"},
        {n->plus_one, "the factor of norms is 1 + weight, must be the weight"},
        {n->bare, "norms have no weights"},
        {n->kind == TG_NORM_RMS && n->bias, "norms have biases"},
        {spec->no_norm_out, "there is no norm before the head"},
        {spec->head_bias, "the head has a bias"},
        {spec->logit_softcap != 0, "logits are capped"},
        {spec->embed_dim != 0, "embeddings have another size than the width"},
        {spec->learned_positions != 0, "positions are learned"},
    };
    say(rows, sizeof rows / sizeof *rows, why);
}

void tg_plain_block(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &spec->layers[i];
    const bool dense = !l->moe.experts;
    const struct row rows[] = {
        {dense && l->mlp_kind != TG_MLP_GATED, "its mlp is not gated"},
        {dense && l->mlp_bias, "its mlp has biases"},
        {tg_factor(l->gate_scale) != 1 || tg_factor(l->down_scale) != 1, "its mlp has factors"},
    };

    if (l->residual != TG_RESIDUAL_PRE)
        tg_remark(why, "layer %zu: its residual is \"%s\", must be \"pre\"", i,
                  tg_residual_info(l->residual)->name);
    say_of(i, rows, sizeof rows / sizeof *rows, why);
    if (l->activation != TG_ACT_SILU)
        tg_remark(why, "layer %zu: its activation is %s, must be silu", i,
                  tg_activation_name(l->activation));
}

void tg_plain_attention(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &spec->layers[i];
    const struct row rows[] = {
        {l->window != 0, "it sees a window"},
        {l->qk_norm != TG_QK_NONE, "it has norms of q and k"},
        {l->sinks != 0, "it has sinks"},
        {l->attn_softcap != 0, "its scores are capped"},
        {l->qkv_clip != 0, "its q, k and v are clipped"},
        {l->output_gate, "it has an output gate"},
        {tg_value_dim(l) != l->head_dim, "its values have another size than its keys"},
        {tg_value_heads(l) != l->kv_heads, "it has more value than key heads"},
    };
    say_of(i, rows, sizeof rows / sizeof *rows, why);
}
