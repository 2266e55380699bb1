/* Private to targets: Qwen3.5's text models, dense and with experts: pre-norm layers of softmax
 * attention with q/k norms and an output gate, or of Gated DeltaNet. Layouts and engines:
 * docs/deploying.md.
 *
 * Two things stand between a Qwen3-like hybrid and such a model, apart so that a format that has
 * only one of them takes that one: how layers are built (tg_qwen3_5_shape, tg_qwen3_5_fill), and
 * norms as 1 + w (tg_qwen3_5_norms, tg_qwen3_5_fold). */
#ifndef TG_CONVERT_TARGETS_QWEN3_5_H
#define TG_CONVERT_TARGETS_QWEN3_5_H

#include "convert/target.h"

/* What the architecture cannot hold: `sparse` with experts in every layer, else with none */
void tg_qwen3_5_check(const struct tg_model_spec *spec, bool sparse, struct tg_remarks *why);
/* Layers in an order that an engine takes for another */
void tg_qwen3_5_pitfalls(const struct tg_model_spec *spec, struct tg_remarks *why);
/* The k of a spec whose layer i is softmax where k divides i + 1; 0: there is none */
size_t tg_qwen3_5_interval(const struct tg_model_spec *spec);
/* A plan's mixer for a teacher that fits (target.h) */
int tg_qwen3_5_plan(const struct tg_target *t, const struct tg_model_spec *teacher,
                    const char *mixer, char *text, size_t size, struct tg_err *err);
bool tg_qwen3_5_is_softmax(const struct tg_layer_spec *l);
/* The first layer of either kind; NULL: there is none */
const struct tg_layer_spec *tg_qwen3_5_first(const struct tg_model_spec *spec, bool softmax);

/* The spec of a model that fits, as the family's reader makes it: an output gate in each softmax
 * layer, a shared expert beside others. Its norms stay as they are. */
void tg_qwen3_5_shape(struct tg_model_spec *spec);
/* Parameter p of a spec of that shape: a gate that was not there is zero rows, sigmoid 1/2, and
 * what it halves is doubled; a shared expert that was not there gives zero. */
int tg_qwen3_5_fill(const struct tg_export *x, const struct tg_param *p, float *dst,
                    struct tg_err *err);

/* Makes norms of a weight norms of 1 + weight, and unties the head if the last one's weights need
 * its columns. Notes what cannot be stored exactly. Nothing to do where norms are so already. */
int tg_qwen3_5_norms(struct tg_export *x, struct tg_err *err);
/* After the fill: a norm's weights less 1, and what they leave over in the columns of the linears
 * that follow, a power of two */
int tg_qwen3_5_fold(const struct tg_export *x, const struct tg_param *p, float *dst,
                    struct tg_err *err);

/* Both together, the `adapt` and `fill` of config.json's targets */
int tg_qwen3_5_adapt(struct tg_export *x, struct tg_err *err);
int tg_qwen3_5_fill_folded(const struct tg_export *x, const struct tg_param *p, float *dst,
                           struct tg_err *err);

/* mrope_section of so many rotated pairs, of time, height and width: ceil(n / 3), ceil((n - 1) /
 * 3), ceil((n - 2) / 3). Interleaved, it gives every pair a position whoever reads it. */
void tg_qwen3_5_sections(size_t pairs, int sections[3]);
/* config.json, but for what only models with experts say */
void tg_qwen3_5_config(const struct tg_export *x, const char *model_class, const char *type,
                       size_t mlp_dim, struct tg_json_out *out);

/* "mixer.q.weight" of "layers.3.mixer.q.weight"; outside layers the whole name */
const char *tg_qwen3_5_part(const struct tg_param *p);

/* Names that both write, of all but the mlp */
#define TG_WRITE_QWEN3_5                                                                           \
    {"model.embed_tokens.weight", "embed.weight", NULL},                                           \
        {"model.norm.weight", "norm_out.weight", NULL}, {"lm_head.weight", "head.weight", NULL},   \
        {"model.layers.{i}.input_layernorm.weight", "layers.{i}.norm_in.weight", NULL},            \
        {"model.layers.{i}.post_attention_layernorm.weight", "layers.{i}.norm_mlp.weight", NULL},  \
        {"model.layers.{i}.linear_attn.in_proj_qkv.weight", "layers.{i}.mixer.q.weight",           \
         tg_qwen3_5_linear_q},                                                                     \
        {"model.layers.{i}.linear_attn.in_proj_qkv.weight", "layers.{i}.mixer.k.weight",           \
         tg_qwen3_5_linear_k},                                                                     \
        {"model.layers.{i}.linear_attn.in_proj_qkv.weight", "layers.{i}.mixer.v.weight",           \
         tg_qwen3_5_linear_v}
#endif
