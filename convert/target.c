#include "convert/export.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

const struct tg_target *const tg_targets[] = {
#define TG_TARGET(name) &tg_target_##name,
#include "convert/targets.def"
#undef TG_TARGET
    NULL};

const struct tg_target *tg_target_find(const char *name)
{
    for (size_t i = 0; tg_targets[i]; i++)
        if (!strcmp(tg_targets[i]->name, name))
            return tg_targets[i];
    return NULL;
}

void tg_remark(struct tg_remarks *r, const char *fmt, ...)
{
    char line[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    char *copy =
        tg_grow(&r->lines, &r->cap, r->count + 1, sizeof *r->lines) ? tg_strdup(line) : NULL;
    if (copy)
        r->lines[r->count++] = copy;
    else
        r->failed = true;
}

void tg_remark_model(struct tg_remarks *r, const struct tg_reason *reasons, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (reasons[i].holds)
            tg_remark(r, "%s", reasons[i].text);
}

void tg_remark_layer(struct tg_remarks *r, size_t layer, const struct tg_reason *reasons,
                     size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (reasons[i].holds)
            tg_remark(r, "layer %zu: %s", layer, reasons[i].text);
}

void tg_remarks_release(struct tg_remarks *r)
{
    for (size_t i = 0; i < r->count; i++)
        tg_free(r->lines[i]);
    tg_free(r->lines);
    *r = (struct tg_remarks){0};
}

static void say_all(const char *target, struct tg_remarks *from, struct tg_remarks *to)
{
    for (size_t i = 0; i < from->count; i++)
        tg_remark(to, "%s: %s", target, from->lines[i]);
    to->failed = to->failed || from->failed;
    tg_remarks_release(from);
}

const struct tg_target *tg_target_auto(const struct tg_model_spec *spec, bool gguf,
                                       struct tg_remarks *why)
{
    for (size_t i = 0; tg_targets[i]; i++) {
        const struct tg_target *t = tg_targets[i];
        struct tg_remarks r = {0};
        if (t->gguf != gguf)
            continue;
        t->check(spec, &r);
        if (!r.count && t->pitfalls)
            t->pitfalls(spec, &r);
        if (!r.count && !r.failed)
            return t;
        say_all(t->name, &r, why);
    }
    return NULL;
}

/* "a; b; c and 4 more" */
static int refuse(const struct tg_target *t, const struct tg_remarks *r, const char *hint,
                  struct tg_err *err)
{
    enum { SHOWN = 3 };
    char text[900];
    size_t n = 0;

    for (size_t i = 0; i < r->count && i < SHOWN && n < sizeof text; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", i ? "; " : "", r->lines[i]);
    if (r->count > SHOWN && n < sizeof text)
        snprintf(text + n, sizeof text - n, "; and %zu more", r->count - SHOWN);
    return tg_fail(err, TG_ERR_UNSUPPORTED, "%s cannot hold this model%s: %s", t->name, hint, text);
}

int tg_target_fits(const struct tg_target *t, const struct tg_model_spec *spec,
                   bool allow_irregular, struct tg_remarks *notes, struct tg_err *err)
{
    struct tg_remarks r = {0};
    int rc = TG_OK;

    t->check(spec, &r);
    if (r.count)
        rc = refuse(t, &r, "", err);
    else if (t->pitfalls) {
        t->pitfalls(spec, &r);
        if (r.count && !allow_irregular)
            rc = refuse(t, &r, " everywhere (--allow-irregular writes it all the same)", err);
        else if (r.count)
            say_all(t->name, &r, notes);
    }
    tg_remarks_release(&r);
    return rc;
}

/* As config.json of transformers 4 and 5 spells the type */
static const char *dtype_word(enum tg_dtype t)
{
    return t == TG_BF16 ? "bfloat16" : t == TG_F16 ? "float16" : "float32";
}

void tg_target_common(const struct tg_export *x, struct tg_json_out *out)
{
    const struct tg_model_spec *s = &x->spec;

    tg_jout_str(out, "dtype", dtype_word(x->dtype));
    tg_jout_str(out, "torch_dtype", dtype_word(x->dtype));
    tg_jout_int(out, "vocab_size", (int64_t)s->vocab);
    tg_jout_int(out, "hidden_size", (int64_t)s->width);
    tg_jout_int(out, "num_hidden_layers", (int64_t)s->layer_count);
    if (s->max_positions)
        tg_jout_int(out, "max_position_embeddings", (int64_t)s->max_positions);
    tg_jout_bool(out, "tie_word_embeddings", s->tied_head);
    tg_jout_bool(out, "use_cache", true);
    if (s->bos_id >= 0)
        tg_jout_int(out, "bos_token_id", s->bos_id);
    else
        tg_jout_null(out, "bos_token_id");
    if (s->eos_count == 1)
        tg_jout_int(out, "eos_token_id", s->eos_ids[0]);
    else if (!s->eos_count)
        tg_jout_null(out, "eos_token_id");
    else {
        tg_jout_array(out, "eos_token_id");
        for (size_t i = 0; i < s->eos_count; i++)
            tg_jout_int(out, NULL, s->eos_ids[i]);
        tg_jout_end_array(out);
    }
}
