/* Private to convert: tensor names through a family's table of patterns. */
#ifndef TG_CONVERT_NAMES_H
#define TG_CONVERT_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "convert/family.h"

enum { TG_NAME_SIZE = 256 };

/* One rule: source name -> canonical name, with the number at {e} (0 without); and the other way,
 * for messages and for writing. False if the rule does not match or the result does not fit. */
bool tg_name_canonical(const struct tg_name_rule *rule, const char *source, char *out, size_t size,
                       size_t *expert);
bool tg_name_source(const struct tg_name_rule *rule, const char *canonical, size_t expert,
                    char *out, size_t size);
/* Does the whole name match a pattern in which '*' stands for any characters? */
bool tg_name_like(const char *pattern, const char *name);
/* The same where "{+}" stands for the number of a layer that comes after the decoder's (multi-token
 * prediction) */
bool tg_name_beyond(const char *pattern, const char *name, size_t layers);
/* The name inside the text model of a checkpoint with more than one model in it, without what says
 * where that stands ("model.language_model.", "language_model."); else the name itself. */
const char *tg_name_inner(const char *name);
/* What else such checkpoints hold: other models, and what joins them */
extern const char *const tg_wrapper_droppable[];
/* The quantisation method that tensors of this name belong to, or NULL */
const char *tg_name_quantised(const char *name);

/* Rules that many families share, by part of the decoder, for their tables */
#define TG_NAMES_FRAME                                                                             \
    {"[model.]embed_tokens.weight", "embed.weight", NULL},                                         \
        {"[model.]norm.weight", "norm_out.weight", NULL},                                          \
        {"[model.]norm.bias", "norm_out.bias", NULL}, {"lm_head.weight", "head.weight", NULL},     \
    {                                                                                              \
        "lm_head.bias", "head.bias", NULL                                                          \
    }
#define TG_NAMES_PRE                                                                               \
    {"[model.]layers.{i}.input_layernorm.weight", "layers.{i}.norm_in.weight", NULL},              \
        {"[model.]layers.{i}.input_layernorm.bias", "layers.{i}.norm_in.bias", NULL},              \
        {"[model.]layers.{i}.post_attention_layernorm.weight", "layers.{i}.norm_mlp.weight",       \
         NULL},                                                                                    \
    {                                                                                              \
        "[model.]layers.{i}.post_attention_layernorm.bias", "layers.{i}.norm_mlp.bias", NULL       \
    }
/* Norms after the branches */
#define TG_NAMES_POST                                                                              \
    {"[model.]layers.{i}.post_attention_layernorm.weight", "layers.{i}.norm_mixer_out.weight",     \
     NULL},                                                                                        \
    {                                                                                              \
        "[model.]layers.{i}.post_feedforward_layernorm.weight", "layers.{i}.norm_mlp_out.weight",  \
            NULL                                                                                   \
    }
/* Norms before and after */
#define TG_NAMES_SANDWICH                                                                          \
    {"[model.]layers.{i}.input_layernorm.weight", "layers.{i}.norm_in.weight", NULL},              \
        {"[model.]layers.{i}.pre_feedforward_layernorm.weight", "layers.{i}.norm_mlp.weight",      \
         NULL},                                                                                    \
        TG_NAMES_POST
/* qk: how rows of q and k lie */
#define TG_NAMES_ATTENTION(qk)                                                                     \
    {"[model.]layers.{i}.self_attn.q_proj.weight", "layers.{i}.mixer.q.weight", qk},               \
        {"[model.]layers.{i}.self_attn.q_proj.bias", "layers.{i}.mixer.q.bias", qk},               \
        {"[model.]layers.{i}.self_attn.k_proj.weight", "layers.{i}.mixer.k.weight", qk},           \
        {"[model.]layers.{i}.self_attn.k_proj.bias", "layers.{i}.mixer.k.bias", qk},               \
        {"[model.]layers.{i}.self_attn.v_proj.weight", "layers.{i}.mixer.v.weight", NULL},         \
        {"[model.]layers.{i}.self_attn.v_proj.bias", "layers.{i}.mixer.v.bias", NULL},             \
        {"[model.]layers.{i}.self_attn.o_proj.weight", "layers.{i}.mixer.o.weight", NULL},         \
        {"[model.]layers.{i}.self_attn.o_proj.bias", "layers.{i}.mixer.o.bias", NULL},             \
        {"[model.]layers.{i}.self_attn.q_norm.weight", "layers.{i}.mixer.q_norm.weight", qk},      \
    {                                                                                              \
        "[model.]layers.{i}.self_attn.k_norm.weight", "layers.{i}.mixer.k_norm.weight", qk         \
    }
#define TG_NAMES_MLP                                                                               \
    {"[model.]layers.{i}.mlp.gate_proj.weight", "layers.{i}.mlp.gate.weight", NULL},               \
        {"[model.]layers.{i}.mlp.gate_proj.bias", "layers.{i}.mlp.gate.bias", NULL},               \
        {"[model.]layers.{i}.mlp.up_proj.weight", "layers.{i}.mlp.up.weight", NULL},               \
        {"[model.]layers.{i}.mlp.up_proj.bias", "layers.{i}.mlp.up.bias", NULL},                   \
        {"[model.]layers.{i}.mlp.down_proj.weight", "layers.{i}.mlp.down.weight", NULL},           \
    {                                                                                              \
        "[model.]layers.{i}.mlp.down_proj.bias", "layers.{i}.mlp.down.bias", NULL                  \
    }
/* Experts apart, and fused as version 5 holds them */
#define TG_NAMES_EXPERTS                                                                           \
    {"[model.]layers.{i}.mlp.gate.weight", "layers.{i}.moe.router.weight", NULL},                  \
        {"[model.]layers.{i}.mlp.experts.{e}.gate_proj.weight", "layers.{i}.moe.gate.weight",      \
         tg_layout_expert},                                                                        \
        {"[model.]layers.{i}.mlp.experts.{e}.up_proj.weight", "layers.{i}.moe.up.weight",          \
         tg_layout_expert},                                                                        \
        {"[model.]layers.{i}.mlp.experts.{e}.down_proj.weight", "layers.{i}.moe.down.weight",      \
         tg_layout_expert},                                                                        \
        {"[model.]layers.{i}.mlp.experts.gate_up_proj", "layers.{i}.moe.gate.weight",              \
         tg_layout_experts_first},                                                                 \
        {"[model.]layers.{i}.mlp.experts.gate_up_proj", "layers.{i}.moe.up.weight",                \
         tg_layout_experts_second},                                                                \
    {                                                                                              \
        "[model.]layers.{i}.mlp.experts.down_proj", "layers.{i}.moe.down.weight", NULL             \
    }

/* Frame, norms before the branches, attention, gated mlp: what is spelt as in Llama */
extern const struct tg_name_rule tg_decoder_names[];
extern const char *const tg_decoder_droppable[];

#endif
