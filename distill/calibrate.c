#include "distill/calibrate.h"

#include "base/mem.h"
#include "distill/pack.h"

enum { BATCH_ROWS = 2048 }; /* tokens run at a time (at least one window) */

/* Windows of a text, spread evenly over it */
struct text {
    const int32_t *ids;
    size_t length, step, windows, at_once; /* tokens of a window, and from one to the next */
};

static int text_init(struct text *t, const char *what, const int32_t *ids, size_t count,
                     size_t length, size_t tokens, struct tg_err *err)
{
    length = length < count ? length : count;
    if (length == 0)
        return tg_fail(err, TG_ERR_VALUE, "%s: the text has no tokens", what);
    const size_t have = count / length;
    size_t windows = tokens / length;
    windows = windows > have ? have : windows > 0 ? windows : 1;
    const size_t at_once = length < BATCH_ROWS ? BATCH_ROWS / length : 1;
    *t = (struct text){.ids = ids,
                       .length = length,
                       .step = have / windows * length,
                       .windows = windows,
                       .at_once = at_once < windows ? at_once : windows};
    return TG_OK;
}

/* Packs the windows, several at a time, and has each pack run */
static int text_run(const struct text *t, const char *what, struct tg_pack *pack,
                    int (*run)(void *ud, struct tg_err *err), void *ud,
                    const struct tg_progress *progress, struct tg_err *err)
{
    const size_t all = t->windows * t->length;
    int status = TG_OK;
    for (size_t w = 0; w < t->windows && status == TG_OK;) {
        if (tg_progress_tell(progress, what, w * t->length, all, "tokens", NULL))
            status = tg_fail(err, TG_ERR_INTERRUPTED, "interrupted");
        tg_pack_clear(pack);
        for (size_t i = 0; i < t->at_once && w < t->windows && status == TG_OK; i++, w++)
            status = tg_pack_add(pack, t->ids + w * t->step, t->length, err);
        if (status == TG_OK)
            status = run(ud, err);
    }
    if (status == TG_OK)
        tg_progress_tell(progress, what, all, all, "tokens", NULL);
    return status;
}

struct pass {
    struct tg_model *teacher;
    struct tg_gain_fit *fit;
    struct tg_run *run;
    struct tg_pack pack;
    struct tg_batch batch;
    float *hidden; /* [rows,D] */
    size_t layers; /* up to the highest changed one */
};

static void seen(void *ud, size_t layer, const float *x, const float *y)
{
    const struct pass *p = ud;
    tg_gain_fit_add(p->fit, layer, &p->batch, tg_run_ropes(p->run), x, y);
}

static int pass_init(struct pass *p, struct tg_model *teacher, struct tg_model *student,
                     const bool *changed, size_t length, size_t at_once, struct tg_err *err)
{
    size_t *begin = tg_alloc_array(at_once + 1, sizeof *begin);
    int status = tg_pack_init(&p->pack, err);
    p->teacher = teacher;
    for (size_t l = 0; l < teacher->spec.layer_count; l++)
        if (changed[l])
            p->layers = l + 1;
    p->hidden = tg_alloc_floats(at_once * length * teacher->spec.width);
    if (status == TG_OK && (!begin || !p->hidden))
        status = tg_fail(err, TG_ERR_NOMEM, "closed form: no memory for %zu tokens at a time",
                         at_once * length);
    for (size_t i = 0; status == TG_OK && i <= at_once; i++)
        begin[i] = i * length;
    struct tg_batch largest = {.count = at_once, .begin = begin};
    if (status == TG_OK)
        status = tg_model_reserve(teacher, length, err);
    if (status == TG_OK)
        status = tg_model_reserve(student, length, err);
    if (status == TG_OK)
        status = tg_run_create(&p->run, err);
    if (status == TG_OK)
        status = tg_run_fit(p->run, teacher, &largest, false, err);
    if (status == TG_OK)
        status = tg_gain_fit_create(&p->fit, student, changed, &largest, err);
    tg_free(begin);
    return status;
}
static void pass_release(struct pass *p)
{
    tg_gain_fit_free(p->fit);
    tg_run_free(p->run);
    tg_pack_release(&p->pack);
    tg_free(p->hidden);
}

static int pass_batch(void *ud, struct tg_err *err)
{
    struct pass *p = ud;
    struct tg_hooks hooks = {.mixer = seen, .ud = p};
    p->batch = tg_pack_batch(&p->pack);
    int status = tg_run_fit(p->run, p->teacher, &p->batch, false, err);
    if (status != TG_OK)
        return status;
    tg_model_embed(p->teacher, p->pack.ids, &p->batch, p->hidden);
    for (size_t l = 0; l < p->layers; l++)
        tg_layer_forward(p->teacher, p->run, l, &p->batch, p->hidden, false, &hooks);
    return TG_OK;
}

int tg_calibrate_gains(struct tg_model *teacher, struct tg_model *student, const bool *changed,
                       const int32_t *ids, size_t count, size_t length, size_t tokens,
                       struct tg_gain_result *out, const struct tg_progress *progress,
                       struct tg_err *err)
{
    const char *what = "closed form";
    struct pass p = {0};
    struct text text = {0};
    int status = text_init(&text, what, ids, count, length, tokens, err);
    if (status == TG_OK)
        status = pass_init(&p, teacher, student, changed, text.length, text.at_once, err);
    if (status == TG_OK)
        status = text_run(&text, what, &p.pack, pass_batch, &p, progress, err);
    for (size_t l = 0; l < p.layers && status == TG_OK; l++)
        if (changed[l])
            status = tg_gain_fit_apply(p.fit, l, &out[l], err);
    pass_release(&p);
    return status;
}

struct look_pass {
    const struct tg_model *teacher;
    struct tg_lookback *out;
    struct tg_pack pack;
};

static int look_batch(void *ud, struct tg_err *err)
{
    struct look_pass *p = ud;
    const struct tg_batch b = tg_pack_batch(&p->pack);
    return tg_lookback_measure(p->out, p->teacher, &b, p->pack.ids, err);
}

int tg_calibrate_lookback(struct tg_model *teacher, const int32_t *ids, size_t count, size_t length,
                          size_t windows, struct tg_lookback *out,
                          const struct tg_progress *progress, struct tg_err *err)
{
    const char *what = "look-back";
    struct look_pass p = {.teacher = teacher, .out = out};
    struct text text = {0};
    int status = text_init(&text, what, ids, count, length, windows * length, err);
    if (status == TG_OK)
        status = tg_pack_init(&p.pack, err);
    if (status == TG_OK)
        status = tg_model_reserve(teacher, text.length, err);
    if (status == TG_OK)
        status = text_run(&text, what, &p.pack, look_batch, &p, progress, err);
    tg_pack_release(&p.pack);
    return status;
}
