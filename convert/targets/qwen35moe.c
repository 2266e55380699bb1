/* llama.cpp's Qwen3.5 models with experts: Qwen3-MoE-like hybrids as GGUF files. */
#include "convert/gguf_model.h"
#include "convert/targets/gguf.h"
#include "convert/targets/qwen35.h"

static void check(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    tg_qwen35_check(spec, true, why);
}

static void keys(const struct tg_export *x, struct tg_gguf_list *out)
{
    const struct tg_moe_spec *m = &x->spec.layers[0].moe;
    const char *arch = x->target->name;

    tg_qwen35_keys(x, out);
    tg_gguf_put_size(out, arch, "feed_forward_length", m->mlp_dim); /* of no layer */
    tg_gguf_put_size(out, arch, "expert_count", m->experts);
    tg_gguf_put_size(out, arch, "expert_used_count", m->per_token);
    tg_gguf_put_size(out, arch, "expert_feed_forward_length", m->mlp_dim);
    tg_gguf_put_size(out, arch, "expert_shared_feed_forward_length", m->shared_dim);
}

static int plan(const struct tg_model_spec *teacher, const char *mixer, char *text, size_t size,
                struct tg_err *err)
{
    return tg_qwen35_plan("qwen35moe", true, teacher, mixer, text, size, err);
}

const struct tg_target tg_target_qwen35moe = {
    .name = "qwen35moe",
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
