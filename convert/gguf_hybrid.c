/* GGUF hybrids in the words of config.json: Gated DeltaNet beside gated attention (qwen35,
 * qwen35moe), Mamba-2 beside attention (granitehybrid). */
#include "convert/gguf_read.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "convert/config.h"
#include "convert/config_recurrent.h"

struct hybrid {
    int64_t layers; /* without those that predict further tokens */
    int64_t all;    /* with them */
    bool recurs[TG_MAX_LAYERS];
};

/* Sizes that all have; what stands for no layer of its own is put by the caller. */
static int put_sizes(struct tg_reading *r, struct hybrid *h, struct tg_err *err)
{
    int64_t positions, further = 0;
    double eps;
    char key[TG_READING_KEY];
    int rc;

    tg_reading_find(r, "block_count", key);
    if ((rc = tg_gguf_get_int(r->t, key, 1, TG_MAX_LAYERS, &h->all, err)) ||
        (rc = tg_reading_size(r, "context_length", &positions, err)) ||
        (rc = tg_reading_float(r, "attention.layer_norm_rms_epsilon", 1e-30, 1, &eps, err)) ||
        (rc = tg_reading_heads(r, err)))
        return rc;
    if (tg_reading_find(r, "nextn_predict_layers", key) &&
        (rc = tg_gguf_get_int(r->t, key, 0, h->all - 1, &further, err)))
        return rc;
    h->layers = h->all - further;
    tg_jout_int(&r->out, "hidden_size", r->width);
    tg_jout_int(&r->out, "num_hidden_layers", h->layers);
    tg_jout_int(&r->out, "num_attention_heads", r->heads);
    tg_jout_int(&r->out, "head_dim", r->head_dim);
    tg_jout_int(&r->out, "max_position_embeddings", positions);
    tg_jout_num(&r->out, "rms_norm_eps", eps);
    tg_jout_str(&r->out, "hidden_act", "silu");
    return TG_OK;
}

static void put_kinds(struct tg_reading *r, const struct hybrid *h)
{
    tg_jout_array(&r->out, "layer_types");
    for (int64_t i = 0; i < h->layers; i++)
        tg_jout_str(&r->out, NULL, h->recurs[i] ? "linear_attention" : "full_attention");
    tg_jout_end_array(&r->out);
}

/* An array with an element for each layer; *found: is the key there? An element is a number or a
 * truth. */
static int find_array(const struct tg_reading *r, const char *suffix, const struct hybrid *h,
                      const struct tg_gguf_value **found, struct tg_err *err)
{
    char key[TG_READING_KEY];
    const struct tg_gguf_value *v = tg_reading_find(r, suffix, key);

    *found = v && v->type == TG_GGUF_ARRAY ? v : NULL;
    if (!*found)
        return TG_OK;
    const enum tg_gguf_type t = v->array.type;
    if ((t != TG_GGUF_BOOL && t != TG_GGUF_U32 && t != TG_GGUF_I32) ||
        v->array.count != (size_t)h->all)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: metadata key '%s' has %zu elements of type %s, must have %lld, one for "
                       "each layer, of type BOOL, U32 or I32",
                       tg_reading_file(r), key, v->array.count, tg_gguf_type_name(t),
                       (long long)h->all);
    return TG_OK;
}

static int64_t element(const struct tg_gguf_value *array, int64_t i)
{
    struct tg_gguf_value v = {0};

    tg_gguf_element(array, (size_t)i, &v);
    return v.type == TG_GGUF_BOOL ? v.b : v.type == TG_GGUF_I32 ? v.i : (int64_t)v.u;
}

/* attention.recurrent_layers, or every layer but the last of full_attention_interval */
static int read_qwen_kinds(const struct tg_reading *r, struct hybrid *h, struct tg_err *err)
{
    const struct tg_gguf_value *list;
    int64_t interval = 4;
    int rc;

    if ((rc = find_array(r, "attention.recurrent_layers", h, &list, err)) ||
        (rc = tg_reading_size_or(r, "full_attention_interval", &interval, err)))
        return rc;
    for (int64_t i = 0; i < h->layers; i++)
        h->recurs[i] = list ? element(list, i) != 0 : (i + 1) % interval != 0;
    return TG_OK;
}

/* attention.head_count_kv: one for all, or for each layer its own, which must be the same in all
 * layers with attention. Where `zeros`, 0 says that a layer recurs. */
static int put_kv_heads(struct tg_reading *r, struct hybrid *h, bool zeros, struct tg_err *err)
{
    const struct tg_gguf_value *list;
    int64_t kv_heads = 0;
    int rc = find_array(r, "attention.head_count_kv", h, &list, err);

    if (rc != TG_OK)
        return rc;
    if (!list) {
        kv_heads = r->heads;
        if ((rc = tg_reading_size_or(r, "attention.head_count_kv", &kv_heads, err)))
            return rc;
    }
    for (int64_t i = 0; list && i < h->layers; i++) {
        const int64_t n = element(list, i);
        if (zeros)
            h->recurs[i] = n == 0;
        if (h->recurs[i])
            continue;
        if (n < 1 || (kv_heads && n != kv_heads))
            return tg_fail(err, TG_ERR_UNSUPPORTED,
                           "%s: metadata key '%s.attention.head_count_kv' is %lld in layer %lld; "
                           "layers with attention must have %s",
                           tg_reading_file(r), r->arch->name, (long long)n, (long long)i,
                           n < 1 ? "some" : "the same number");
        kv_heads = n;
    }
    tg_jout_int(&r->out, "num_key_value_heads", kv_heads ? kv_heads : r->heads);
    return TG_OK;
}

/* Sizes that go straight into config.json */
struct size_word {
    const char *suffix, *config;
};
static int put_words(struct tg_reading *r, const struct size_word *words, struct tg_err *err)
{
    int rc = TG_OK;

    for (; words->suffix && rc == TG_OK; words++) {
        int64_t n;
        if (!(rc = tg_reading_size(r, words->suffix, &n, err)))
            tg_jout_int(&r->out, words->config, n);
    }
    return rc;
}

/* inner / parts, which must be whole */
static int split_inner(const struct tg_reading *r, int64_t parts, const char *what, int64_t *each,
                       struct tg_err *err)
{
    int64_t inner;
    const int rc = tg_reading_size(r, "ssm.inner_size", &inner, err);

    if (rc != TG_OK)
        return rc;
    *each = inner / parts;
    if (inner % parts)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: metadata key '%s.ssm.inner_size' is %lld, no multiple of %s, %lld",
                       tg_reading_file(r), r->arch->name, (long long)inner, what, (long long)parts);
    return TG_OK;
}

/* The interleaved rotary gives pair i the position of section i mod 3, if i lies in it, and else a
 * fourth that text does not have: all pairs must lie in theirs, which makes it the plain rotary. */
static int check_sections(const struct tg_reading *r, int64_t pairs, struct tg_err *err)
{
    const char *suffix = "rope.dimension_sections";
    const struct tg_gguf_value *list;
    char key[TG_READING_KEY];
    int64_t n[4], sum = 0;
    int rc;

    if (!tg_reading_find(r, suffix, key))
        return TG_OK;
    if ((rc = tg_gguf_get_array(r->t, key, TG_GGUF_I32, &list, err)))
        return rc;
    for (int64_t i = 0; i < 4 && list->array.count == 4; i++)
        sum += n[i] = element(list, i);
    for (int64_t i = 0; i < pairs; i++)
        if (list->array.count != 4 || sum < 1 || n[0] < 0 || n[1] < 0 || n[2] < 0 || n[3] < 0 ||
            i % sum >= 3 * n[i % sum % 3])
            return tg_fail(err, TG_ERR_UNSUPPORTED,
                           "%s: metadata key '%s' must be 4 sizes of sections that leave no rotary "
                           "pair out; pair %lld is in none",
                           tg_reading_file(r), key, (long long)i);
    return TG_OK;
}

static int put_deltanet(struct tg_reading *r, struct tg_err *err)
{
    static const struct size_word words[] = {
        {"ssm.group_count", "linear_num_key_heads"},
        {"ssm.time_step_rank", "linear_num_value_heads"},
        {"ssm.state_size", "linear_key_head_dim"},
        {"ssm.conv_kernel", "linear_conv_kernel_dim"},
        {NULL, NULL},
    };
    int64_t heads, value_dim;
    int rc;

    if ((rc = put_words(r, words, err)) ||
        (rc = tg_reading_size(r, "ssm.time_step_rank", &heads, err)) ||
        (rc = split_inner(r, heads, "ssm.time_step_rank", &value_dim, err)))
        return rc;
    tg_jout_int(&r->out, "linear_value_head_dim", value_dim);
    return TG_OK;
}

int tg_reading_put_qwen35(struct tg_reading *r, struct tg_err *err)
{
    static const struct size_word dense[] = {{"feed_forward_length", "intermediate_size"},
                                             {NULL, NULL}};
    static const struct size_word experts[] = {
        {"expert_feed_forward_length", "intermediate_size"}, /* of no layer; HF wants one */
        {"expert_feed_forward_length", "moe_intermediate_size"},
        {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"},
        {"expert_count", "num_experts"},
        {"expert_used_count", "num_experts_per_tok"},
        {NULL, NULL}};
    const bool sparse = strcmp(r->arch->name, "qwen35") != 0;
    struct hybrid h = {0};
    int64_t rotary;
    int rc;

    if ((rc = put_sizes(r, &h, err)) || (rc = put_words(r, sparse ? experts : dense, err)) ||
        (rc = read_qwen_kinds(r, &h, err)) || (rc = put_kv_heads(r, &h, false, err)) ||
        (rc = put_deltanet(r, err)))
        return rc;
    put_kinds(r, &h);
    tg_jout_bool(&r->out, "attention_bias", false);
    rotary = r->head_dim;
    if ((rc = tg_reading_size_or(r, "rope.dimension_count", &rotary, err)) ||
        (rc = check_sections(r, rotary / 2, err)))
        return rc;
    return tg_reading_rope(r, true, err);
}

void tg_gguf_amend_qwen35(struct tg_model_spec *spec)
{
    spec->norm.plus_one = false;
}

/* 0 or no key: the scale that the engine takes then */
static int put_scales(struct tg_reading *r, struct tg_err *err)
{
    const struct {
        const char *suffix, *config;
        double absent;
    } scales[] = {
        {"attention.scale", "attention_multiplier", 1 / sqrt((double)r->head_dim)},
        {"embedding_scale", "embedding_multiplier", 1},
        {"residual_scale", "residual_multiplier", 1},
        {"logit_scale", "logits_scaling", 1},
    };
    int rc = TG_OK;

    for (size_t i = 0; i < sizeof scales / sizeof *scales && rc == TG_OK; i++) {
        double x = 0;
        if (!(rc = tg_reading_float_or(r, scales[i].suffix, 0, 1e6, &x, err)))
            tg_jout_num(&r->out, scales[i].config, x > 0 ? x : scales[i].absent);
    }
    return rc;
}

static int put_mamba2(struct tg_reading *r, struct tg_err *err)
{
    static const struct size_word words[] = {
        {"ssm.time_step_rank", "mamba_n_heads"},
        {"ssm.group_count", "mamba_n_groups"},
        {"ssm.state_size", "mamba_d_state"},
        {"ssm.conv_kernel", "mamba_d_conv"},
        {NULL, NULL},
    };
    int64_t heads, head_dim, expand;
    int rc;

    if ((rc = put_words(r, words, err)) ||
        (rc = tg_reading_size(r, "ssm.time_step_rank", &heads, err)) ||
        (rc = split_inner(r, heads, "ssm.time_step_rank", &head_dim, err)) ||
        (rc = split_inner(r, r->width, "embedding_length", &expand, err)))
        return rc;
    tg_jout_int(&r->out, "mamba_d_head", head_dim);
    tg_jout_int(&r->out, "mamba_expand", expand);
    tg_jout_bool(&r->out, "mamba_conv_bias", true);
    tg_jout_bool(&r->out, "mamba_proj_bias", false);
    return TG_OK;
}

static int put_granite_mlp(struct tg_reading *r, struct tg_err *err)
{
    static const struct size_word dense[] = {{"feed_forward_length", "intermediate_size"},
                                             {"feed_forward_length", "shared_intermediate_size"},
                                             {NULL, NULL}};
    static const struct size_word sparse[] = {
        {"feed_forward_length", "intermediate_size"},
        {"expert_shared_feed_forward_length", "shared_intermediate_size"},
        {"expert_used_count", "num_experts_per_tok"},
        {NULL, NULL}};
    char key[TG_READING_KEY];
    int64_t experts = 0;
    int rc;

    if (tg_reading_find(r, "expert_count", key) &&
        (rc = tg_gguf_get_int(r->t, key, 0, TG_MAX_EXPERTS, &experts, err)))
        return rc;
    tg_jout_int(&r->out, "num_local_experts", experts);
    return put_words(r, experts ? sparse : dense, err);
}

/* Rotary positions unless rope.scaling.finetuned says no */
static int put_granite_rope(struct tg_reading *r, struct tg_err *err)
{
    char key[TG_READING_KEY];
    bool on = true;
    int rc;

    if (tg_reading_find(r, "rope.scaling.finetuned", key) &&
        (rc = tg_gguf_get_bool(r->t, key, &on, err)))
        return rc;
    if (!on)
        return TG_OK;
    tg_jout_str(&r->out, "position_embedding_type", "rope");
    return tg_reading_rope(r, false, err);
}

/* Are there biases of q in the first layer with attention? They are everywhere then, or a tensor
 * is unknown or missing. */
static bool has_bias(const struct tg_reading *r, const struct hybrid *h)
{
    char name[64];

    for (int64_t i = 0; i < h->layers; i++) {
        snprintf(name, sizeof name, "blk.%lld.attn_q.bias", (long long)i);
        if (!h->recurs[i])
            return tg_reading_has(r, name);
    }
    return false;
}

int tg_reading_put_granite(struct tg_reading *r, struct tg_err *err)
{
    struct hybrid h = {0};
    int rc;

    if ((rc = put_sizes(r, &h, err)) || (rc = put_kv_heads(r, &h, true, err)) ||
        (rc = put_granite_mlp(r, err)) || (rc = put_mamba2(r, err)) || (rc = put_scales(r, err)))
        return rc;
    put_kinds(r, &h);
    tg_jout_bool(&r->out, "attention_bias", has_bias(r, &h));
    return put_granite_rope(r, err);
}

/* The engine's gated norm goes over each group, where that of the HF class goes over all. */
void tg_gguf_amend_granite(struct tg_model_spec *spec)
{
    for (size_t i = 0; i < spec->layer_count; i++) {
        struct tg_recurrent_spec *s = &spec->layers[i].recurrent;
        if (s->groups > 1)
            s->norm_groups = s->groups;
    }
}
