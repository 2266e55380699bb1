/* Qwen3.5's text models with experts (qwen3_5_moe_text), of Qwen3-MoE-like teachers: experts in
 * every layer beside a shared one, which gives zero where the teacher has none. */
#include "convert/targets/qwen3_5.h"

static void check(const struct tg_model_spec *spec, struct tg_remarks *why)
{
    tg_qwen3_5_check(spec, true, why);
}

static void config(const struct tg_export *x, struct tg_json_out *out)
{
    const struct tg_moe_spec *m = &x->spec.layers[0].moe;

    tg_qwen3_5_config(x, "Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", out);
    tg_jout_int(out, "num_experts", (int64_t)m->experts);
    tg_jout_int(out, "num_experts_per_tok", (int64_t)m->per_token);
    tg_jout_int(out, "moe_intermediate_size", (int64_t)m->mlp_dim);
    tg_jout_int(out, "shared_expert_intermediate_size", (int64_t)m->shared_dim);
    tg_jout_bool(out, "norm_topk_prob", true);
}

static int plan(const struct tg_model_spec *teacher, const char *mixer, char *text, size_t size,
                struct tg_err *err)
{
    return tg_qwen3_5_plan("qwen3_5_moe", true, teacher, mixer, text, size, err);
}

const struct tg_target tg_target_qwen3_5_moe = {
    .name = "qwen3_5_moe",
    .engines = "transformers, vLLM, SGLang",
    .check = check,
    .pitfalls = tg_qwen3_5_pitfalls,
    .adapt = tg_qwen3_5_adapt,
    .fill = tg_qwen3_5_fill_folded,
    .names = tg_qwen3_5_names,
    .config = config,
    .plan = plan,
    .keep = "every:4",
};
