/* rank.json:
 *
 *   {"window": 64,
 *    "layers": [{"layer": 0, "kl": 0.01, "recall_lost": 0.0}, ...],          every layer in order
 *    "pairs": [{"keep": [2, 4], "kl": 0.5, "recall_lost": 0.1}, ...]}        may be absent */
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "linearize/surgery/surgery_internal.h"

static const char *const RANK_KEYS[] = {"window", "layers", "pairs", NULL};
static const char *const ROW_KEYS[] = {"layer", "kl", "recall_lost", NULL};
static const char *const PAIR_KEYS[] = {"keep", "kl", "recall_lost", NULL};

static const double MOST_KL = 1e6;

void tg_rank_release(struct tg_rank *r)
{
    tg_free(r->rows);
    tg_free(r->pair_a);
    tg_free(r->pair_b);
    tg_free(r->pair_kl);
    tg_free(r->pair_recall_lost);
    *r = (struct tg_rank){0};
}

static int read_losses(struct tg_json v, double *kl, double *recall_lost, struct tg_err *err)
{
    int status = tg_json_get_num(v, "kl", -MOST_KL, MOST_KL, kl, err);
    return status ? status : tg_json_get_num(v, "recall_lost", -1, 1, recall_lost, err);
}

static int read_rows(struct tg_rank *r, struct tg_json list, const char *path, struct tg_err *err)
{
    size_t i = 0;
    r->count = tg_json_count(list);
    if (!tg_json_is_array(list) || r->count == 0)
        return tg_fail(err, TG_ERR_VALUE, "%s: layers: is not an array of layers", path);
    r->rows = tg_alloc_array(r->count, sizeof *r->rows);
    if (!r->rows)
        return tg_fail(err, TG_ERR_NOMEM, "%s: no memory for the ranking", path);
    for (struct tg_json v = tg_json_first(list); v.node; v = tg_json_next(v), i++) {
        int64_t layer;
        if (!tg_json_is_object(v))
            return tg_fail(err, TG_ERR_VALUE, "%s: layers[%zu]: is not an object", path, i);
        int status = tg_json_only_keys(v, ROW_KEYS, err);
        if (!status)
            status = tg_json_get_int(v, "layer", (int64_t)i, (int64_t)i, &layer, err);
        if (!status)
            status = read_losses(v, &r->rows[i].kl, &r->rows[i].recall_lost, err);
        if (status)
            return status;
        r->rows[i].layer = i;
    }
    return TG_OK;
}

static int read_pair(struct tg_rank *r, size_t i, struct tg_json v, const char *path,
                     struct tg_err *err)
{
    if (!tg_json_is_object(v))
        return tg_fail(err, TG_ERR_VALUE, "%s: pairs[%zu]: is not an object", path, i);
    int status = tg_json_only_keys(v, PAIR_KEYS, err);
    if (!status)
        status = read_losses(v, &r->pair_kl[i], &r->pair_recall_lost[i], err);
    if (status)
        return status;
    struct tg_json keep = tg_json_key(v, "keep"), a = tg_json_first(keep), b = tg_json_next(a);
    double x = tg_json_number(a), y = tg_json_number(b), layers = (double)r->count;
    bool two = tg_json_is_array(keep) && tg_json_count(keep) == 2 && tg_json_is_number(a) &&
               tg_json_is_number(b);
    bool exist = two && x >= 0 && x < layers && y >= 0 && y < layers && x != y;
    if (!exist || (double)(size_t)x != x || (double)(size_t)y != y)
        return tg_fail(err, TG_ERR_VALUE, "%s: pairs[%zu].keep: is not two of the %zu layers", path,
                       i, r->count);
    r->pair_a[i] = (size_t)x;
    r->pair_b[i] = (size_t)y;
    return TG_OK;
}

static int read_pairs(struct tg_rank *r, struct tg_json list, const char *path, struct tg_err *err)
{
    size_t i = 0, n = tg_json_count(list);
    int status = TG_OK;
    if (!tg_json_has(list))
        return TG_OK;
    if (!tg_json_is_array(list))
        return tg_fail(err, TG_ERR_VALUE, "%s: pairs: is not an array", path);
    r->pair_a = tg_alloc_array(n, sizeof *r->pair_a);
    r->pair_b = tg_alloc_array(n, sizeof *r->pair_b);
    r->pair_kl = tg_alloc_array(n, sizeof *r->pair_kl);
    r->pair_recall_lost = tg_alloc_array(n, sizeof *r->pair_recall_lost);
    if (!r->pair_a || !r->pair_b || !r->pair_kl || !r->pair_recall_lost)
        return tg_fail(err, TG_ERR_NOMEM, "%s: no memory for the ranking", path);
    for (struct tg_json v = tg_json_first(list); v.node && !status; v = tg_json_next(v), i++)
        status = read_pair(r, i, v, path, err);
    r->pairs = n;
    return status;
}

int tg_rank_load(struct tg_rank *r, const char *path, struct tg_err *err)
{
    struct tg_json_doc *doc = NULL;
    int64_t window = 0;
    *r = (struct tg_rank){0};
    int status = tg_json_load(&doc, path, 0, err);
    if (status)
        return status;
    struct tg_json root = tg_json_root(doc);
    if (!tg_json_is_object(root))
        status = tg_fail(err, TG_ERR_VALUE, "%s: is not an object", path);
    if (!status)
        status = tg_json_only_keys(root, RANK_KEYS, err);
    if (!status)
        status = tg_json_get_int(root, "window", 1, (int64_t)tg_plan_rows[TG_PLAN_WINDOW].hi,
                                 &window, err);
    r->window = (size_t)window;
    if (!status)
        status = read_rows(r, tg_json_key(root, "layers"), path, err);
    if (!status)
        status = read_pairs(r, tg_json_key(root, "pairs"), path, err);
    tg_json_free(doc);
    if (status)
        tg_rank_release(r);
    return status;
}

static void write_pair(const struct tg_rank *r, size_t i, struct tg_json_out *out)
{
    tg_jout_object(out, NULL);
    tg_jout_array(out, "keep");
    tg_jout_int(out, NULL, (int64_t)r->pair_a[i]);
    tg_jout_int(out, NULL, (int64_t)r->pair_b[i]);
    tg_jout_end_array(out);
    tg_jout_num(out, "kl", r->pair_kl[i]);
    tg_jout_num(out, "recall_lost", r->pair_recall_lost[i]);
    tg_jout_end_object(out);
}

int tg_rank_save(const struct tg_rank *r, const char *path, struct tg_err *err)
{
    struct tg_strbuf text;
    struct tg_json_out out;
    tg_strbuf_init(&text, (size_t)1 << 26);
    tg_jout_init(&out, &text, 2);
    tg_jout_object(&out, NULL);
    tg_jout_int(&out, "window", (int64_t)r->window);
    tg_jout_array(&out, "layers");
    for (size_t i = 0; i < r->count; i++) {
        tg_jout_object(&out, NULL);
        tg_jout_int(&out, "layer", (int64_t)r->rows[i].layer);
        tg_jout_num(&out, "kl", r->rows[i].kl);
        tg_jout_num(&out, "recall_lost", r->rows[i].recall_lost);
        tg_jout_end_object(&out);
    }
    tg_jout_end_array(&out);
    tg_jout_array(&out, "pairs");
    for (size_t i = 0; i < r->pairs; i++)
        write_pair(r, i, &out);
    tg_jout_end_array(&out);
    tg_jout_end_object(&out);
    tg_strbuf_puts(&text, "\n");
    int status = text.failed ? tg_fail(err, TG_ERR_NOMEM, "%s: no memory for the ranking", path)
                             : tg_file_write(path, text.text, text.len, err);
    tg_strbuf_release(&text);
    return status;
}
