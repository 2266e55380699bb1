#include "tests/gguf_edit.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "formats/format.h"
#include "tests/check.h"
#include "tests/scratch.h"
#include "tests/small_model.h"

char *tg_gguf_edited(const struct tg_gguf_edit *e, uint64_t max_shard)
{
    char path[128];
    struct tg_tensors *t;
    struct tg_err err = {0};
    struct tg_gguf_kv kv[64];
    struct tg_tensor_plan plan[64];
    const struct tg_tensor *from[64];
    size_t kvs = 0, count = 0;
    bool seen = !e->kv.key;
    snprintf(path, sizeof path, TG_GGUF_MODELS "%s.gguf", e->model);
    tg_test_must(tg_tensors_open(&t, path, &err), &err);
    for (size_t i = 0; i < tg_gguf_count(t); i++) {
        kv[kvs] = *tg_gguf_at(t, i);
        if (e->kv.key && !strcmp(kv[kvs].key, e->kv.key)) {
            kv[kvs] = e->kv;
            seen = true;
        }
        kvs += kv[kvs].value.type != TG_GGUF_TYPE_COUNT;
    }
    if (!seen)
        kv[kvs++] = e->kv;
    for (size_t i = 0; i < tg_tensors_count(t); i++) {
        const struct tg_tensor *x = tg_tensors_at(t, i);
        const bool hit = e->tensor && !strcmp(x->name, e->tensor);
        plan[count] = (struct tg_tensor_plan){hit ? e->to : x->name, x->dtype, x->rank, {0}};
        memcpy(plan[count].shape, x->shape, sizeof x->shape);
        from[count] = x;
        count += plan[count].name != NULL;
    }
    char *dir = tg_scratch_path("edited");
    tg_test_must(tg_dir_remove(dir, &err), &err);
    tg_test_must(tg_dir_make(dir, &err), &err);
    struct tg_tensor_writer *w;
    const struct tg_write_options o = {
        .format = &tg_format_gguf, .kv = kv, .kvs = kvs, .max_shard = max_shard};
    tg_test_must(tg_tensor_writer_open(&w, dir, plan, count, &o, &err), &err);
    for (size_t i; (i = tg_tensor_writer_next(w)) < count;)
        tg_test_must(tg_tensor_writer_put_raw(w, from[i]->data, &err), &err);
    tg_test_must(tg_tensor_writer_finish(w, &err), &err);
    tg_tensor_writer_close(w);
    tg_tensors_close(t);
    return dir;
}
