/* The trainer: stages one after another; in each, updates over micro-batches, a log line an update,
 * and states from which the same run goes on with the same bits. A state holds all that an update
 * depends on: parameters, moments, LoRA factors and the position; the data is a function of the
 * position. Memory is blocks: parameters (the student's), gradients, two moments, and what the
 * stage keeps. */
#include "distill/train.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "distill/keys.h"
#include "distill/log.h"
#include "distill/lora.h"
#include "distill/optim.h"
#include "distill/stage.h"
#include "distill/state.h"

struct trainer {
    const struct tg_train_job *job;
    struct tg_state_head at;
    struct tg_log log;
    double begun, saved; /* clock */
    bool *changed;       /* [layers] */
    float *grads;        /* params.floats */
    /* of the stage under way */
    const struct tg_stage *stage;
    const struct tg_stage_settings *set;
    struct tg_stage_io io;
    struct tg_optim optim;
    struct tg_lora lora;
    struct tg_hidden hidden;
    bool *wanted;       /* [params] */
    double *layer_loss; /* [layers] */
    int32_t *ids;       /* [micro * length] */
    size_t *begin;      /* [micro + 1] */
    uint64_t steps;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Layers whose mixer is not the teacher's; without a teacher those whose state is constant. */
static void find_changed(const struct tg_train_job *job, bool *changed)
{
    for (size_t l = 0; l < job->student->spec.layer_count; l++) {
        const struct tg_layer_spec *s = &job->student->spec.layers[l];
        const struct tg_layer_spec *t = job->teacher ? &job->teacher->spec.layers[l] : NULL;
        changed[l] = t ? s->mixer != t->mixer || s->window != t->window || s->sinks != t->sinks
                       : (s->mixer->flags & TG_MIXER_LINEAR) != 0;
    }
}

static int check_job(const struct tg_train_job *job, struct tg_err *err)
{
    const struct tg_model_spec *s = &job->student->spec;
    const struct tg_model_spec *t = job->teacher ? &job->teacher->spec : s;
    if (t->vocab != s->vocab || t->width != s->width || t->layer_count != s->layer_count)
        return tg_fail(err, TG_ERR_MISMATCH,
                       "teacher and student differ: vocabulary %zu and %zu, width %zu and %zu, "
                       "layers %zu and %zu",
                       t->vocab, s->vocab, t->width, s->width, t->layer_count, s->layer_count);
    for (size_t i = 0; i < job->stage_count; i++) {
        const struct tg_stage *stage = tg_stage_find(job->stages[i].kind);
        if (stage && stage->needs_teacher && !job->teacher)
            return tg_fail(err, TG_ERR_VALUE, "stage '%s' needs a teacher", stage->name);
    }
    return TG_OK;
}

static bool trains(const struct trainer *t, const struct tg_param *p)
{
    bool mixer = p->is_mixer && t->changed[p->layer];
    if (t->stage->per_layer || t->set->train == TG_TRAIN_MIXERS)
        return mixer;
    return t->set->train == TG_TRAIN_ALL || p->is_new || tg_lora_takes(p);
}
static bool uses_lora(const struct trainer *t)
{
    return t->set->train == TG_TRAIN_LORA && !t->stage->per_layer;
}

/* What the optimizer moves: wanted parameters, or in place of a projection its two factors. */
static int add_segments(struct trainer *t, struct tg_err *err)
{
    struct tg_model *m = t->job->student;
    const struct tg_lora_item *factor = NULL, *end = NULL;
    int status = TG_OK;
    if (uses_lora(t)) {
        status =
            tg_lora_init(&t->lora, m, t->set->lora_rank, tg_key(t->job->seed, t->at.stage, 0), err);
        factor = t->lora.items;
        end = factor + t->lora.count;
    }
    for (size_t i = 0; i < m->params.count && status == TG_OK; i++) {
        const struct tg_param *p = &m->params.items[i];
        struct tg_segment *s;
        t->wanted[i] = trains(t, p);
        if (!t->wanted[i])
            continue;
        if (factor != end && factor->param == i) {
            status = tg_optim_add(&t->optim, "lora_a.", p->name, factor->a, factor->da,
                                  t->lora.rank * factor->k, &s, err);
            if (status == TG_OK)
                status = tg_optim_add(&t->optim, "lora_b.", p->name, factor->b, factor->db,
                                      factor->n * t->lora.rank, &s, err);
            if (status == TG_OK)
                s[-1].factor = s[0].factor = true;
            factor++;
            continue;
        }
        status = tg_optim_add(&t->optim, "", p->name, m->data + p->offset, t->grads + p->offset,
                              p->count, &s, err);
        if (status != TG_OK)
            break;
        s->group = t->stage->per_layer ? (size_t)p->layer : 0;
        s->is_new = p->is_new;
        s->decays = p->decays;
    }
    if (status == TG_OK && t->optim.count == 0)
        status = tg_fail(err, TG_ERR_VALUE,
                         "stage '%s': nothing to train: no layer of the student differs from the "
                         "teacher's",
                         t->set->kind);
    return status == TG_OK ? tg_optim_init(&t->optim, err) : status;
}

static void stage_end(struct trainer *t)
{
    if (t->stage && t->io.memory)
        t->stage->end(&t->io);
    tg_optim_release(&t->optim);
    tg_lora_release(&t->lora);
    tg_hidden_close(&t->hidden);
    tg_free(t->wanted);
    tg_free(t->layer_loss);
    tg_free(t->ids);
    tg_free(t->begin);
    t->wanted = NULL;
    t->layer_loss = NULL;
    t->ids = NULL;
    t->begin = NULL;
    t->stage = NULL;
}

/* The file of the teacher's hidden states, if there is to be one */
static int open_hidden(struct trainer *t, struct tg_err *err)
{
    const struct tg_train_job *job = t->job;
    char name[24];
    if (!job->hidden_dir || !t->stage->keeps_hidden)
        return TG_OK;
    int status = tg_dir_make(job->hidden_dir, err);
    if (status != TG_OK)
        return status;
    snprintf(name, sizeof name, "%zu", t->at.stage);
    char *path = tg_path_join(job->hidden_dir, name);
    status = path ? tg_hidden_open(&t->hidden, path, job->data->set.length,
                                   job->teacher->spec.width, err)
                  : tg_fail(err, TG_ERR_NOMEM, "%s: no memory", job->hidden_dir);
    tg_free(path);
    t->io.hidden = &t->hidden;
    return status;
}

/* Memory and optimizer of stage t->at.stage. */
static int stage_begin(struct trainer *t, const struct tg_stage_settings *set, struct tg_err *err)
{
    const struct tg_train_job *job = t->job;
    size_t length = job->data->set.length,
           micro = set->micro < set->batch ? set->micro : set->batch;
    size_t layers = job->student->spec.layer_count, rows;
    t->set = set;
    t->stage = tg_stage_find(set->kind);
    if (!t->stage)
        return tg_fail(err, TG_ERR_VALUE, "stage '%s' is unknown", set->kind);
    if (!tg_mul_size(&rows, micro, length) || rows > (size_t)1 << 31)
        return tg_fail(err, TG_ERR_VALUE, "stage '%s': micro = %zu sequences of %zu are too many",
                       set->kind, micro, length);
    double steps = floor((double)set->tokens / ((double)set->batch * (double)length) + 0.5);
    t->steps = steps < 1 ? 1 : (uint64_t)steps;
    t->wanted = tg_alloc_array(job->student->params.count, sizeof *t->wanted);
    t->layer_loss = tg_alloc_array(layers, sizeof *t->layer_loss);
    t->ids = tg_alloc_array(rows, sizeof *t->ids);
    t->begin = tg_alloc_array(micro + 1, sizeof *t->begin);
    if (!t->wanted || !t->layer_loss || !t->ids || !t->begin)
        return tg_fail(err, TG_ERR_NOMEM, "stage '%s': no memory", set->kind);
    for (size_t i = 0; i <= micro; i++)
        t->begin[i] = i * length;
    int status = add_segments(t, err);
    if (status != TG_OK)
        return status;
    t->io = (struct tg_stage_io){.teacher = t->stage->needs_teacher ? job->teacher : NULL,
                                 .student = job->student,
                                 .set = set,
                                 .changed = t->changed,
                                 .wanted = t->wanted,
                                 .grads = t->grads,
                                 .layer_loss = t->stage->per_layer ? t->layer_loss : NULL};
    status = open_hidden(t, err);
    if (status != TG_OK)
        return status;
    struct tg_batch largest = {.count = micro, .begin = t->begin};
    return t->stage->begin(&t->io, &largest, err);
}

/* Parameters; of a LoRA target W0, its present value follows from the factors. */
static int list_params(const struct trainer *t, struct tg_state_list *list, struct tg_err *err)
{
    const struct tg_model *m = t->job->student;
    size_t item = 0;
    int status = TG_OK;
    for (size_t i = 0; i < m->params.count && status == TG_OK; i++) {
        const struct tg_param *p = &m->params.items[i];
        bool lora = item < t->lora.count && t->lora.items[item].param == i;
        float *data = lora ? t->lora.items[item++].w0 : m->data + p->offset;
        status = tg_state_add(list, "", p->name, data, p->count, err);
    }
    return status;
}
/* What the stage under way adds: moments and factors. */
static int list_optim(const struct trainer *t, struct tg_state_list *list, struct tg_err *err)
{
    int status = TG_OK;
    for (size_t i = 0; i < t->optim.count && status == TG_OK; i++) {
        const struct tg_segment *s = &t->optim.segments[i];
        status = tg_state_add(list, "m.", s->name, s->m, s->count, err);
        if (status == TG_OK)
            status = tg_state_add(list, "v.", s->name, s->v, s->count, err);
        if (status == TG_OK && s->factor)
            status = tg_state_add(list, "", s->name, s->p, s->count, err);
    }
    return status;
}

static int save(struct trainer *t, struct tg_err *err)
{
    struct tg_state_list list = {0};
    double clock = now();
    t->at.seconds += clock - t->begun;
    t->begun = clock;
    t->at.log_bytes = t->log.bytes;
    int status = list_params(t, &list, err);
    if (status == TG_OK)
        status = list_optim(t, &list, err);
    if (status == TG_OK)
        status = tg_state_save(t->job->run_dir, &t->at, t->job->fingerprint, &list, err);
    tg_state_list_release(&list);
    t->saved = now();
    return status;
}

typedef int (*list_fn)(const struct trainer *t, struct tg_state_list *list, struct tg_err *err);
static int load(struct trainer *t, list_fn what, struct tg_err *err)
{
    struct tg_state_list list = {0};
    int status = what(t, &list, err);
    if (status == TG_OK)
        status = tg_state_read(t->job->run_dir, &list, err);
    tg_state_list_release(&list);
    return status;
}

static int log_step(struct trainer *t, double loss, double share, double norm, struct tg_err *err)
{
    struct tg_strbuf line;
    struct tg_json_out j;
    tg_strbuf_init(&line, 1 << 20);
    tg_jout_init(&j, &line, 0);
    tg_jout_object(&j, NULL);
    tg_jout_str(&j, "stage", t->set->kind);
    tg_jout_int(&j, "stage_index", (int64_t)t->at.stage);
    tg_jout_int(&j, "step", (int64_t)t->at.step);
    tg_jout_int(&j, "steps", (int64_t)t->steps);
    tg_jout_int(&j, "tokens", (int64_t)t->at.tokens);
    tg_jout_num(&j, "loss", loss);
    tg_jout_num(&j, "lr", share * t->set->lr);
    tg_jout_num(&j, "lr_new", share * t->set->lr_new);
    tg_jout_num(&j, "grad_norm", norm);
    if (t->stage->per_layer) {
        tg_jout_object(&j, "layers");
        for (size_t l = 0; l < t->job->student->spec.layer_count; l++) {
            char key[24];
            snprintf(key, sizeof key, "%zu", l);
            if (t->changed[l])
                tg_jout_num(&j, key, t->layer_loss[l]);
        }
        tg_jout_end_object(&j);
    }
    tg_jout_num(&j, "seconds", t->at.seconds + now() - t->begun);
    tg_jout_end_object(&j);
    tg_strbuf_puts(&line, "\n");
    int status = tg_log_write(&t->log, &line, err);
    tg_strbuf_release(&line);
    return status;
}

/* Of the products with weights in passes over tokens; whatever else is computed is float32. */
static void set_precision(const struct tg_train_job *job, enum tg_precision precision)
{
    job->student->ctx.precision = precision;
    if (job->teacher)
        job->teacher->ctx.precision = precision;
}

/* Gradients of one update, micro-batch by micro-batch in order. */
static int accumulate(struct trainer *t, double *loss, struct tg_err *err)
{
    const struct tg_model *m = t->job->student;
    const struct tg_data *data = t->job->data;
    size_t length = data->set.length, batch = t->set->batch;
    *loss = 0;
    memset(t->layer_loss, 0, m->spec.layer_count * sizeof *t->layer_loss);
    for (size_t i = 0; i < m->params.count; i++)
        if (t->wanted[i])
            memset(t->grads + m->params.items[i].offset, 0,
                   m->params.items[i].count * sizeof *t->grads);
    for (size_t from = 0; from < batch; from += t->set->micro) {
        size_t n = batch - from < t->set->micro ? batch - from : t->set->micro;
        struct tg_batch b = {.count = n, .begin = t->begin};
        double part = 0;
        int status = TG_OK;
        t->io.first = t->at.step * batch + from;
        for (size_t i = 0; i < n && status == TG_OK; i++)
            status = tg_data_sequence(data, t->at.stage, t->io.first + i, t->ids + i * length, err);
        t->io.weight = (float)((double)n / (double)batch);
        set_precision(t->job, t->set->precision);
        if (status == TG_OK)
            status = t->stage->batch(&t->io, t->ids, &b, &part, err);
        set_precision(t->job, TG_PREC_F32);
        if (status != TG_OK)
            return status;
        *loss += part * (double)n / (double)batch;
    }
    return TG_OK;
}

static int update(struct trainer *t, struct tg_err *err)
{
    struct tg_model *m = t->job->student;
    const struct tg_stage_settings *set = t->set;
    double loss, share = tg_schedule(t->at.step, t->steps, set->warmup, set->lr_end);
    int status = accumulate(t, &loss, err);
    if (status != TG_OK)
        return status;
    tg_lora_backward(&t->lora, m, t->grads);
    double norm = tg_optim_norm(&t->optim, &m->ctx);
    if (!isfinite(norm) || !isfinite(loss))
        return tg_fail(err, TG_ERR_VALUE,
                       "stage '%s', step %llu: loss %g and gradient %g are not finite; lower the "
                       "learning rate (lr = %g, lr_new = %g)",
                       set->kind, (unsigned long long)t->at.step + 1, loss, norm, set->lr,
                       set->lr_new);
    tg_optim_step(&t->optim, &m->ctx, set, t->at.step + 1, share * set->lr, share * set->lr_new);
    tg_lora_merge(&t->lora, m);
    t->at.step++;
    t->at.tokens += set->batch * t->job->data->set.length;
    status = log_step(t, loss, share, norm, err);
    char note[48];
    uint64_t step_tokens = set->batch * t->job->data->set.length;
    snprintf(note, sizeof note, "%s %.4f", t->stage->per_layer ? "error" : set->kind, loss);
    if (status == TG_OK && tg_progress_tell(t->job->progress, set->kind, t->at.step * step_tokens,
                                            t->steps * step_tokens, "tokens", note)) {
        status = save(t, err);
        return status == TG_OK ? tg_fail(err, TG_ERR_INTERRUPTED, "interrupted: the run can go on")
                               : status;
    }
    if (status == TG_OK && now() - t->saved >= t->job->save_every)
        status = save(t, err);
    return status;
}

static int run_stage(struct trainer *t, bool resumed, struct tg_err *err)
{
    struct tg_stage_settings set = t->job->stages[t->at.stage];
    int status = tg_stage_defaults(&set, err);
    if (status == TG_OK)
        status = stage_begin(t, &set, err);
    if (status == TG_OK && resumed && t->at.step > 0) {
        status = load(t, list_optim, err);
        tg_lora_merge(&t->lora, t->job->student);
    }
    if (status == TG_OK && t->at.step > t->steps)
        status =
            tg_fail(err, TG_ERR_MISMATCH, "%s: the state is at step %llu of %llu", t->job->run_dir,
                    (unsigned long long)t->at.step, (unsigned long long)t->steps);
    while (status == TG_OK && t->at.step < t->steps)
        status = update(t, err);
    stage_end(t); /* the student holds merged weights */
    if (status != TG_OK)
        return status;
    t->at.stage++;
    t->at.step = 0;
    return save(t, err);
}

static int open_run(struct trainer *t, bool *resumed, struct tg_err *err)
{
    const struct tg_train_job *job = t->job;
    int status = tg_dir_make(job->run_dir, err);
    *resumed = status == TG_OK && tg_state_exists(job->run_dir);
    if (*resumed)
        status = tg_state_read_head(job->run_dir, job->fingerprint, &t->at, err);
    if (status == TG_OK && t->at.stage > job->stage_count)
        status = tg_fail(err, TG_ERR_MISMATCH, "%s: the state is past stage %zu, the last",
                         job->run_dir, job->stage_count);
    return status == TG_OK ? tg_log_open(&t->log, job->run_dir, t->at.log_bytes, err) : status;
}

int tg_train(const struct tg_train_job *job, struct tg_err *err)
{
    const struct tg_model *m = job->student;
    struct trainer t = {.job = job, .log = {.fd = -1}, .hidden = {.fd = -1}, .begun = now()};
    bool resumed = false;
    int status = check_job(job, err);
    if (status == TG_OK)
        status = open_run(&t, &resumed, err);
    if (status == TG_OK)
        status = tg_model_reserve(job->student, job->data->set.length, err);
    if (status == TG_OK && job->teacher)
        status = tg_model_reserve(job->teacher, job->data->set.length, err);
    if (status != TG_OK)
        goto out;
    t.begun = t.saved = now();
    t.changed = tg_alloc_array(m->spec.layer_count, sizeof *t.changed);
    t.grads = tg_alloc_array(m->params.floats, sizeof *t.grads);
    if (!t.changed || !t.grads) {
        status = tg_fail(err, TG_ERR_NOMEM, "no memory for %zu gradients", m->params.floats);
        goto out;
    }
    find_changed(job, t.changed);
    if (resumed)
        status = load(&t, list_params, err);
    while (status == TG_OK && t.at.stage < job->stage_count) {
        status = run_stage(&t, resumed, err);
        resumed = false;
    }
out:
    tg_log_close(&t.log);
    tg_free(t.changed);
    tg_free(t.grads);
    return status;
}
