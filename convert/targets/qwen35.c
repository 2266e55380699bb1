/* llama.cpp's Qwen3.5 models: Qwen3-like hybrids as GGUF files, and what the row with experts has
 * in common with them. */
#include "convert/targets/qwen35.h"

#include <string.h>

#include "base/mem.h"
#include "convert/gguf_model.h"
#include "convert/targets/gguf.h"
#include "convert/targets/qwen3_5.h"

enum { MOST_EXPERTS = 1024 }; /* of the engine */

/* What a teacher may not have either */
static void check_kept(const struct tg_model_spec *spec, bool sparse, struct tg_remarks *why)
{
    const struct tg_layer_spec *a = tg_qwen3_5_first(spec, true);
    const char *no = a ? tg_gguf_rope_why_not(&spec->ropes[a->rope], false) : NULL;

    tg_gguf_check_model(spec, why);
    tg_qwen3_5_check(spec, sparse, why);
    if (no)
        tg_remark(why, "layer %zu: %s", (size_t)(a - spec->layers), no);
    if (sparse && spec->layers[0].moe.experts > MOST_EXPERTS)
        tg_remark(why, "%zu experts, llama.cpp takes at most %d", spec->layers[0].moe.experts,
                  MOST_EXPERTS);
}

/* Without a state to keep the engine stops. */
void tg_qwen35_check(const struct tg_model_spec *spec, bool sparse, struct tg_remarks *why)
{
    check_kept(spec, sparse, why);
    if (!tg_qwen3_5_first(spec, false))
        tg_remark(why, "no layer is gated_deltanet: llama.cpp's other architectures hold such "
                       "models");
}

int tg_qwen35_adapt(struct tg_export *x, struct tg_err *err)
{
    struct tg_model_spec *s = &x->spec;

    (void)err;
    tg_qwen3_5_shape(s);
    s->norm.plus_one = false;
    tg_gguf_round(s);
    for (size_t i = 0; i < s->layer_count; i++)
        if (!tg_qwen3_5_is_softmax(&s->layers[i]))
            s->layers[i].recurrent.norm_eps = s->norm.eps;
    return TG_OK;
}

/* Does the model's `1 +` count for this norm? The gated one has none. */
static bool has_one(const char *part)
{
    static const char *const norms[] = {"norm_in.weight", "norm_mlp.weight", "norm_out.weight",
                                        "mixer.q_norm.weight", "mixer.k_norm.weight"};

    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        if (!strcmp(part, norms[i]))
            return true;
    return false;
}

int tg_qwen35_fill(const struct tg_export *x, const struct tg_param *p, float *dst,
                   struct tg_err *err)
{
    const int rc = tg_qwen3_5_fill(x, p, dst, err);

    if (rc == TG_OK && x->in->spec->norm.plus_one && has_one(tg_qwen3_5_part(p)))
        for (size_t i = 0; i < p->count; i++)
            dst[i] += 1;
    return rc;
}

static void put_linear(const struct tg_export *x, struct tg_gguf_list *out)
{
    const struct tg_layer_spec *l = tg_qwen3_5_first(&x->spec, false);
    const char *arch = x->target->name;

    tg_gguf_put_size(out, arch, "ssm.conv_kernel", l->recurrent.conv);
    tg_gguf_put_size(out, arch, "ssm.state_size", l->head_dim);
    tg_gguf_put_size(out, arch, "ssm.group_count", l->kv_heads);
    tg_gguf_put_size(out, arch, "ssm.time_step_rank", tg_value_heads(l));
    tg_gguf_put_size(out, arch, "ssm.inner_size", tg_value_heads(l) * tg_value_dim(l));
}

/* Engines before September 2026 know the interval alone. */
static void put_kinds(const struct tg_export *x, struct tg_gguf_list *out)
{
    const size_t n = x->spec.layer_count, interval = tg_qwen3_5_interval(&x->spec);
    bool *linear = tg_gguf_own(out, tg_alloc_array(n, sizeof *linear));

    if (interval)
        tg_gguf_put_size(out, x->target->name, "full_attention_interval", interval);
    for (size_t i = 0; linear && i < n; i++)
        linear[i] = !tg_qwen3_5_is_softmax(&x->spec.layers[i]);
    tg_gguf_put_arch(out, x->target->name, "attention.recurrent_layers",
                     tg_gguf_array(TG_GGUF_BOOL, linear, linear ? n : 0));
}

static void put_sections(const struct tg_export *x, size_t pairs, struct tg_gguf_list *out)
{
    int32_t *n = tg_gguf_own(out, tg_alloc_array(4, sizeof *n));
    int64_t sections[3];

    tg_qwen3_5_sections(pairs, sections);
    for (size_t i = 0; n && i < 4; i++)
        n[i] = i < 3 ? (int32_t)sections[i] : 0;
    tg_gguf_put_arch(out, x->target->name, "rope.dimension_sections",
                     tg_gguf_array(TG_GGUF_I32, n, n ? 4 : 0));
}

void tg_qwen35_keys(const struct tg_export *x, struct tg_gguf_list *out)
{
    const struct tg_layer_spec *a = tg_qwen3_5_first(&x->spec, true);

    tg_gguf_keys_model(x, a, out);
    tg_gguf_put_size(out, x->target->name, "attention.head_count_kv", a->kv_heads);
    tg_gguf_keys_rope(x, a, out);
    put_sections(x, a->rotary_dim / 2, out);
    put_kinds(x, out);
    put_linear(x, out);
}

int tg_qwen35_plan(const char *name, bool sparse, const struct tg_model_spec *teacher,
                   const char *mixer, char *text, size_t size, struct tg_err *err)
{
    struct tg_remarks why = {0};
    int rc = TG_OK;

    check_kept(teacher, sparse, &why);
    if (why.count)
        rc = tg_fail(err, TG_ERR_UNSUPPORTED, "%s cannot hold a hybrid of this teacher: %s", name,
                     why.lines[0]);
    tg_remarks_release(&why);
    return rc ? rc : tg_qwen3_5_plan(name, sparse, teacher, mixer, text, size, err);
}

static void check(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    tg_qwen35_check(spec, false, why);
}

static void keys(const struct tg_export *x, struct tg_gguf_list *out)
{
    tg_qwen35_keys(x, out);
    tg_gguf_put_size(out, x->target->name, "feed_forward_length", x->spec.layers[0].mlp_dim);
}

static int plan(const struct tg_model_spec *teacher, const char *mixer, char *text, size_t size,
                struct tg_err *err)
{
    return tg_qwen35_plan("qwen35", false, teacher, mixer, text, size, err);
}

const struct tg_target tg_target_qwen35 = {
    .name = "qwen35",
    .engines = "llama.cpp",
    .gguf = true,
    .check = check,
    .adapt = tg_qwen35_adapt,
    .fill = tg_qwen35_fill,
    .names = tg_gguf_qwen35_names,
    .keys = keys,
    .plan = plan,
    .keep = "every:4",
};
