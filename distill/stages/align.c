/* Layer alignment: each changed layer alone, taught by the teacher. With x the input of
 * the teacher's mixer (normalised, or the hidden state itself where its layers have no norm before
 * the mixer) and y that mixer's output before anything is done to it, the student's mixer f
 * minimises
 *
 *   |f(x) - y|^2 / |y|^2
 *
 * over the micro-batch. The relative form makes one clipping bound fit all layers, whose outputs
 * differ by orders of magnitude; under AdamW the scale makes no other difference. The student's
 * mixer runs inside the teacher's forward, so nothing has to be kept between layers. */
#include "base/mem.h"
#include "base/pool.h"
#include "distill/stages/rows.h"

enum { ROW_BLOCK = 64 };

struct align {
    struct tg_run *run;
    float *hidden;       /* [rows,D] */
    float *y, *dx;       /* [rows,D] */
    float *saved, *work; /* of the largest mixer */
    size_t saved_floats, work_floats;
    double *error, *power; /* [blocks of rows] */
    size_t layers;         /* changed ones */
    size_t last;           /* the highest changed layer */
    /* of the micro-batch under way */
    struct tg_stage_io *io;
    const struct tg_batch *batch;
    double loss;
};

static void align_end(struct tg_stage_io *io)
{
    struct align *a = io->memory;
    if (!a)
        return;
    tg_run_free(a->run);
    tg_free(a->hidden);
    tg_free(a->y);
    tg_free(a->dx);
    tg_free(a->saved);
    tg_free(a->work);
    tg_free(a->error);
    tg_free(a->power);
    tg_free(a);
    io->memory = NULL;
}

static void measure(struct align *a, const struct tg_stage_io *io, const struct tg_batch *b)
{
    int threads = io->student->ctx.threads;
    for (size_t l = 0; l < io->student->spec.layer_count; l++) {
        if (!io->changed[l])
            continue;
        struct tg_mixer mixer;
        tg_model_mixer(io->student, l, io->student->data, NULL, &mixer);
        const struct tg_mixer_ops *ops = tg_mixer_find(mixer.spec->mixer);
        size_t saved = ops->saved_floats(&mixer, b);
        a->saved_floats = saved > a->saved_floats ? saved : a->saved_floats;
        for (int backward = 0; backward < 2; backward++) {
            size_t work = ops->work_floats(&mixer, b, threads, backward);
            a->work_floats = work > a->work_floats ? work : a->work_floats;
        }
        a->layers++;
        a->last = l;
    }
}

static int align_begin(struct tg_stage_io *io, const struct tg_batch *largest, struct tg_err *err)
{
    size_t rows = tg_batch_rows(largest), cells = rows * io->student->spec.width;
    struct align *a = io->memory = tg_alloc(sizeof *a);
    if (!a)
        return tg_fail(err, TG_ERR_NOMEM, "align: no memory");
    measure(a, io, largest);
    if (a->layers == 0)
        return tg_fail(err, TG_ERR_VALUE,
                       "align: no layer of the student differs from the teacher's");
    int status = tg_run_create(&a->run, err);
    if (status == TG_OK)
        status = tg_run_fit(a->run, io->teacher, largest, false, err);
    if (status != TG_OK)
        return status;
    size_t blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
    a->hidden = tg_alloc_floats(cells);
    a->y = tg_alloc_floats(cells);
    a->dx = tg_alloc_floats(cells);
    a->saved = tg_alloc_floats(a->saved_floats);
    a->work = tg_alloc_floats(a->work_floats);
    a->error = tg_alloc_array(blocks, sizeof *a->error);
    a->power = tg_alloc_array(blocks, sizeof *a->power);
    if (!a->hidden || !a->y || !a->dx || !a->saved || !a->work || !a->error || !a->power)
        return tg_fail(err, TG_ERR_NOMEM, "align: no memory for %zu tokens at a time", rows);
    return TG_OK;
}

struct compare {
    const struct align *a;
    const float *want;
    size_t cells, block;
    float scale;
};
/* y <- y - want, and the sums of squares of both */
static void compare_block(void *ud, size_t i, int worker)
{
    (void)worker;
    const struct compare *c = ud;
    size_t from = i * c->block, to = from + c->block < c->cells ? from + c->block : c->cells;
    double error = 0, power = 0;
    for (size_t k = from; k < to; k++) {
        float d = c->a->y[k] - c->want[k];
        error += (double)d * d;
        power += (double)c->want[k] * c->want[k];
        c->a->y[k] = d;
    }
    c->a->error[i] = error;
    c->a->power[i] = power;
}
static void scale_block(void *ud, size_t i, int worker)
{
    (void)worker;
    const struct compare *c = ud;
    size_t from = i * c->block, to = from + c->block < c->cells ? from + c->block : c->cells;
    c->a->io->student->ctx.k->scale(c->scale, c->a->y + from, to - from);
}

static void align_layer(void *ud, size_t l, const float *x, const float *want)
{
    struct align *a = ud;
    struct tg_stage_io *io = a->io;
    if (!io->changed[l])
        return;
    const struct tg_model *m = io->student;
    struct tg_mixer mixer, at;
    struct tg_mixer_grads grads = {{0}};
    tg_model_mixer(m, l, m->data, tg_run_ropes(a->run), &mixer);
    tg_model_mixer(m, l, io->grads, NULL, &at);
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        if (!io->wanted[i] || p->layer != (int)l || !p->is_mixer)
            continue;
        for (size_t k = 0; k < TG_MIXER_MAX_PARAMS; k++)
            if (at.param[k] == io->grads + p->offset)
                grads.param[k] = io->grads + p->offset;
    }
    const struct tg_mixer_ops *ops = tg_mixer_find(mixer.spec->mixer);
    ops->forward(&m->ctx, &mixer, a->batch, x, a->y, a->saved, a->work);
    size_t D = m->spec.width, rows = tg_batch_rows(a->batch);
    size_t blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
    struct compare c = {a, want, rows * D, ROW_BLOCK * D, 0};
    tg_parallel(m->ctx.threads, blocks, compare_block, &c);
    double error = 0, power = 1e-30;
    for (size_t i = 0; i < blocks; i++) {
        error += a->error[i];
        power += a->power[i];
    }
    c.scale = (float)(2 * io->weight / power);
    tg_parallel(m->ctx.threads, blocks, scale_block, &c);
    ops->backward(&m->ctx, &mixer, a->batch, x, a->y, a->saved, a->dx, &grads, a->work);
    a->loss += error / power;
    if (io->layer_loss)
        io->layer_loss[l] += io->weight * error / power;
}

static int align_batch(struct tg_stage_io *io, const int32_t *ids, const struct tg_batch *b,
                       double *loss, struct tg_err *err)
{
    struct align *a = io->memory;
    struct tg_hooks hooks = {.mixer = align_layer, .ud = a};
    int status = tg_run_fit(a->run, io->teacher, b, false, err);
    if (status != TG_OK)
        return status;
    a->io = io;
    a->batch = b;
    a->loss = 0;
    tg_model_embed(io->teacher, ids, b, a->hidden);
    for (size_t l = 0; l <= a->last; l++)
        tg_layer_forward(io->teacher, a->run, l, b, a->hidden, false, &hooks);
    *loss = a->loss / (double)a->layers;
    return TG_OK;
}

const struct tg_stage tg_stage_align = {
    .name = "align",
    .summary = "each changed layer against the teacher's, on the teacher's inputs",
    .needs_teacher = true,
    .per_layer = true,
    .defaults = {.tokens = 1000000,
                 .train = TG_TRAIN_MIXERS,
                 .lr = 2e-3,
                 .lr_new = 2e-2,
                 .lr_end = 0.01,
                 .batch = 2},
    .begin = align_begin,
    .batch = align_batch,
    .end = align_end,
};
