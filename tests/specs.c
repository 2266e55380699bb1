#include "tests/specs.h"

#include "tests/check.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "convert/checkpoint.h"
#include "convert/native.h"

#define DIFFER(field)                                                                              \
    if (a->field != b->field)                                                                      \
    return #field

static const char *recurrent_difference(const struct tg_recurrent_spec *a,
                                        const struct tg_recurrent_spec *b)
{
    DIFFER(v_heads);
    DIFFER(v_dim);
    DIFFER(conv);
    DIFFER(inner_conv);
    DIFFER(state);
    DIFFER(groups);
    DIFFER(inner);
    DIFFER(rank);
    DIFFER(partitions);
    DIFFER(active);
    DIFFER(no_shared);
    DIFFER(no_bound);
    DIFFER(chunk);
    DIFFER(norm_groups);
    DIFFER(conv_bias);
    DIFFER(proj_bias);
    DIFFER(out_bias);
    DIFFER(norm);
    DIFFER(norm_before_gate);
    DIFFER(negative_eigenvalues);
    DIFFER(dt_min);
    DIFFER(dt_max);
    DIFFER(norm_eps);
    DIFFER(in_scale);
    DIFFER(out_scale);
    DIFFER(beside_scale);
    for (size_t i = 0; i < sizeof a->scales / sizeof *a->scales; i++)
        DIFFER(scales[i]);
    return NULL;
}

static const char *layer_difference(const struct tg_layer_spec *a, const struct tg_layer_spec *b)
{
    DIFFER(mixer);
    DIFFER(heads);
    DIFFER(kv_heads);
    DIFFER(head_dim);
    DIFFER(value_dim);
    DIFFER(value_heads);
    DIFFER(window_form);
    DIFFER(linear_plain);
    DIFFER(plain_values);
    DIFFER(rotary_dim);
    DIFFER(rope);
    DIFFER(window);
    DIFFER(sinks);
    DIFFER(feature_dim);
    DIFFER(feature_map);
    DIFFER(gated);
    DIFFER(qkv_bias);
    DIFFER(o_bias);
    DIFFER(qk_norm);
    DIFFER(qk_norm_bias);
    DIFFER(attn_scale);
    DIFFER(attn_softcap);
    DIFFER(qkv_clip);
    DIFFER(output_gate);
    DIFFER(q_rank);
    DIFFER(kv_rank);
    DIFFER(latent_eps);
    DIFFER(residual);
    DIFFER(mixer_scale);
    DIFFER(mlp_scale);
    DIFFER(mixer_skip);
    DIFFER(mlp_skip);
    DIFFER(mlp_kind);
    DIFFER(mlp_dim);
    DIFFER(activation);
    DIFFER(mlp_bias);
    DIFFER(gate_scale);
    DIFFER(down_scale);
    DIFFER(moe.experts);
    DIFFER(moe.per_token);
    DIFFER(moe.mlp_dim);
    DIFFER(moe.router);
    DIFFER(moe.renormalise);
    DIFFER(moe.router_bias);
    DIFFER(moe.correction);
    DIFFER(moe.expert_bias);
    DIFFER(moe.scale);
    DIFFER(moe.groups);
    DIFFER(moe.groups_kept);
    DIFFER(moe.shared_dim);
    DIFFER(moe.shared_gate);
    return recurrent_difference(&a->recurrent, &b->recurrent);
}

static const char *rope_difference(const struct tg_rope *a, const struct tg_rope *b)
{
    DIFFER(kind);
    DIFFER(theta);
    DIFFER(factor);
    DIFFER(low_freq_factor);
    DIFFER(high_freq_factor);
    DIFFER(original_max_positions);
    DIFFER(beta_fast);
    DIFFER(beta_slow);
    DIFFER(truncate);
    DIFFER(attention_factor);
    DIFFER(factor_count);
    for (size_t i = 0; i < a->factor_count; i++) {
        DIFFER(short_factor[i]);
        DIFFER(long_factor[i]);
    }
    return NULL;
}

const char *tg_spec_difference(const struct tg_model_spec *a, const struct tg_model_spec *b)
{
    const char *field;

    if (strcmp(a->base_family, b->base_family) != 0)
        return "base_family";
    DIFFER(vocab);
    DIFFER(width);
    DIFFER(norm.kind);
    DIFFER(norm.eps);
    DIFFER(norm.plus_one);
    DIFFER(norm.bare);
    DIFFER(norm.bias);
    DIFFER(no_norm_out);
    DIFFER(tied_head);
    DIFFER(head_bias);
    DIFFER(embed_scale);
    DIFFER(logit_scale);
    DIFFER(logit_softcap);
    DIFFER(embed_dim);
    DIFFER(learned_positions);
    DIFFER(position_offset);
    DIFFER(max_positions);
    DIFFER(bos_id);
    DIFFER(eos_count);
    if (memcmp(a->eos_ids, b->eos_ids, a->eos_count * sizeof *a->eos_ids) != 0)
        return "eos_ids";
    for (size_t i = 0; i < TG_MAX_ROPES; i++)
        if ((field = rope_difference(&a->ropes[i], &b->ropes[i])))
            return field;
    DIFFER(layer_count);
    for (size_t i = 0; i < a->layer_count; i++)
        if ((field = layer_difference(&a->layers[i], &b->layers[i])))
            return field;
    return NULL;
}

char *tg_json_with(const char *text, const char *key, const char *value)
{
    struct tg_json_doc *object = NULL;
    struct tg_json_out j;
    struct tg_strbuf to;
    char *made = NULL;

    tg_strbuf_init(&to, 1 << 20);
    if (tg_json_parse(&object, text, strlen(text), "object", TG_JSON_INFINITY, NULL))
        goto out;
    tg_jout_init(&j, &to, 0);
    tg_jout_object(&j, NULL);
    for (struct tg_json c = tg_json_first(tg_json_root(object)); c.node; c = tg_json_next(c))
        if (strcmp(tg_json_name(c), key) != 0)
            tg_jout_copy(&j, tg_json_name(c), c);
    tg_jout_end_object(&j);
    if (value && !to.failed) { /* as it stands: the writer has no NaN */
        to.len--;
        tg_strbuf_printf(&to, "%s\"%s\":%s}", to.len > 1 ? "," : "", key, value);
    }
    made = tg_strbuf_take(&to);
out:
    tg_strbuf_release(&to);
    tg_json_free(object);
    return made;
}

const char tg_llama_config[] =
    "{\"model_type\":\"llama\",\"vocab_size\":96,\"hidden_size\":32,\"intermediate_size\":48,"
    "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"eos_token_id\":"
    "2,\"hidden_act\":\"silu\",\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,"
    "\"tie_word_embeddings\":true,\"rope_theta\":5e5}";

char *tg_config_with(const char *family, const char *key, const char *value)
{
    char type[64];
    char *base, *made;

    snprintf(type, sizeof type, "\"%s\"", family);
    base = tg_json_with(tg_llama_config, "model_type", type);
    made = key ? tg_json_with(base, key, value) : tg_strdup(base);
    tg_free(base);
    assert_non_null(made);
    return made;
}

int tg_parse_config(const char *text, struct tg_model_spec *spec, struct tg_err *err)
{
    return tg_config_parse(text, strlen(text), "dir/config.json", spec, err);
}

void tg_must_parse(const char *text, struct tg_model_spec *spec)
{
    struct tg_err err = {0};

    if (tg_parse_config(text, spec, &err) != TG_OK)
        fail_msg("%s: %s", err.msg, text);
}

struct tg_model_spec tg_spec_with(const char *family, const char *key, const char *value)
{
    char *text = tg_config_with(family, key, value);
    struct tg_model_spec spec;

    tg_must_parse(text, &spec);
    tg_free(text);
    return spec;
}

void tg_check_native(const struct tg_model_spec *spec, const char *what)
{
    const struct tg_native_meta meta = {"test", "0", 1, "", "test"};
    struct tg_model_spec again;
    struct tg_strbuf text;

    tg_strbuf_init(&text, 1 << 20);
    tg_native_config(&text, spec, TG_F32, &meta);
    assert_false(text.failed);
    tg_must_parse(text.text, &again);
    if (tg_spec_difference(spec, &again))
        fail_msg("%s: %s is lost in %s", what, tg_spec_difference(spec, &again), text.text);
    tg_spec_release(&again);
    tg_strbuf_release(&text);
}
