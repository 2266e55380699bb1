/* Which hybrids are Qwen3.5 models, by the fields of their specs. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "convert/targets/qwen3_5.h"

/* Each reason once, for the first layer that has it */
static void say(const struct tg_reason *r, size_t count, size_t layer, uint64_t *said,
                struct tg_remarks *why)
{
    for (size_t i = 0; i < count; i++) {
        if (r[i].holds && !(*said >> i & 1))
            tg_remark(why, "layer %zu: %s", layer, r[i].text);
        if (r[i].holds)
            *said |= (uint64_t)1 << i;
    }
}

bool tg_qwen3_5_is_softmax(const struct tg_layer_spec *l)
{
    return l->mixer == tg_mixer_schema_find("softmax");
}

static bool is_linear(const struct tg_layer_spec *l)
{
    return l->mixer == tg_mixer_schema_find("gated_deltanet");
}

const struct tg_layer_spec *tg_qwen3_5_first(const struct tg_model_spec *spec, bool softmax)
{
    for (size_t i = 0; i < spec->layer_count; i++)
        if ((softmax ? tg_qwen3_5_is_softmax : is_linear)(&spec->layers[i]))
            return &spec->layers[i];
    return NULL;
}

size_t tg_qwen3_5_interval(const struct tg_model_spec *spec)
{
    const struct tg_layer_spec *first = tg_qwen3_5_first(spec, true);
    const size_t k = first ? (size_t)(first - spec->layers) + 1 : 0;

    for (size_t i = 0; k && i < spec->layer_count; i++)
        if (tg_qwen3_5_is_softmax(&spec->layers[i]) != ((i + 1) % k == 0))
            return 0;
    return k;
}

static bool scaled(double factor)
{
    return tg_factor(factor) != 1;
}

static void check_model(const struct tg_model_spec *s, struct tg_remarks *why)
{
    const struct tg_reason reasons[] = {
        {s->norm.kind != TG_NORM_RMS || s->norm.bare || s->norm.bias,
         "norms are RMS norms with a weight and no bias"},
        {s->no_norm_out, "there is a norm before the head"},
        {s->head_bias, "the head has no bias"},
        {scaled(s->embed_scale), "embeddings are not scaled"},
        {scaled(s->logit_scale) || s->logit_softcap != 0, "logits are not scaled or capped"},
        {s->embed_dim != 0, "embeddings have the model's width"},
        {s->learned_positions != 0, "positions are not learned"},
    };

    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].holds)
            tg_remark(why, "in this architecture %s", reasons[i].text);
}

static void check_dense(const struct tg_model_spec *s, size_t i, uint64_t *said,
                        struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &s->layers[i];
    const struct tg_reason reasons[] = {
        {l->moe.experts > 0, "its mlp is experts (qwen3_5_moe holds such)"},
        {!l->moe.experts && l->mlp_bias, "the mlp has biases"},
        {!l->moe.experts && l->mlp_dim != s->layers[0].mlp_dim,
         "the mlp has another size than layer 0's"},
    };

    say(reasons, sizeof reasons / sizeof *reasons, i, said, why);
}

/* Softmax over all scores, renormalised, is softmax over the taken ones. */
static void check_sparse(const struct tg_model_spec *s, size_t i, uint64_t *said,
                         struct tg_remarks *why)
{
    const struct tg_moe_spec *m = &s->layers[i].moe, *n = &s->layers[0].moe;
    const struct tg_reason reasons[] = {
        {!m->experts, "its mlp is dense, where the architecture has experts (qwen3_5 holds such)"},
        {m->experts && m->router == TG_ROUTER_SIGMOID, "experts are chosen by sigmoids"},
        {m->experts && m->router == TG_ROUTER_SOFTMAX_TOP && !m->renormalise,
         "the weights of a token's experts do not sum to 1 (norm_topk_prob is false)"},
        {m->router_bias || m->correction || m->expert_bias, "router or experts have biases"},
        {scaled(m->scale), "the experts' sum is scaled"},
        {m->experts && n->experts &&
             (m->experts != n->experts || m->per_token != n->per_token ||
              m->mlp_dim != n->mlp_dim || m->shared_dim != n->shared_dim),
         "experts of another number or size than in layer 0"},
    };

    say(reasons, sizeof reasons / sizeof *reasons, i, said, why);
}

static void check_frame(const struct tg_layer_spec *l, size_t i, uint64_t *said,
                        struct tg_remarks *why)
{
    const struct tg_reason reasons[] = {
        {l->residual != TG_RESIDUAL_PRE, "norms do not stand before its branches alone"},
        {scaled(l->mixer_scale) || scaled(l->mlp_scale), "its branches are scaled"},
        {l->mlp_kind != TG_MLP_GATED || l->activation != TG_ACT_SILU,
         "the mlp is not a gated one with silu"},
        {scaled(l->gate_scale) || scaled(l->down_scale), "parts of the mlp are scaled"},
        {!tg_qwen3_5_is_softmax(l) && !is_linear(l),
         "the mixer is neither softmax without a window nor gated_deltanet"},
    };

    say(reasons, sizeof reasons / sizeof *reasons, i, said, why);
}

static bool has_bias(const struct tg_layer_spec *l)
{
    return l->qkv_bias || l->o_bias || l->qk_norm_bias;
}

/* Frequencies that do not depend on the text's length */
static bool known_rope(const struct tg_rope *r)
{
    return r->theta > 0 && (r->kind == TG_ROPE_DEFAULT || r->kind == TG_ROPE_LINEAR ||
                            r->kind == TG_ROPE_LLAMA3 || r->kind == TG_ROPE_YARN);
}

static bool plain_scale(const struct tg_layer_spec *l)
{
    return fabs(l->attn_scale * sqrt((double)l->head_dim) - 1) < 1e-6;
}

static void check_softmax(const struct tg_model_spec *s, size_t i, uint64_t *said,
                          struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &s->layers[i], *f = tg_qwen3_5_first(s, true);
    const struct tg_reason reasons[] = {
        {l->qk_norm == TG_QK_NONE, "softmax without q/k norms: the architecture normalises every "
                                   "head of q and k, which destroys their magnitude"},
        {l->qk_norm == TG_QK_EACH || l->qk_norm == TG_QK_WIDE,
         "q/k norms are not one weight for all heads"},
        {has_bias(l), "attention has biases"},
        {l->sinks > 0, "softmax has sinks"},
        {l->attn_softcap != 0, "attention scores are capped"},
        {l->qkv_clip != 0, "q, k and v are clipped"},
        {!l->rotary_dim, "softmax without rotary positions"},
        {l->rotary_dim && !known_rope(&s->ropes[l->rope]),
         "its rope is none of default, linear, llama3, yarn"},
        {!plain_scale(l), "attention scores are not scaled by 1 / sqrt(head size)"},
        {tg_value_dim(l) != l->head_dim || tg_value_heads(l) != l->kv_heads,
         "values have not the size and number of keys"},
        {l->heads != f->heads || l->kv_heads != f->kv_heads || l->head_dim != f->head_dim ||
             l->rotary_dim != f->rotary_dim || l->rope != f->rope,
         "softmax of other heads or rotary than in layers before"},
    };

    say(reasons, sizeof reasons / sizeof *reasons, i, said, why);
}

static void check_linear(const struct tg_model_spec *s, size_t i, uint64_t *said,
                         struct tg_remarks *why)
{
    const struct tg_layer_spec *l = &s->layers[i], *f = tg_qwen3_5_first(s, false);
    const struct tg_recurrent_spec *r = &l->recurrent;
    const struct tg_reason reasons[] = {
        {l->window > 0, "gated_deltanet with a window beside it"},
        {l->rotary_dim && !l->linear_plain, "rotary in the linear branch (rotary=false has none)"},
        {l->qk_norm != TG_QK_NONE, "gated_deltanet with q/k norms"},
        {has_bias(l), "gated_deltanet with biases"},
        {l->output_gate, "gated_deltanet with an output gate of its own (output_gate=false)"},
        {l->qkv_clip != 0, "gated_deltanet with clipped q, k and v"},
        {r->conv < 2, "gated_deltanet without a convolution of 2 taps or more (conv=4)"},
        {l->heads != l->kv_heads, "query heads of gated_deltanet share keys (kv=expanded)"},
        {tg_value_dim(l) != l->head_dim, "keys and values of gated_deltanet differ in size"},
        {r->negative_eigenvalues, "gated_deltanet with negative eigenvalues"},
        {r->norm_eps > 0 && r->norm_eps != s->norm.eps,
         "gated_deltanet with another norm epsilon than the model's"},
        {l->heads != f->heads || tg_value_heads(l) != tg_value_heads(f) ||
             l->head_dim != f->head_dim || r->conv != f->recurrent.conv,
         "gated_deltanet of other sizes than in layers before"},
    };

    say(reasons, sizeof reasons / sizeof *reasons, i, said, why);
}

void tg_qwen3_5_check(const struct tg_model_spec *s, bool sparse, struct tg_remarks *why)
{
    uint64_t frame = 0, mlp = 0, softmax = 0, linear = 0;

    check_model(s, why);
    for (size_t i = 0; i < s->layer_count; i++) {
        check_frame(&s->layers[i], i, &frame, why);
        (sparse ? check_sparse : check_dense)(s, i, &mlp, why);
        if (tg_qwen3_5_is_softmax(&s->layers[i]))
            check_softmax(s, i, &softmax, why);
        else if (is_linear(&s->layers[i]))
            check_linear(s, i, &linear, why);
    }
    if (!tg_qwen3_5_first(s, true))
        tg_remark(why, "no layer is softmax: one at least must be kept");
}

void tg_qwen3_5_pitfalls(const struct tg_model_spec *s, struct tg_remarks *why)
{
    if (tg_qwen3_5_first(s, true) && !tg_qwen3_5_interval(s))
        tg_remark(why, "softmax layers are not every k-th (every:k, the last of each k): SGLang "
                       "counts them by full_attention_interval alone and would load this model "
                       "with other layers");
}

/* Linear layers are all alike, a teacher's own and those that take the heads of its softmax layers.
 */
static const char *check_teacher(const struct tg_model_spec *teacher, struct tg_remarks *why)
{
    const struct tg_layer_spec *soft = tg_qwen3_5_first(teacher, true);
    const struct tg_layer_spec *lin = tg_qwen3_5_first(teacher, false);

    if (why->count)
        return why->lines[0];
    if (lin && (lin->heads != soft->heads || lin->head_dim != soft->head_dim ||
                tg_value_heads(lin) != soft->heads))
        return "its linear layers have other heads than its softmax layers, whose heads changed "
               "layers take";
    return why->failed ? "out of memory" : NULL;
}

int tg_qwen3_5_plan(const char *name, bool sparse, const struct tg_model_spec *teacher,
                    const char *mixer, char *text, size_t size, struct tg_err *err)
{
    const struct tg_layer_spec *lin = tg_qwen3_5_first(teacher, false);
    struct tg_remarks why = {0};
    int rc = TG_OK;

    tg_qwen3_5_check(teacher, sparse, &why);
    const char *reason = check_teacher(teacher, &why);
    if (reason)
        rc = tg_fail(err, TG_ERR_UNSUPPORTED, "%s cannot hold a hybrid of this teacher: %s", name,
                     reason);
    else if (mixer && strcmp(mixer, "gated_deltanet") != 0)
        rc = tg_fail(err, TG_ERR_UNSUPPORTED,
                     "%s holds changed layers of mixer gated_deltanet, not %s", name, mixer);
    else
        snprintf(text, size,
                 "gated_deltanet,window=0,rotary=false,conv=%zu,kv=expanded,output_gate=false,"
                 "negative_eigenvalues=false",
                 lin ? lin->recurrent.conv : 4);
    tg_remarks_release(&why);
    return rc;
}
