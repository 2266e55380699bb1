/* Tensor names of GGUF, as llama.cpp's converter gives them: weights are [out,in] whatever the
 * original has. The architecture "llama" alone has the rows of q and k in rotary pairs side by
 * side, because its rotary turns neighbours; "qwen2" and "qwen3" keep the halves of HF. */
#include "convert/gguf_model.h"

/* In all of them but gpt2 */
#define DECODER                                                                                    \
    {"token_embd.weight", "embed.weight", NULL}, {"output_norm.weight", "norm_out.weight", NULL},  \
        {"output.weight", "head.weight", NULL},                                                    \
        {"blk.{i}.attn_norm.weight", "layers.{i}.norm_in.weight", NULL},                           \
        {"blk.{i}.attn_v.weight", "layers.{i}.mixer.v.weight", NULL},                              \
        {"blk.{i}.attn_v.bias", "layers.{i}.mixer.v.bias", NULL},                                  \
        {"blk.{i}.attn_output.weight", "layers.{i}.mixer.o.weight", NULL},                         \
        {"blk.{i}.attn_output.bias", "layers.{i}.mixer.o.bias", NULL},                             \
        {"blk.{i}.ffn_norm.weight", "layers.{i}.norm_mlp.weight", NULL},                           \
        {"blk.{i}.ffn_gate.weight", "layers.{i}.mlp.gate.weight", NULL},                           \
        {"blk.{i}.ffn_gate.bias", "layers.{i}.mlp.gate.bias", NULL},                               \
        {"blk.{i}.ffn_up.weight", "layers.{i}.mlp.up.weight", NULL},                               \
        {"blk.{i}.ffn_up.bias", "layers.{i}.mlp.up.bias", NULL},                                   \
        {"blk.{i}.ffn_down.weight", "layers.{i}.mlp.down.weight", NULL},                           \
    {                                                                                              \
        "blk.{i}.ffn_down.bias", "layers.{i}.mlp.down.bias", NULL                                  \
    }

const struct tg_name_rule tg_gguf_llama_names[] = {
    DECODER,
    {"blk.{i}.attn_q.weight", "layers.{i}.mixer.q.weight", tg_layout_pairs},
    {"blk.{i}.attn_q.bias", "layers.{i}.mixer.q.bias", tg_layout_pairs},
    {"blk.{i}.attn_k.weight", "layers.{i}.mixer.k.weight", tg_layout_pairs},
    {"blk.{i}.attn_k.bias", "layers.{i}.mixer.k.bias", tg_layout_pairs},
    {NULL, NULL, NULL},
};

const struct tg_name_rule tg_gguf_qwen_names[] = {
    DECODER,
    {"blk.{i}.attn_q.weight", "layers.{i}.mixer.q.weight", NULL},
    {"blk.{i}.attn_q.bias", "layers.{i}.mixer.q.bias", NULL},
    {"blk.{i}.attn_k.weight", "layers.{i}.mixer.k.weight", NULL},
    {"blk.{i}.attn_k.bias", "layers.{i}.mixer.k.bias", NULL},
    {"blk.{i}.attn_q_norm.weight", "layers.{i}.mixer.q_norm.weight", NULL},
    {"blk.{i}.attn_k_norm.weight", "layers.{i}.mixer.k_norm.weight", NULL},
    {NULL, NULL, NULL},
};

static const struct tg_name_rule gpt2_names[] = {
    {"token_embd.weight", "embed.weight", NULL},
    {"position_embd.weight", "pos.weight", NULL},
    {"output_norm.weight", "norm_out.weight", NULL},
    {"output_norm.bias", "norm_out.bias", NULL},
    {"output.weight", "head.weight", NULL},
    {"blk.{i}.attn_norm.weight", "layers.{i}.norm_in.weight", NULL},
    {"blk.{i}.attn_norm.bias", "layers.{i}.norm_in.bias", NULL},
    {"blk.{i}.attn_qkv.weight", "layers.{i}.mixer.q.weight", tg_layout_qkv_q},
    {"blk.{i}.attn_qkv.weight", "layers.{i}.mixer.k.weight", tg_layout_qkv_k},
    {"blk.{i}.attn_qkv.weight", "layers.{i}.mixer.v.weight", tg_layout_qkv_v},
    {"blk.{i}.attn_qkv.bias", "layers.{i}.mixer.q.bias", tg_layout_qkv_q},
    {"blk.{i}.attn_qkv.bias", "layers.{i}.mixer.k.bias", tg_layout_qkv_k},
    {"blk.{i}.attn_qkv.bias", "layers.{i}.mixer.v.bias", tg_layout_qkv_v},
    {"blk.{i}.attn_output.weight", "layers.{i}.mixer.o.weight", NULL},
    {"blk.{i}.attn_output.bias", "layers.{i}.mixer.o.bias", NULL},
    {"blk.{i}.ffn_norm.weight", "layers.{i}.norm_mlp.weight", NULL},
    {"blk.{i}.ffn_norm.bias", "layers.{i}.norm_mlp.bias", NULL},
    {"blk.{i}.ffn_up.weight", "layers.{i}.mlp.up.weight", NULL},
    {"blk.{i}.ffn_up.bias", "layers.{i}.mlp.up.bias", NULL},
    {"blk.{i}.ffn_down.weight", "layers.{i}.mlp.down.weight", NULL},
    {"blk.{i}.ffn_down.bias", "layers.{i}.mlp.down.bias", NULL},
    {NULL, NULL, NULL},
};

/* rope_freqs is read with the metadata; attn_rot_embd stands in files of 2023. */
static const char *const droppable[] = {"rope_freqs.weight", "*.attn_rot_embd", NULL};

const struct tg_family tg_gguf_llama = {
    .name = "llama", .names = tg_gguf_llama_names, .droppable = droppable};
const struct tg_family tg_gguf_qwen = {
    .name = "qwen", .names = tg_gguf_qwen_names, .droppable = droppable};
const struct tg_family tg_gguf_gpt2 = {.name = "gpt2", .names = gpt2_names, .droppable = droppable};
