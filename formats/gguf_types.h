/* Types of the tensors in a GGUF file: the mixtures that --dtype names, as llama.cpp's converter
 * and its llama-quantize (without an importance matrix) choose them. docs/formats/gguf.md has the
 * rules. */
#ifndef TG_FORMATS_GGUF_TYPES_H
#define TG_FORMATS_GGUF_TYPES_H

#include "formats/gguf_list.h"

struct tg_gguf_mix {
    const char *name;    /* "q4_k_m" */
    uint32_t file_type;  /* general.file_type, llama.cpp's numbers */
    enum tg_dtype dtype; /* of most matrices */
    enum tg_dtype head;  /* of the output matrix, and of embeddings that are its own */
    enum tg_dtype more;  /* of attn_v, attn_qkv and ffn_down in layers that get more bits */
};
extern const struct tg_gguf_mix tg_gguf_mixes[];              /* ended by a row without a name */
const struct tg_gguf_mix *tg_gguf_mix_find(const char *name); /* NULL if unknown */

/* Sets plan[i].dtype of all tensors of a model, by their names and shapes. The whole plan is
 * needed: whether embeddings are the output matrix too, and which of the layers with attn_v a
 * layer is, no tensor says alone. */
void tg_gguf_mix_apply(const struct tg_gguf_mix *mix, struct tg_tensor_plan *plan, size_t count);
/* general.file_type, general.alignment, and of quantised files general.quantization_version */
void tg_gguf_mix_keys(const struct tg_gguf_mix *mix, struct tg_gguf_list *keys);

#endif
