/* tegu logits: logits and hidden states of token ids, as one parallel pass or token by token
 * through the cache. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/tensors.h"
#include "tools/subject.h"

struct settings {
    const char *ids, *text, *text_file, *out, *mode;
    bool hidden;
};
static const char *mode_name(size_t i)
{
    static const char *const names[] = {"parallel", "recurrent", NULL};
    return i < 2 ? names[i] : NULL;
}
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {'o', "out", TG_OPT_TEXT, AT(out), NULL, "OUT", "the safetensors file to write", 0, 0, NULL,
     true},
    {0, "ids", TG_OPT_TEXT, AT(ids), NULL, "F[:NAME]",
     "integer tensor [B,T] or [T] of a safetensors file; NAME: input_ids", 0, 0, NULL, false},
    {0, "text", TG_OPT_TEXT, AT(text), NULL, "S", "this text", 0, 0, NULL, false},
    {0, "text-file", TG_OPT_TEXT, AT(text_file), NULL, "F", "the text of a file", 0, 0, NULL,
     false},
    {0, "hidden", TG_OPT_FLAG, AT(hidden), NULL, NULL, "write hidden.{i} too", 0, 0, NULL, false},
    {0, "mode", TG_OPT_CHOICE, AT(mode), "parallel", "MODE", "how to compute", 0, 0, mode_name,
     false},
    {0},
};
#undef AT

struct job {
    struct tg_subject subject;
    int32_t *ids; /* [B,T] */
    size_t B, T;
    float *logits;  /* [B,T,N] */
    float *hidden;  /* [layers + 1][B,T,D]; NULL: not wanted */
    size_t at, len; /* recurrent: position and rows of each sequence in the running step */
};

/* "F:NAME"; a path that exists as it stands is taken as a path */
static int read_ids(const char *arg, struct job *j, struct tg_err *err)
{
    const char *name = "input_ids", *colon = strrchr(arg, ':');
    char *path = tg_strdup(arg);
    struct tg_tensors *file = NULL;
    int64_t *wide = NULL;
    int status = path ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory");
    if (status == TG_OK && colon && !tg_path_exists(arg)) {
        path[colon - arg] = 0;
        name = colon + 1;
    }
    if (status == TG_OK)
        status = tg_tensors_open(&file, path, err);
    const struct tg_tensor *x = status == TG_OK ? tg_tensors_find(file, name) : NULL;
    if (status == TG_OK && !x)
        status = tg_fail(err, TG_ERR_VALUE, "%s: has no tensor '%s'", path, name);
    if (status == TG_OK && (x->rank < 1 || x->rank > 2 || x->elements == 0))
        status = tg_fail(err, TG_ERR_VALUE,
                         "%s: tensor '%s' is not [B,T] or [T] with at least one id", path, name);
    if (status == TG_OK) {
        j->B = x->rank == 2 ? (size_t)x->shape[0] : 1;
        j->T = x->elements / j->B;
        wide = tg_alloc_array(x->elements, sizeof *wide);
        j->ids = tg_alloc_array(x->elements, sizeof *j->ids);
        status = wide && j->ids ? tg_tensor_read_i64(x, wide, err)
                                : tg_fail(err, TG_ERR_NOMEM, "no memory for ids");
    }
    size_t vocab = j->subject.model->spec.vocab;
    for (size_t i = 0; status == TG_OK && i < x->elements; i++) {
        if (wide[i] < 0 || wide[i] >= (int64_t)vocab)
            status = tg_fail(err, TG_ERR_VALUE,
                             "%s: tensor '%s': id %lld at %zu is not in the vocabulary of %zu",
                             path, name, (long long)wide[i], i, vocab);
        else
            j->ids[i] = (int32_t)wide[i];
    }
    tg_free(wide);
    tg_tensors_close(file);
    tg_free(path);
    return status;
}

static int encode(const char *text, size_t len, struct job *j, struct tg_err *err)
{
    struct tg_ids ids = {0};
    int status = tg_tokenizer_encode(j->subject.tok, text, len, true, &ids, err);
    if (status == TG_OK && ids.count == 0)
        status = tg_fail(err, TG_ERR_VALUE, "the text is empty");
    if (status)
        tg_ids_release(&ids);
    j->ids = ids.data;
    j->B = 1;
    j->T = ids.count;
    return status;
}

static void take_hidden(void *ud, size_t index, const float *h)
{
    struct job *j = ud;
    size_t D = j->subject.model->spec.width;
    float *to = j->hidden + index * j->B * j->T * D;
    for (size_t b = 0; b < j->B; b++)
        memcpy(to + (b * j->T + j->at) * D, h + b * j->len * D, j->len * D * sizeof *to);
}

static int run_parallel(struct job *j, const struct tg_hooks *hooks, struct tg_err *err)
{
    struct tg_model *m = j->subject.model;
    struct tg_run *r = NULL;
    size_t rows = j->B * j->T;
    size_t *begin = tg_alloc_array(j->B + 1, sizeof *begin);
    float *h = tg_alloc_floats(rows * m->spec.width);
    int status = begin && h ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory for %zu tokens", rows);
    for (size_t b = 0; status == TG_OK && b <= j->B; b++)
        begin[b] = b * j->T;
    struct tg_batch batch = {j->B, begin, NULL};
    if (status == TG_OK)
        status = tg_model_reserve(m, j->T, err);
    if (status == TG_OK)
        status = tg_run_create(&r, err);
    if (status == TG_OK)
        status = tg_run_fit(r, m, &batch, false, err);
    if (status == TG_OK) {
        j->at = 0;
        j->len = j->T;
        tg_model_forward(m, r, j->ids, &batch, h, false, hooks);
        tg_model_logits(m, h, rows, j->logits);
    }
    tg_run_free(r);
    tg_free(begin);
    tg_free(h);
    return status;
}

static int run_recurrent(struct tg_tool *t, struct job *j, const struct tg_hooks *hooks,
                         struct tg_err *err)
{
    struct tg_model *m = j->subject.model;
    size_t N = m->spec.vocab, D = m->spec.width;
    struct tg_cache *cache = NULL;
    size_t *begin = tg_alloc_array(j->B + 1, sizeof *begin);
    int32_t *ids = tg_alloc_array(j->B, sizeof *ids);
    float *h = tg_alloc_floats(j->B * D), *logits = tg_alloc_floats(j->B * N);
    int status =
        begin && ids && h && logits ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory for a step");
    if (status == TG_OK)
        status = tg_model_reserve(m, j->T, err);
    if (status == TG_OK)
        status = tg_cache_create(&cache, m, j->B, j->T, err);
    for (size_t b = 0; status == TG_OK && b <= j->B; b++)
        begin[b] = b;
    j->len = 1;
    for (size_t p = 0; status == TG_OK && p < j->T; p++) {
        j->at = p;
        for (size_t b = 0; b < j->B; b++)
            ids[b] = j->ids[b * j->T + p];
        status = tg_model_step(m, cache, ids, begin, h, hooks, err);
        if (status)
            break;
        tg_model_logits(m, h, j->B, logits);
        for (size_t b = 0; b < j->B; b++)
            memcpy(j->logits + (b * j->T + p) * N, logits + b * N, N * sizeof *logits);
        if (tg_progress_tell(&t->progress, "logits", p + 1, j->T, "tokens", NULL))
            status = tg_fail(err, TG_ERR_INTERRUPTED, "stopped");
    }
    tg_cache_free(cache);
    tg_free(begin);
    tg_free(ids);
    tg_free(h);
    tg_free(logits);
    return status;
}

static int write_out(const struct job *j, const char *path, bool force, struct tg_err *err)
{
    const struct tg_model_spec *s = &j->subject.model->spec;
    size_t hidden = j->hidden ? s->layer_count + 1 : 0, count = 2 + hidden;
    int64_t B = (int64_t)j->B, T = (int64_t)j->T;
    if (tg_path_exists(path) && !force)
        return tg_fail(err, TG_ERR_EXISTS, "%s: exists; --force replaces it", path);
    struct tg_tensor_plan *plan = tg_alloc_array(count, sizeof *plan);
    char(*names)[32] = tg_alloc_array(count, sizeof *names);
    struct tg_tensor_writer *w = NULL;
    if (!plan || !names) {
        tg_free(plan);
        tg_free(names);
        return tg_fail(err, TG_ERR_NOMEM, "no memory for %zu tensors", count);
    }
    plan[0] = (struct tg_tensor_plan){"logits", TG_F32, 3, {B, T, (int64_t)s->vocab}};
    plan[1] = (struct tg_tensor_plan){"input_ids", TG_I32, 2, {B, T}};
    for (size_t i = 0; i < hidden; i++) {
        snprintf(names[i], sizeof names[i], "hidden.%zu", i);
        plan[2 + i] = (struct tg_tensor_plan){names[i], TG_F32, 3, {B, T, (int64_t)s->width}};
    }
    int status = tg_tensor_writer_open(&w, path, plan, count, &tg_write_single, err);
    for (size_t i; status == TG_OK && (i = tg_tensor_writer_next(w)) < count;)
        status =
            i == 1 ? tg_tensor_writer_put_raw(w, j->ids, err)
            : i == 0
                ? tg_tensor_writer_put_f32(w, j->logits, err)
                : tg_tensor_writer_put_f32(w, j->hidden + (i - 2) * j->B * j->T * s->width, err);
    if (status == TG_OK)
        status = tg_tensor_writer_finish(w, err);
    tg_tensor_writer_close(w);
    tg_free(plan);
    tg_free(names);
    return status;
}

static int compute(struct tg_tool *t, const struct settings *set, struct job *j, struct tg_err *err)
{
    const struct tg_model_spec *s = &j->subject.model->spec;
    size_t n = 0, h = 0;
    bool fits = tg_mul_size(&n, j->B * j->T, s->vocab) &&
                tg_mul_size(&h, j->B * j->T, s->width * (s->layer_count + 1));
    j->logits = fits ? tg_alloc_floats(n) : NULL;
    j->hidden = fits && set->hidden ? tg_alloc_floats(h) : NULL;
    if (!j->logits || (set->hidden && !j->hidden))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for logits [%zu,%zu,%zu]", j->B, j->T,
                       s->vocab);
    struct tg_hooks hooks = {.hidden = set->hidden ? take_hidden : NULL, .ud = j};
    return strcmp(set->mode, "parallel") == 0 ? run_parallel(j, &hooks, err)
                                              : run_recurrent(t, j, &hooks, err);
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    struct job j = {0};
    if (!!set->ids + !!set->text + !!set->text_file != 1)
        return tg_usage(err, "give one of --ids F, --text S, --text-file F");
    if (tg_path_exists(set->out) && !t->set.force)
        return tg_fail(err, TG_ERR_EXISTS, "%s: exists; --force replaces it", set->out);
    int status =
        tg_subject_open(t, t->args[0], set->ids ? 0 : TG_SUBJECT_TOKENIZER, &j.subject, err);
    if (status == TG_OK && set->ids)
        status = read_ids(set->ids, &j, err);
    else if (status == TG_OK && set->text)
        status = encode(set->text, strlen(set->text), &j, err);
    else if (status == TG_OK) {
        char *text = NULL;
        size_t len = 0;
        status = tg_text_read(set->text_file, (size_t)1 << 32, &text, &len, err);
        if (status == TG_OK)
            status = encode(text, len, &j, err);
        tg_free(text);
    }
    if (status == TG_OK)
        status = compute(t, set, &j, err);
    if (status == TG_OK)
        status = write_out(&j, set->out, t->set.force, err);
    if (status == TG_OK && t->set.json) {
        struct tg_json_doc_out doc;
        struct tg_json_out *out = tg_print_json_begin(&doc);
        tg_jout_str(out, "out", set->out);
        tg_jout_int(out, "sequences", (int64_t)j.B);
        tg_jout_int(out, "tokens", (int64_t)j.T);
        status = tg_print_json_end(&doc, err);
    } else if (status == TG_OK) {
        tg_note(t, "%s: logits [%zu,%zu,%zu]", set->out, j.B, j.T, j.subject.model->spec.vocab);
    }
    tg_free(j.ids);
    tg_free(j.logits);
    tg_free(j.hidden);
    tg_subject_close(&j.subject);
    return status;
}

const struct tg_command tg_cmd_logits = {
    .name = "logits",
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .details = "Writes logits [B,T,N] float32, input_ids [B,T] int32 and with --hidden hidden.{i} "
               "[B,T,D] before layer i\n"
               "(the last one after the final norm). The parallel mode is one pass over the text, "
               "the recurrent mode one\n"
               "token at a time through the decode cache; both agree to rounding.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}},
    .run = run,
};
