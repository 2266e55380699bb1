#include "convert/targets/plain.h"

#include <string.h>

bool tg_plain_is(const struct tg_layer_spec *l, const char *mixer)
{
    return strcmp(l->mixer->name, mixer) == 0;
}

const struct tg_layer_spec *tg_plain_first(const struct tg_model_spec *spec, const char *mixer)
{
    for (size_t i = 0; i < spec->layer_count; i++)
        if (tg_plain_is(&spec->layers[i], mixer))
            return &spec->layers[i];
    return NULL;
}

int tg_plain_fill(const struct tg_export *x, const struct tg_param *p, float *dst,
                  struct tg_err *err)
{
    const char *dot = strrchr(p->name, '.');

    if (tg_export_has(x, p->name) || !p->is_mixer || !dot || strcmp(dot, ".bias") != 0)
        return tg_export_same(x, p, dst, err);
    memset(dst, 0, p->count * sizeof *dst);
    return TG_OK;
}

void tg_plain_frame(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    const struct tg_norm_spec *n = &spec->norm;
    const struct tg_reason reasons[] = {
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
    tg_remark_model(why, reasons, sizeof reasons / sizeof *reasons);
}

void tg_plain_block(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &spec->layers[i];
    const bool dense = !l->moe.experts;
    const struct tg_reason reasons[] = {
        {dense && l->mlp_kind != TG_MLP_GATED, "its mlp is not gated"},
        {dense && l->mlp_bias, "its mlp has biases"},
        {tg_factor(l->gate_scale) != 1 || tg_factor(l->down_scale) != 1, "its mlp has factors"},
    };

    if (l->residual != TG_RESIDUAL_PRE)
        tg_remark(why, "layer %zu: its residual is \"%s\", must be \"pre\"", i,
                  tg_residual_info(l->residual)->name);
    tg_remark_layer(why, i, reasons, sizeof reasons / sizeof *reasons);
    if (l->activation != TG_ACT_SILU)
        tg_remark(why, "layer %zu: its activation is %s, must be silu", i,
                  tg_activation_name(l->activation));
}

void tg_plain_attention(const struct tg_model_spec *spec, size_t i, struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &spec->layers[i];
    const struct tg_reason reasons[] = {
        {l->window != 0, "it sees a window"},
        {l->qk_norm != TG_QK_NONE, "it has norms of q and k"},
        {l->sinks != 0, "it has sinks"},
        {l->attn_softcap != 0, "its scores are capped"},
        {l->qkv_clip != 0, "its q, k and v are clipped"},
        {l->output_gate, "it has an output gate"},
        {tg_value_dim(l) != l->head_dim, "its values have another size than its keys"},
        {tg_value_heads(l) != l->kv_heads, "it has more value than key heads"},
    };
    tg_remark_layer(why, i, reasons, sizeof reasons / sizeof *reasons);
}
