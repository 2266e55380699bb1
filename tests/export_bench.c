#include "tests/export_bench.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "linearize/surgery/surgery.h"
#include "tests/check.h"
#include "tests/scratch.h"
#include "tests/small_model.h"
#include "tests/specs.h"
#include "tools/groups.h"
#include "tools/proof.h"

static const struct tg_target *target_of(const char *name)
{
    const struct tg_target *t = tg_target_find(name);

    if (!t)
        fail_msg("no target '%s'", name);
    return t;
}

/* Noise on top of what surgery gives: nothing is left at a start that hides it. */
static void stir(struct tg_model *m, uint64_t seed)
{
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        struct tg_rng rng = tg_rng_make(seed, i);
        for (size_t e = 0; e < p->count; e++)
            m->data[p->offset + e] += (float)(0.1 * tg_rng_normal(&rng));
    }
}

struct tg_model *tg_bench_hybrid(const char *config, const char *mixer, const char *keep,
                                 uint64_t seed)
{
    const struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = 1};
    struct tg_plan_layer to = {0};
    struct tg_model_spec spec;
    struct tg_plan plan = {0};
    struct tg_err err = {0};
    struct tg_model *m;

    tg_must_parse(config, &spec);
    if (mixer) {
        struct tg_plan_options o = {.keep = keep, .sinks = -1};
        tg_test_must(tg_plan_mixer_read(mixer, &to, &err), &err);
        o.mixer = to.mixer->name;
        memcpy(o.set, to.set, sizeof o.set);
        tg_test_must(tg_plan_make(&plan, &spec, &o, NULL, &err), &err);
    }
    tg_test_must(tg_surgery_random(&spec, mixer ? &plan : NULL, &ctx, 0.15, seed, &m, &err), &err);
    stir(m, seed + 1);
    tg_plan_release(&plan);
    tg_spec_release(&spec);
    return m;
}

static const char *dtype_name(enum tg_dtype t)
{
    return t == TG_BF16 ? "bf16" : t == TG_F16 ? "f16" : t == TG_Q8_0 ? "q8_0" : "f32";
}

static void export_to(const struct tg_model *m, const struct tg_target *t, enum tg_dtype dtype,
                      const char *path)
{
    const struct tg_block block = {&m->params, m->data};
    const struct tg_export_source in = tg_export_from_block(&m->spec, &block);
    struct tg_remarks notes = {0};
    struct tg_err err = {0};
    struct tg_export x;

    tg_test_must(tg_target_fits(t, &m->spec, true, &notes, &err), &err);
    tg_test_must(tg_export_begin(&x, t, &in, dtype_name(dtype), NULL, &err), &err);
    tg_test_must(tg_export_write(&x, path, 0, NULL, &err), &err);
    tg_test_must(tg_export_verify(&x, path, &err), &err);
    tg_export_end(&x);
    tg_remarks_release(&notes);
}

double tg_bench_export(const struct tg_model *m, const char *target, enum tg_dtype dtype)
{
    const struct tg_target *t = target_of(target);
    char *path = t->gguf ? tg_scratch_path("export.gguf") : tg_scratch_dir("export");
    struct tg_err err = {0};
    struct tg_model *back;
    float *want, *got;
    size_t count;

    export_to(m, t, dtype, path);
    tg_test_must(tg_model_load(&back, path, &m->ctx, &err), &err);
    tg_test_must(tg_proof_logits(m, &want, &count, &err), &err);
    tg_test_must(tg_proof_logits(back, &got, &count, &err), &err);
    const double distance = tg_proof_distance(got, want, count);
    tg_free(want);
    tg_free(got);
    tg_model_free(back);
    tg_free(path);
    return distance;
}

double tg_bench_export_rounded(struct tg_model *m, const char *target, enum tg_dtype dtype)
{
    tg_proof_round(m, dtype);
    return tg_bench_export(m, target, dtype);
}

static void expect_line(struct tg_remarks *r, const char *what, const char *text)
{
    bool found = false;

    for (size_t i = 0; i < r->count; i++)
        found = found || strstr(r->lines[i], text);
    if (!found)
        fail_msg("%s: no line of %zu has '%s'; the first: %s", what, r->count, text,
                 r->count ? r->lines[0] : "none");
    tg_remarks_release(r);
}

void tg_bench_refused(const struct tg_model_spec *spec, const char *target, const char *text)
{
    struct tg_remarks r = {0};

    target_of(target)->check(spec, &r);
    expect_line(&r, target, text);
}

void tg_bench_pitfall(const struct tg_model_spec *spec, const char *target, const char *text)
{
    struct tg_remarks r = {0};

    target_of(target)->pitfalls(spec, &r);
    expect_line(&r, target, text);
}

char *tg_bench_config(const char *text, const char *const *edits)
{
    char *now = tg_strdup(text);

    for (; edits[0]; edits += 2) {
        char *next = tg_json_with(now, edits[0], edits[1]);
        tg_free(now);
        now = next;
    }
    assert_non_null(now);
    return now;
}
