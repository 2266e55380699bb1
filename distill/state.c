#include "distill/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "formats/tensors.h"

int tg_state_add(struct tg_state_list *l, const char *prefix, const char *name, float *data,
                 size_t count, struct tg_err *err)
{
    if (!tg_grow(&l->parts, &l->cap, l->count + 1, sizeof *l->parts))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for the state's %zu tensors", l->count + 1);
    struct tg_state_part *p = &l->parts[l->count++];
    snprintf(p->name, sizeof p->name, "%s%s", prefix, name);
    p->data = data;
    p->count = count;
    return TG_OK;
}
void tg_state_list_release(struct tg_state_list *l)
{
    tg_free(l->parts);
    *l = (struct tg_state_list){0};
}

static int state_path(const char *run_dir, char **path, struct tg_err *err)
{
    *path = tg_path_join(run_dir, "state/state.safetensors");
    return *path ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "%s: no memory", run_dir);
}

bool tg_state_exists(const char *run_dir)
{
    char *path = tg_path_join(run_dir, "state/state.safetensors");
    bool found = path && tg_path_exists(path);
    tg_free(path);
    return found;
}

static int make_folder(const char *run_dir, struct tg_err *err)
{
    char *dir = tg_path_join(run_dir, "state");
    int status = dir ? tg_dir_make(dir, err) : tg_fail(err, TG_ERR_NOMEM, "%s: no memory", run_dir);
    tg_free(dir);
    return status;
}

static int write_head(const struct tg_state_head *head, struct tg_strbuf *text, const char *run_dir,
                      struct tg_err *err)
{
    struct tg_json_out j;
    tg_jout_init(&j, text, 0);
    tg_jout_object(&j, NULL);
    tg_jout_int(&j, "stage", (int64_t)head->stage);
    tg_jout_int(&j, "step", (int64_t)head->step);
    tg_jout_int(&j, "tokens", (int64_t)head->tokens);
    tg_jout_int(&j, "log_bytes", (int64_t)head->log_bytes);
    tg_jout_num(&j, "seconds", head->seconds);
    tg_jout_end_object(&j);
    return text->failed ? tg_fail(err, TG_ERR_NOMEM, "%s: no memory", run_dir) : TG_OK;
}

int tg_state_save(const char *run_dir, const struct tg_state_head *head, const char *fingerprint,
                  const struct tg_state_list *l, struct tg_err *err)
{
    struct tg_strbuf position;
    struct tg_tensor_writer *w = NULL;
    char *path = NULL;
    struct tg_tensor_plan *plan = tg_alloc_array(l->count, sizeof *plan);
    tg_strbuf_init(&position, 4096);
    int status = plan ? make_folder(run_dir, err)
                      : tg_fail(err, TG_ERR_NOMEM, "%s: no memory to save the state", run_dir);
    if (status == TG_OK)
        status = state_path(run_dir, &path, err);
    if (status == TG_OK)
        status = write_head(head, &position, run_dir, err);
    if (status != TG_OK)
        goto out;
    for (size_t i = 0; i < l->count; i++)
        plan[i] = (struct tg_tensor_plan){.name = l->parts[i].name,
                                          .dtype = TG_F32,
                                          .rank = 1,
                                          .shape = {(int64_t)l->parts[i].count}};
    struct tg_meta meta[] = {{"tegu_state", position.text},
                             {"tegu_fingerprint", fingerprint ? fingerprint : "{}"}};
    status = tg_tensor_writer_open(
        &w, path, plan, l->count,
        &(struct tg_write_options){.single = true, .meta = meta, .metas = 2}, err);
    for (size_t i = 0; i < l->count && status == TG_OK; i++)
        status = tg_tensor_writer_put_f32(w, l->parts[tg_tensor_writer_next(w)].data, err);
    if (status == TG_OK)
        status = tg_tensor_writer_finish(w, err);
out:
    tg_tensor_writer_close(w);
    tg_strbuf_release(&position);
    tg_free(path);
    tg_free(plan);
    return status;
}

static int check_fingerprint(const char *path, const char *was, const char *now, struct tg_err *err)
{
    struct tg_json_doc *a = NULL, *b = NULL;
    int status = tg_json_parse(&a, was, strlen(was), path, 0, err);
    if (status == TG_OK)
        status = tg_json_parse(&b, now, strlen(now), "this run's settings", 0, err);
    struct tg_json x, y;
    char where[256], before[200], after[200];
    if (status == TG_OK && !tg_json_equal(tg_json_root(a), tg_json_root(b), &x, &y))
        status =
            tg_fail(err, TG_ERR_MISMATCH,
                    "%s: the run was begun with %s = %s, now it is %s; use the same settings "
                    "to go on, or begin anew",
                    path, tg_json_path(x.node ? x : y, where, sizeof where),
                    tg_json_text(x, before, sizeof before), tg_json_text(y, after, sizeof after));
    tg_json_free(a);
    tg_json_free(b);
    return status;
}

static int parse_head(const char *path, const char *text, struct tg_state_head *head,
                      struct tg_err *err)
{
    struct tg_json_doc *doc = NULL;
    int64_t v[4] = {0};
    static const char *const keys[4] = {"stage", "step", "tokens", "log_bytes"};
    int status = tg_json_parse(&doc, text, strlen(text), path, 0, err);
    for (int i = 0; i < 4 && status == TG_OK; i++)
        status = tg_json_get_int(tg_json_root(doc), keys[i], 0, INT64_MAX, &v[i], err);
    if (status == TG_OK)
        status = tg_json_get_num(tg_json_root(doc), "seconds", 0, 1e12, &head->seconds, err);
    head->stage = (uint64_t)v[0];
    head->step = (uint64_t)v[1];
    head->tokens = (uint64_t)v[2];
    head->log_bytes = (uint64_t)v[3];
    tg_json_free(doc);
    return status;
}

int tg_state_read_head(const char *run_dir, const char *fingerprint, struct tg_state_head *head,
                       struct tg_err *err)
{
    struct tg_tensors *t = NULL;
    char *path = NULL;
    int status = state_path(run_dir, &path, err);
    if (status == TG_OK)
        status = tg_tensors_open(&t, path, err);
    if (status == TG_OK) {
        const char *position = tg_tensors_meta(t, "tegu_state");
        const char *was = tg_tensors_meta(t, "tegu_fingerprint");
        if (!position || !was)
            status = tg_fail(err, TG_ERR_FORMAT, "%s: not the state of a run", path);
        if (status == TG_OK)
            status = check_fingerprint(path, was, fingerprint ? fingerprint : "{}", err);
        if (status == TG_OK)
            status = parse_head(path, position, head, err);
    }
    tg_tensors_close(t);
    tg_free(path);
    return status;
}

int tg_state_read(const char *run_dir, const struct tg_state_list *l, struct tg_err *err)
{
    struct tg_tensors *t = NULL;
    char *path = NULL;
    int status = state_path(run_dir, &path, err);
    if (status == TG_OK)
        status = tg_tensors_open(&t, path, err);
    for (size_t i = 0; i < l->count && status == TG_OK; i++) {
        const struct tg_state_part *p = &l->parts[i];
        const struct tg_tensor *x = tg_tensors_find(t, p->name);
        if (!x || x->elements != p->count)
            status = tg_fail(err, TG_ERR_MISMATCH, "%s: tensor '%s' %s, the model has %zu values",
                             path, p->name, x ? "has another size" : "is missing", p->count);
        else
            status = tg_tensor_read_f32(x, p->data, err);
    }
    tg_tensors_close(t);
    tg_free(path);
    return status;
}
