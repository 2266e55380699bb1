/* Writing a native hybrid checkpoint: weights under canonical names, the teacher's tokenizer files
 * byte for byte, the code that loads it in transformers, and last config.json, without which a
 * directory is no model. */
#include "convert/native.h"

#include <stdio.h>

#include "base/file.h"
#include "base/mem.h"
#include "convert/gguf_model.h"
#include "convert/model_files.h"
#include "convert/native_code.h"
#include "formats/gguf_vocab.h"

enum { MAX_CONFIG = 1 << 26 };

static const char *const copied[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "tokenizer.gguf",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
    "USE_POLICY.md",
};

/* What would be infinite or NaN in the file. */
static int check_values(const struct tg_param *p, const float *data, enum tg_dtype dtype,
                        const char *dir, struct tg_err *err)
{
    const size_t at = tg_f32_beyond(data, p->count, tg_dtype_largest(dtype));

    if (at < p->count)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: parameter '%s' is %g at element %zu, which %s cannot hold", dir,
                       p->name, data[at], at, tg_dtype_info(dtype)->name);
    return TG_OK;
}

static int write_weights(const char *dir, const struct tg_param_list *list, const float *params,
                         enum tg_dtype dtype, uint64_t max_shard, const struct tg_native_meta *meta,
                         struct tg_err *err)
{
    struct tg_tensor_plan *plan = tg_alloc_array(list->count, sizeof *plan);
    struct tg_tensor_writer *w = NULL;
    char seed[24];
    /* Without the command line, which is in config.json: equal weights are equal files, whatever
     * the output is called. */
    const struct tg_meta about[] = {
        {"tegu.version", meta->version},
        {"tegu.seed", seed},
        {"tegu.teacher_name", meta->teacher_name},
        {"tegu.teacher_hash", meta->teacher_hash},
    };
    size_t i;
    int rc;

    if (!plan)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", dir);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)meta->seed);
    for (i = 0; i < list->count; i++) {
        const struct tg_param *p = &list->items[i];
        plan[i] = (struct tg_tensor_plan){.name = p->name, .dtype = dtype, .rank = p->rank};
        for (int d = 0; d < p->rank; d++)
            plan[i].shape[d] = p->shape[d];
    }
    const struct tg_write_options options = {
        .max_shard = max_shard, .meta = about, .metas = sizeof about / sizeof *about};
    rc = tg_tensor_writer_open(&w, dir, plan, list->count, &options, err);
    while (rc == TG_OK && (i = tg_tensor_writer_next(w)) < list->count) {
        const float *data = params + list->items[i].offset;
        if (!(rc = check_values(&list->items[i], data, dtype, dir, err)))
            rc = tg_tensor_writer_put_f32(w, data, err);
    }
    if (rc == TG_OK)
        rc = tg_tensor_writer_finish(w, err);
    tg_tensor_writer_close(w);
    tg_free(plan);
    return rc;
}

static int write_config(const char *dir, const struct tg_model_spec *spec, enum tg_dtype dtype,
                        const struct tg_native_meta *meta, struct tg_err *err)
{
    char *path = tg_path_join(dir, "config.json");
    struct tg_strbuf text;
    int rc;

    tg_strbuf_init(&text, MAX_CONFIG);
    tg_native_config(&text, spec, dtype, meta);
    if (!path || text.failed)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: no memory to write config.json", dir);
    else
        rc = tg_file_write(path, text.text, text.len, err);
    tg_strbuf_release(&text);
    tg_free(path);
    return rc;
}

/* A GGUF teacher carries its vocabulary inside; it goes along as tokenizer.gguf. */
static int write_vocabulary(const char *teacher, const char *dir, struct tg_err *err)
{
    char *path = tg_path_join(dir, "tokenizer.gguf");
    struct tg_tensors *t = NULL;
    bool gguf = false;
    int rc = path ? tg_gguf_is_model(teacher, &gguf, err)
                  : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", dir);

    if (rc == TG_OK && gguf)
        rc = tg_tensors_open(&t, teacher, err);
    if (rc == TG_OK && t && tg_gguf_has_vocab(t))
        rc = tg_gguf_vocab_write(t, path, err);
    tg_tensors_close(t);
    tg_free(path);
    return rc;
}

/* What config.json's auto_map names */
static int write_code(const char *dir, struct tg_err *err)
{
    int rc = TG_OK;

    for (const struct tg_native_code *c = tg_native_codes; c->name && rc == TG_OK; c++) {
        char *path = tg_path_join(dir, c->name);
        rc = path ? tg_file_write(path, c->data, c->size, err)
                  : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", dir);
        tg_free(path);
    }
    return rc;
}

int tg_native_write(const char *dir, const struct tg_model_spec *spec, const float *params,
                    enum tg_dtype dtype, uint64_t max_shard, const char *teacher_dir,
                    const struct tg_native_meta *meta, struct tg_err *err)
{
    struct tg_param_list list;
    int rc;

    if (dtype != TG_F32 && dtype != TG_F16 && dtype != TG_BF16)
        return tg_fail(err, TG_ERR_VALUE, "%s: weights are written as f32, bf16 or f16, not %s",
                       dir, tg_dtype_info(dtype)->name);
    if ((rc = tg_params_of(spec, &list, err)))
        return rc;
    rc = write_weights(dir, &list, params, dtype, max_shard, meta, err);
    for (size_t i = 0; i < sizeof copied / sizeof *copied && rc == TG_OK; i++)
        rc = tg_model_file_copy(teacher_dir, dir, copied[i], err);
    if (rc == TG_OK)
        rc = write_vocabulary(teacher_dir, dir, err);
    if (rc == TG_OK)
        rc = write_code(dir, err);
    if (rc == TG_OK)
        rc = write_config(dir, spec, dtype, meta, err);
    tg_params_release(&list);
    return rc;
}
