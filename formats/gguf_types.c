#include "formats/gguf_types.h"

#include <stdlib.h>
#include <string.h>

#include "formats/gguf_file.h"

enum { QUANTIZATION_VERSION = 2, LAYERS = 4096 };

const struct tg_gguf_mix tg_gguf_mixes[] = {
    {"f32", 0, TG_F32, TG_F32, TG_F32},        {"f16", 1, TG_F16, TG_F16, TG_F16},
    {"bf16", 32, TG_BF16, TG_BF16, TG_BF16},   {"q8_0", 7, TG_Q8_0, TG_Q8_0, TG_Q8_0},
    {"q4_k_m", 15, TG_Q4_K, TG_Q6_K, TG_Q6_K}, {"q5_k_m", 17, TG_Q5_K, TG_Q6_K, TG_Q6_K},
    {"q6_k", 18, TG_Q6_K, TG_Q6_K, TG_Q6_K},   {0},
};

const struct tg_gguf_mix *tg_gguf_mix_find(const char *name)
{
    for (const struct tg_gguf_mix *m = tg_gguf_mixes; m->name; m++)
        if (!strcmp(m->name, name))
            return m;
    return NULL;
}

static bool ends_in(const char *name, const char *end)
{
    const size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

/* Small or delicate: vectors, norms, and what engines compute with in float32 */
static bool stays_f32(const struct tg_tensor_plan *t)
{
    static const char *const parts[] = {"ssm_conv1d", "shortconv.conv", "ffn_gate_inp",
                                        "position_embd", "token_types"};
    if (t->rank < 2 || !ends_in(t->name, ".weight") || ends_in(t->name, "_norm.weight"))
        return true;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(t->name, parts[i]))
            return true;
    return false;
}

/* The number of a layer's tensor, -1 outside layers */
static long layer_of(const char *name)
{
    char *end;
    if (strncmp(name, "blk.", 4) != 0)
        return -1;
    const long i = strtol(name + 4, &end, 10);
    return end > name + 4 && *end == '.' && i >= 0 && i < LAYERS ? i : -1;
}

static bool makes_values(const char *name)
{
    return strstr(name, "attn_v.weight") || strstr(name, "attn_qkv.weight") ||
           strstr(name, "attn_kv_b.weight");
}

/* The first eighth, the last, and each third layer between; i of n */
static bool gets_more_bits(long i, long n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

/* Rows that are no whole number of blocks get a type of smaller blocks. */
static enum tg_dtype that_fits(enum tg_dtype type, const struct tg_tensor_plan *t)
{
    const int64_t row = t->shape[t->rank - 1];
    if (row % tg_dtype_info(type)->block == 0)
        return type;
    type = type == TG_Q4_K   ? TG_Q5_0
           : type == TG_Q5_K ? TG_Q5_1
           : type == TG_Q6_K ? TG_Q8_0
                             : TG_F16;
    return row % tg_dtype_info(type)->block == 0 ? type : TG_F16;
}

/* What a choice needs of the whole plan */
struct whole {
    bool tied;
    long layers;
    long values;                  /* tensors that make values: attn_v, attn_qkv */
    uint16_t value_index[LAYERS]; /* how many of them stand in the layers before */
};

static void look(struct whole *w, const struct tg_tensor_plan *plan, size_t count)
{
    *w = (struct whole){.tied = true};
    for (size_t i = 0; i < count; i++) {
        const long layer = layer_of(plan[i].name);
        if (!strcmp(plan[i].name, "output.weight"))
            w->tied = false;
        if (layer >= w->layers)
            w->layers = layer + 1;
        if (layer >= 0 && makes_values(plan[i].name))
            w->value_index[layer]++;
    }
    for (long i = 0; i < w->layers; i++) {
        const uint16_t here = w->value_index[i];
        w->value_index[i] = (uint16_t)w->values;
        w->values += here;
    }
}

static enum tg_dtype choose(const struct tg_gguf_mix *mix, const struct whole *w,
                            const struct tg_tensor_plan *t)
{
    const long layer = layer_of(t->name);
    enum tg_dtype type = mix->dtype;
    if (stays_f32(t))
        return TG_F32;
    if (!strcmp(t->name, "output.weight") || (w->tied && !strcmp(t->name, "token_embd.weight"))) {
        const bool whole = t->shape[t->rank - 1] % tg_dtype_info(mix->dtype)->block == 0;
        return that_fits(whole ? mix->head : TG_Q8_0, t);
    }
    if (layer >= 0 && makes_values(t->name) && gets_more_bits(w->value_index[layer], w->values))
        type = mix->more;
    if (layer >= 0 && strstr(t->name, "ffn_down") && gets_more_bits(layer, w->layers))
        type = mix->more;
    return that_fits(type, t);
}

void tg_gguf_mix_apply(const struct tg_gguf_mix *mix, struct tg_tensor_plan *plan, size_t count)
{
    struct whole w;
    look(&w, plan, count);
    for (size_t i = 0; i < count; i++)
        plan[i].dtype = choose(mix, &w, &plan[i]);
}

void tg_gguf_mix_keys(const struct tg_gguf_mix *mix, struct tg_gguf_list *keys)
{
    tg_gguf_put(keys, "general.alignment", tg_gguf_u32(TG_GGUF_ALIGNMENT));
    tg_gguf_put(keys, "general.file_type", tg_gguf_u32(mix->file_type));
    if (tg_dtype_info(mix->dtype)->block > 1)
        tg_gguf_put(keys, "general.quantization_version", tg_gguf_u32(QUANTIZATION_VERSION));
}
