#include "tools/export.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "convert/export_about.h"
#include "convert/export_files.h"
#include "tools/front_matter.h"

int tg_export_choose(const char *arch, bool gguf, bool allow_irregular,
                     const struct tg_model_spec *spec, const struct tg_target **target,
                     struct tg_remarks *why, struct tg_err *err)
{
    struct tg_remarks ignored = {0};
    int rc = TG_OK;

    *target = NULL;
    if (!strcmp(arch, "tegu"))
        return gguf ? tg_fail(err, TG_ERR_UNSUPPORTED,
                              "arch: tegu is a directory, not a GGUF file; see --arch auto")
                    : TG_OK;
    if (!strcmp(arch, "auto")) {
        struct tg_remarks *to = why ? why : &ignored;
        *target = tg_target_auto(spec, gguf, to);
        if (!*target && gguf)
            rc =
                tg_fail(err, TG_ERR_UNSUPPORTED,
                        "no GGUF architecture can hold this model: %s; --dry-run lists all reasons",
                        to->count ? to->lines[0] : "out of memory");
        tg_remarks_release(&ignored);
        return rc;
    }
    *target = tg_target_find(arch);
    if (!*target)
        return tg_fail(err, TG_ERR_VALUE, "arch: '%s' is not known", arch);
    if ((*target)->gguf != gguf)
        return tg_fail(err, TG_ERR_VALUE, "arch: %s is %s, but the output is %s", arch,
                       (*target)->gguf ? "a GGUF architecture" : "written as a directory",
                       gguf ? "a GGUF file" : "a directory");
    rc = tg_target_fits(*target, spec, allow_irregular, &ignored, err);
    tg_remarks_release(&ignored);
    return rc;
}

/* Borrows from the record; the list of languages is the caller's array. */
static struct tg_export_about about(const struct tg_export_job *job,
                                    const char *languages[TG_MAX_LANGUAGES])
{
    const struct tg_json base =
        job->record ? tg_json_key(tg_record_root(job->record), "base_model") : (struct tg_json){0};
    const struct tg_json list = tg_json_key(base, "languages");
    struct tg_export_about a = {
        .name = job->name,
        .base_model = tg_json_string(tg_json_key(base, "name")),
        .license = tg_json_string(tg_json_key(base, "license")),
        .license_name = tg_json_string(tg_json_key(base, "license_name")),
        .license_link = tg_json_string(tg_json_key(base, "license_link")),
        .languages = languages,
    };

    for (struct tg_json c = tg_json_first(list); c.node; c = tg_json_next(c))
        if (a.language_count < TG_MAX_LANGUAGES && tg_json_string(c)[0])
            languages[a.language_count++] = tg_json_string(c);
    return a;
}

int tg_export_make(struct tg_tool *t, const struct tg_export_job *job,
                   const struct tg_target *target, const char *path,
                   struct tg_export_result *result, struct tg_err *err)
{
    const char *languages[TG_MAX_LANGUAGES];
    const struct tg_export_about of = about(job, languages);
    struct tg_export x = {0};
    int rc;

    *result = (struct tg_export_result){.target = target};
    if ((rc =
             tg_target_fits(target, job->source.spec, job->allow_irregular, &result->notes, err)) ||
        (rc = tg_export_begin(&x, target, &job->source, job->dtype, job->dir, err)))
        return rc;
    x.about = &of;
    if (!(rc = tg_export_write(&x, path, (uint64_t)job->max_shard, &t->progress, err)) &&
        (target->gguf || !(rc = tg_export_files(&x, job->dir, path, err))))
        rc = tg_proof_run(&x, path, &t->ctx, &result->proof, err);
    if (rc == TG_OK)
        rc = tg_spec_copy(&result->spec, &x.spec, err);
    for (size_t i = 0; i < x.notes.count; i++)
        tg_remark(&result->notes, "%s", x.notes.lines[i]);
    tg_export_end(&x);
    return rc;
}

void tg_export_result_release(struct tg_export_result *r)
{
    tg_spec_release(&r->spec);
    tg_remarks_release(&r->notes);
}

/* Each target's first reason, and how many more it has; a line begins with its target's name. */
static void tell_why(struct tg_tool *t, const struct tg_remarks *why)
{
    size_t next;

    for (size_t i = 0; i < why->count; i = next) {
        const size_t name = strcspn(why->lines[i], ":");
        for (next = i + 1; next < why->count; next++)
            if (strncmp(why->lines[i], why->lines[next], name + 1) != 0)
                break;
        if (next == i + 1)
            tg_note(t, "not %s", why->lines[i]);
        else
            tg_note(t, "not %s (and %zu more)", why->lines[i], next - i - 1);
    }
}

void tg_export_tell(struct tg_tool *t, const struct tg_export_result *r,
                    const struct tg_remarks *why)
{
    tell_why(t, why);
    if (!r->target) {
        tg_note(t, "written as tegu: loads in transformers with the code that is shipped in it");
        return;
    }
    tg_note(t, "written as %s: loads in %s", r->target->name, r->target->engines);
    tg_note(t,
            "read back: every parameter as it should be; logits on random ids %.2g from the "
            "source's before rounding, %.2g as written",
            r->proof.exact, r->proof.written);
    for (size_t i = 0; i < r->notes.count; i++)
        tg_note(t, "note: %s", r->notes.lines[i]);
}

static void json_lines(struct tg_json_out *out, const char *key, const struct tg_remarks *r)
{
    tg_jout_array(out, key);
    for (size_t i = 0; i < r->count; i++)
        tg_jout_str(out, NULL, r->lines[i]);
    tg_jout_end_array(out);
}

/* One target's verdict: a line and its reasons, or a JSON object */
static void verdict(const struct tg_target *target, const struct tg_model_spec *spec,
                    struct tg_json_out *out)
{
    struct tg_remarks why = {0}, odd = {0};

    target->check(spec, &why);
    if (!why.count && target->pitfalls)
        target->pitfalls(spec, &odd);
    if (out) {
        tg_jout_object(out, NULL);
        tg_jout_str(out, "arch", target->name);
        tg_jout_bool(out, "gguf", target->gguf);
        tg_jout_bool(out, "fits", !why.count && !odd.count);
        json_lines(out, "reasons", &why);
        json_lines(out, "irregular", &odd);
        tg_jout_end_object(out);
    } else {
        printf("%-18s%s (%s)\n", target->name,
               why.count   ? "no"
               : odd.count ? "with --allow-irregular"
                           : "fits",
               target->engines);
        for (size_t i = 0; i < why.count; i++)
            printf("    %s\n", why.lines[i]);
        for (size_t i = 0; i < odd.count; i++)
            printf("    %s\n", odd.lines[i]);
    }
    tg_remarks_release(&why);
    tg_remarks_release(&odd);
}

int tg_export_verdicts(const struct tg_tool *t, const struct tg_model_spec *spec,
                       struct tg_err *err)
{
    struct tg_json_doc_out doc;
    struct tg_json_out *out = t->set.json ? tg_print_json_begin(&doc) : NULL;

    if (out)
        tg_jout_array(out, "targets");
    for (size_t i = 0; tg_targets[i]; i++)
        verdict(tg_targets[i], spec, out);
    if (!out) {
        printf("%-18sfits (transformers, with the code that is shipped in it)\n", "tegu");
        return TG_OK;
    }
    tg_jout_end_array(out);
    return tg_print_json_end(&doc, err);
}
