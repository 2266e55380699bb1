/* Ranking by inference. Every variant of the teacher (itself; one layer windowed; all but two
 * windowed) is a path through the layers that takes each layer as it is or windowed, so the
 * variants of a pass form a tree of shared prefixes, and one walk over it runs each distinct prefix
 * once. A windowed layer is the teacher's own weights under another mixer row: nothing is copied.
 *
 * KL is that of the text; recall_lost the mean over needle and kv of the share of items lost. */
#include "distill/rank.h"

#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "distill/pack.h"

enum {
    BATCH_ROWS = 2048, /* tokens walked at a time (at least one sequence) */
    NEEDLE_SIZE = 512,
    KV_SIZE = 32,
    TASKS = 2,
    TEXT = TASKS, /* the kind of a batch that is text */
};

struct tg_rank_settings tg_rank_defaults(void)
{
    return (struct tg_rank_settings){
        .window = 64, .tokens = 16384, .length = 1024, .items = 24, .pairs = 7};
}

struct variant {
    bool *windowed; /* [layers] */
    double kl;      /* sum over text positions */
    size_t right[TASKS];
    float *hidden; /* [rows,D] of the current batch, after the final norm */
};
struct batch {
    struct tg_pack pack;
    size_t kind;           /* task, or TEXT */
    float *teacher_hidden; /* [rows,D] after the final norm; text only */
};
struct ranking {
    struct tg_model *teacher, *windowed;
    struct tg_run *teacher_run, *windowed_run;
    struct batch *batches;
    size_t batch_count, batch_cap, most_rows, positions, items[TASKS];
    float *levels; /* [layers + 1][most_rows * D]: the walk's hidden states */
    float *logits[2];
    double *row_kl;
    const struct tg_progress *progress;
    uint64_t done, total;
    bool stopped;
};

/* A model of the teacher's own data whose softmax and window layers see at most `window` tokens. */
static int windowed_model(struct tg_model *teacher, size_t window, struct tg_model **out,
                          struct tg_err *err)
{
    const struct tg_mixer_schema *row = tg_mixer_schema_find("window");
    struct tg_model_spec spec = {0};
    struct tg_model *m = NULL;
    int status = tg_spec_copy(&spec, &teacher->spec, err);
    for (size_t l = 0; l < spec.layer_count && status == TG_OK; l++) {
        struct tg_layer_spec *layer = &spec.layers[l];
        if (!(layer->mixer->flags & TG_MIXER_TEACHER) || (layer->window && layer->window <= window))
            continue;
        layer->mixer = row;
        layer->window = window;
    }
    if (status == TG_OK)
        status = tg_model_create(&m, &spec, &teacher->ctx, err);
    tg_spec_release(&spec);
    if (status != TG_OK)
        return status;
    bool same = m->params.floats == teacher->params.floats;
    for (size_t i = 0; same && i < m->params.count; i++) {
        const struct tg_param *p = tg_params_find(&teacher->params, m->params.items[i].name);
        same = p && p->offset == m->params.items[i].offset;
    }
    tg_free(m->data);
    m->data = same ? teacher->data : NULL;
    *out = m;
    return same ? TG_OK
                : tg_fail(err, TG_ERR_UNSUPPORTED,
                          "rank: a window layer has other parameters than the teacher's layers");
}
static void windowed_free(struct tg_model *m)
{
    if (m)
        m->data = NULL; /* the teacher's */
    tg_model_free(m);
}

static void ranking_release(struct ranking *r)
{
    for (size_t i = 0; i < r->batch_count; i++) {
        tg_pack_release(&r->batches[i].pack);
        tg_free(r->batches[i].teacher_hidden);
    }
    tg_free(r->batches);
    tg_free(r->levels);
    tg_free(r->logits[0]);
    tg_free(r->logits[1]);
    tg_free(r->row_kl);
    tg_run_free(r->teacher_run);
    tg_run_free(r->windowed_run);
    windowed_free(r->windowed);
}

/* The batch of this kind with room for `rows` more, or a new one. */
static int batch_for(struct ranking *r, size_t kind, size_t rows, struct batch **out,
                     struct tg_err *err)
{
    struct batch *last = r->batch_count ? &r->batches[r->batch_count - 1] : NULL;
    if (!last || last->kind != kind || last->pack.rows + rows > BATCH_ROWS) {
        if (!tg_grow(&r->batches, &r->batch_cap, r->batch_count + 1, sizeof *r->batches))
            return tg_fail(err, TG_ERR_NOMEM, "rank: no memory for a batch");
        last = &r->batches[r->batch_count];
        last->kind = kind;
        int status = tg_pack_init(&last->pack, err);
        if (status != TG_OK)
            return status;
        r->batch_count++;
    }
    *out = last;
    return TG_OK;
}

static int add_text(struct ranking *r, const int32_t *ids, size_t count,
                    const struct tg_rank_settings *set, struct tg_err *err)
{
    int status = TG_OK;
    size_t windows = set->tokens / set->length, have = count / set->length;
    if (windows > have)
        windows = have;
    if (windows == 0)
        return tg_fail(err, TG_ERR_VALUE,
                       "rank: %zu tokens of text (of %zu wanted) are fewer than one window of %zu",
                       count, set->tokens, set->length);
    for (size_t w = 0; w < windows && status == TG_OK; w++) {
        size_t at = w * (have / windows) * set->length; /* spread over the text */
        struct batch *b = NULL;
        status = batch_for(r, TEXT, set->length, &b, err);
        if (status == TG_OK)
            status = tg_pack_add(&b->pack, ids + at, set->length, err);
        r->positions += set->length;
    }
    for (size_t i = 0; i < r->batch_count && status == TG_OK; i++) {
        struct batch *b = &r->batches[i];
        b->teacher_hidden = tg_alloc_floats(b->pack.rows * r->teacher->spec.width);
        if (!b->teacher_hidden)
            status = tg_fail(err, TG_ERR_NOMEM, "rank: no memory for %zu tokens", b->pack.rows);
    }
    return status;
}

static int add_items(struct ranking *r, const struct tg_recall_source *s, size_t task, size_t items,
                     uint64_t seed, struct tg_err *err)
{
    static const struct {
        enum tg_recall_task task;
        size_t size;
    } tasks[TASKS] = {{TG_RECALL_NEEDLE, NEEDLE_SIZE}, {TG_RECALL_KV, KV_SIZE}};
    int status = TG_OK;
    for (size_t i = 0; i < items && status == TG_OK; i++) {
        struct tg_recall_item item;
        struct batch *b = NULL;
        status = tg_recall_make(s, tasks[task].task, tasks[task].size, seed, i, &item, err);
        if (status != TG_OK)
            break;
        status = batch_for(r, task, item.prompt.count + item.answer.count, &b, err);
        if (status == TG_OK)
            status = tg_pack_add_item(&b->pack, &item, err);
        tg_recall_item_release(&item);
        r->items[task]++;
    }
    return status;
}

static int ranking_init(struct ranking *r, struct tg_model *teacher,
                        const struct tg_recall_source *s, const int32_t *ids, size_t count,
                        const struct tg_rank_settings *set, struct tg_err *err)
{
    r->teacher = teacher;
    int status = windowed_model(teacher, set->window, &r->windowed, err);
    if (status == TG_OK)
        status = add_text(r, ids, count, set, err);
    for (size_t t = 0; t < TASKS && s && s->tok && status == TG_OK; t++)
        status = add_items(r, s, t, set->items, set->seed, err);
    if (status == TG_OK)
        status = tg_run_create(&r->teacher_run, err);
    if (status == TG_OK)
        status = tg_run_create(&r->windowed_run, err);
    size_t longest = 0;
    for (size_t i = 0; i < r->batch_count; i++) {
        const struct tg_pack *p = &r->batches[i].pack;
        r->most_rows = p->rows > r->most_rows ? p->rows : r->most_rows;
        longest = p->longest > longest ? p->longest : longest;
    }
    if (status == TG_OK)
        status = tg_model_reserve(teacher, longest, err);
    if (status == TG_OK)
        status = tg_model_reserve(r->windowed, longest, err);
    if (status != TG_OK)
        return status;
    size_t D = teacher->spec.width, N = teacher->spec.vocab;
    r->levels = tg_alloc_floats((teacher->spec.layer_count + 1) * r->most_rows * D);
    r->logits[0] = tg_alloc_floats(tg_head_chunk(N) * N);
    r->logits[1] = tg_alloc_floats(tg_head_chunk(N) * N);
    r->row_kl = tg_alloc_array(tg_head_chunk(N), sizeof *r->row_kl);
    if (!r->levels || !r->logits[0] || !r->logits[1] || !r->row_kl)
        return tg_fail(err, TG_ERR_NOMEM, "rank: no memory for %zu tokens at a time", r->most_rows);
    return TG_OK;
}

/* Runs layers l.. for the variants list[0..n), whose hidden states at layer l are levels[l]. */
static void walk(struct ranking *r, const struct batch *b, size_t l, struct variant **list,
                 size_t n)
{
    size_t D = r->teacher->spec.width, rows = b->pack.rows, level = r->most_rows * D;
    float *h = r->levels + l * level;
    struct tg_batch batch = tg_pack_batch(&b->pack);
    if (l == r->teacher->spec.layer_count) {
        tg_model_final_norm(r->teacher, h, rows);
        memcpy(list[0]->hidden, h, rows * D * sizeof *h);
        r->done++;
        if (tg_progress_tell(r->progress, "rank", r->done, r->total, "runs", NULL))
            r->stopped = true;
        return;
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!list[i]->windowed[l]) {
            struct variant *v = list[i];
            list[i] = list[kept];
            list[kept++] = v;
        }
    for (int way = 0; way < 2 && !r->stopped; way++) {
        size_t members = way ? n - kept : kept;
        if (!members)
            continue;
        memcpy(h + level, h, rows * D * sizeof *h);
        tg_layer_forward(way ? r->windowed : r->teacher, way ? r->windowed_run : r->teacher_run, l,
                         &batch, h + level, false, NULL);
        walk(r, b, l + 1, way ? list + kept : list, members);
    }
}

struct kl_job {
    const struct ranking *r;
    size_t vocab;
};
static void kl_item(void *ud, size_t i, int worker)
{
    (void)worker;
    const struct kl_job *j = ud;
    j->r->row_kl[i] = j->r->teacher->ctx.k->kl_row(j->r->logits[0] + i * j->vocab,
                                                   j->r->logits[1] + i * j->vocab, 1, 0, j->vocab);
}

/* Adds each variant's KL on this batch; the teacher's logits are made once for all. */
static void add_kl(struct ranking *r, const struct batch *b, struct variant *v, size_t n)
{
    size_t D = r->teacher->spec.width, N = r->teacher->spec.vocab, chunk = tg_head_chunk(N);
    struct kl_job job = {r, N};
    for (size_t at = 0; at < b->pack.rows; at += chunk) {
        size_t take = b->pack.rows - at < chunk ? b->pack.rows - at : chunk;
        tg_model_logits(r->teacher, b->teacher_hidden + at * D, take, r->logits[0]);
        for (size_t i = 0; i < n; i++) {
            tg_model_logits(r->teacher, v[i].hidden + at * D, take, r->logits[1]);
            tg_parallel(r->teacher->ctx.threads, take, kl_item, &job);
            for (size_t row = 0; row < take; row++)
                v[i].kl += r->row_kl[row];
        }
    }
}

/* All variants over all batches. has_teacher: v[0] is the teacher itself, whose hidden states are
 * kept for later passes. */
static int run_pass(struct ranking *r, struct variant *v, size_t n, bool has_teacher,
                    struct tg_err *err)
{
    size_t D = r->teacher->spec.width;
    struct variant **list = tg_alloc_array(n, sizeof *list);
    float *hidden = tg_alloc_floats(n * r->most_rows * D);
    int status = TG_OK;
    if (!list || !hidden) {
        status = tg_fail(err, TG_ERR_NOMEM, "rank: no memory for %zu variants", n);
        goto out;
    }
    r->total = r->done + n * r->batch_count;
    for (size_t i = 0; i < r->batch_count && status == TG_OK; i++) {
        struct batch *b = &r->batches[i];
        struct tg_batch batch = tg_pack_batch(&b->pack);
        for (size_t k = 0; k < n; k++) {
            list[k] = &v[k];
            v[k].hidden = hidden + k * r->most_rows * D;
        }
        status = tg_run_fit(r->teacher_run, r->teacher, &batch, false, err);
        if (status == TG_OK)
            status = tg_run_fit(r->windowed_run, r->windowed, &batch, false, err);
        if (status != TG_OK)
            break;
        tg_model_embed(r->teacher, b->pack.ids, &batch, r->levels);
        walk(r, b, 0, list, n);
        if (r->stopped)
            status = tg_fail(err, TG_ERR_INTERRUPTED, "interrupted");
        else if (b->kind == TEXT) {
            if (has_teacher)
                memcpy(b->teacher_hidden, v[0].hidden, b->pack.rows * D * sizeof *hidden);
            add_kl(r, b, v + has_teacher, n - has_teacher);
        }
        for (size_t k = 0; k < n && b->kind != TEXT && status == TG_OK; k++) {
            size_t right = 0;
            status = tg_pack_score(r->teacher, &b->pack, v[k].hidden, &right, err);
            v[k].right[b->kind] += right;
        }
    }
out:
    tg_free(list);
    tg_free(hidden);
    return status;
}

static double recall_lost(const struct ranking *r, const struct variant *teacher,
                          const struct variant *v)
{
    double lost = 0;
    size_t tasks = 0;
    for (size_t t = 0; t < TASKS; t++)
        if (r->items[t]) {
            lost += ((double)teacher->right[t] - (double)v->right[t]) / (double)r->items[t];
            tasks++;
        }
    return tasks ? lost / (double)tasks : 0;
}

static struct variant *variants_create(size_t n, size_t layers, bool **flags)
{
    struct variant *v = tg_alloc_array(n, sizeof *v);
    *flags = tg_alloc_array(n, layers * sizeof **flags);
    for (size_t i = 0; i < n && v && *flags; i++)
        v[i].windowed = *flags + i * layers;
    if (v && *flags)
        return v;
    tg_free(v);
    tg_free(*flags);
    *flags = NULL;
    return NULL;
}

/* Layers by what the model loses without them: recall plus KL, the worst loss first. order
 * [layers]. */
static void order_layers(const struct tg_rank *rank, size_t *order)
{
    for (size_t l = 0; l < rank->count; l++) {
        double score = rank->rows[l].recall_lost + rank->rows[l].kl;
        size_t at = l;
        for (; at > 0; at--) {
            const struct tg_rank_row *before = &rank->rows[order[at - 1]];
            if (before->recall_lost + before->kl >= score)
                break;
            order[at] = order[at - 1];
        }
        order[at] = l;
    }
}

/* The layer that matters most with each of the `pairs` next ones. */
static int rank_pairs(struct ranking *r, const struct variant *teacher, size_t pairs,
                      struct tg_rank *out, struct tg_err *err)
{
    size_t L = out->count;
    bool *flags = NULL;
    if (pairs > L - 1)
        pairs = L - 1;
    size_t *order = tg_alloc_array(L, sizeof *order);
    struct variant *v = variants_create(pairs, L, &flags);
    out->pair_a = tg_alloc_array(pairs, sizeof *out->pair_a);
    out->pair_b = tg_alloc_array(pairs, sizeof *out->pair_b);
    out->pair_kl = tg_alloc_array(pairs, sizeof *out->pair_kl);
    out->pair_recall_lost = tg_alloc_array(pairs, sizeof *out->pair_recall_lost);
    int status = TG_OK;
    if (!order || !v || !out->pair_a || !out->pair_b || !out->pair_kl || !out->pair_recall_lost) {
        status = tg_fail(err, TG_ERR_NOMEM, "rank: no memory for %zu pairs", pairs);
        goto out;
    }
    order_layers(out, order);
    for (size_t n = 0; n < pairs; n++) {
        size_t a = order[0], b = order[n + 1];
        out->pair_a[n] = a < b ? a : b;
        out->pair_b[n] = a < b ? b : a;
        for (size_t l = 0; l < L; l++)
            v[n].windowed[l] = l != a && l != b;
    }
    status = run_pass(r, v, pairs, false, err);
    for (size_t n = 0; n < pairs && status == TG_OK; n++) {
        out->pair_kl[n] = v[n].kl / (double)r->positions;
        out->pair_recall_lost[n] = recall_lost(r, teacher, &v[n]);
        out->pairs = n + 1;
    }
out:
    tg_free(order);
    tg_free(flags);
    tg_free(v);
    return status;
}

static int check_settings(const struct tg_rank_settings *set, struct tg_err *err)
{
    if (set->window < 1 || set->length < 2)
        return tg_fail(err, TG_ERR_VALUE,
                       "rank: window %zu must be at least 1 and length %zu at least 2", set->window,
                       set->length);
    return TG_OK;
}

int tg_rank_layers(struct tg_model *teacher, const struct tg_recall_source *s, const int32_t *ids,
                   size_t count, const struct tg_rank_settings *set, struct tg_rank *out,
                   const struct tg_progress *p, struct tg_err *err)
{
    size_t L = teacher->spec.layer_count;
    struct ranking r = {.progress = p};
    bool *flags = NULL;
    struct variant *v = NULL;
    *out = (struct tg_rank){.count = L, .window = set->window};
    int status = check_settings(set, err);
    if (status == TG_OK)
        status = ranking_init(&r, teacher, s, ids, count, set, err);
    if (status != TG_OK)
        goto out;
    v = variants_create(L + 1, L, &flags);
    out->rows = tg_alloc_array(L, sizeof *out->rows);
    if (!v || !out->rows) {
        status = tg_fail(err, TG_ERR_NOMEM, "rank: no memory for %zu layers", L);
        goto out;
    }
    for (size_t l = 0; l < L; l++)
        v[l + 1].windowed[l] = true;
    status = run_pass(&r, v, L + 1, true, err);
    for (size_t l = 0; l < L && status == TG_OK; l++)
        out->rows[l] = (struct tg_rank_row){.layer = l,
                                            .kl = v[l + 1].kl / (double)r.positions,
                                            .recall_lost = recall_lost(&r, &v[0], &v[l + 1])};
    if (status == TG_OK && set->pairs >= 1 && L >= 2)
        status = rank_pairs(&r, &v[0], set->pairs, out, err);
out:
    if (status != TG_OK)
        tg_rank_release(out);
    tg_free(flags);
    tg_free(v);
    ranking_release(&r);
    return status;
}
