#include "convert/export_files.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "convert/model_files.h"

static const char *const copied[] = {
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
    "USE_POLICY.md",
};
enum { MAX_CONFIG = 1 << 26 };

/* JSON that `put` writes into an object, as the file `path` */
static int write_json(const char *path, void (*put)(struct tg_json_out *out, const void *of),
                      const void *of, struct tg_err *err)
{
    struct tg_strbuf text;
    struct tg_json_out out;
    int rc;

    tg_strbuf_init(&text, MAX_CONFIG);
    tg_jout_init(&out, &text, 2);
    tg_jout_object(&out, NULL);
    put(&out, of);
    tg_jout_end_object(&out);
    tg_strbuf_puts(&text, "\n");
    rc = text.failed ? tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path)
                     : tg_file_write(path, text.text, text.len, err);
    tg_strbuf_release(&text);
    return rc;
}

/* Members of the teacher's tokenizer_config.json but for its class, which reads tokenizer.json */
static void put_tokenizer_config(struct tg_json_out *out, const void *of)
{
    const struct tg_json *config = of;

    for (struct tg_json c = tg_json_first(*config); c.node; c = tg_json_next(c))
        if (strcmp(tg_json_name(c), "tokenizer_class") != 0 &&
            strcmp(tg_json_name(c), "auto_map") != 0)
            tg_jout_copy(out, tg_json_name(c), c);
    tg_jout_str(out, "tokenizer_class", "PreTrainedTokenizerFast");
}

static int write_tokenizer_config(const char *from, const char *to, struct tg_err *err)
{
    struct tg_json_doc *doc = NULL;
    struct tg_json root = {0};
    int rc = TG_OK;

    if (tg_path_exists(from) && !(rc = tg_json_load(&doc, from, TG_JSON_INFINITY, err)))
        root = tg_json_root(doc);
    if (rc == TG_OK)
        rc = write_json(to, put_tokenizer_config, &root, err);
    tg_json_free(doc);
    return rc;
}

static void put_generation_config(struct tg_json_out *out, const void *of)
{
    const struct tg_model_spec *s = of;

    if (s->bos_id >= 0)
        tg_jout_int(out, "bos_token_id", s->bos_id);
    if (s->eos_count) {
        tg_jout_array(out, "eos_token_id");
        for (size_t i = 0; i < s->eos_count; i++)
            tg_jout_int(out, NULL, s->eos_ids[i]);
        tg_jout_end_array(out);
    }
}

/* One file: from's path to a copy or to what is made of it */
static int write_special(const struct tg_export *x, const char *from_dir, const char *to_dir,
                         const char *name, struct tg_err *err)
{
    const bool tokenizer = !strcmp(name, "tokenizer_config.json");
    char *from = tg_path_join(from_dir, name), *to = tg_path_join(to_dir, name),
         *json = tg_path_join(from_dir, "tokenizer.json");
    int rc;

    if (!from || !to || !json)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", name);
    else if (tokenizer && tg_path_exists(json))
        rc = write_tokenizer_config(from, to, err);
    else if (tokenizer || tg_path_exists(from))
        rc = tg_model_file_copy(from_dir, to_dir, name, err);
    else
        rc = write_json(to, put_generation_config, x->in->spec, err);
    tg_free(from);
    tg_free(to);
    tg_free(json);
    return rc;
}

int tg_export_files(const struct tg_export *x, const char *from_dir, const char *to_dir,
                    struct tg_err *err)
{
    int rc = TG_OK;

    for (size_t i = 0; i < sizeof copied / sizeof *copied && rc == TG_OK; i++)
        rc = tg_model_file_copy(from_dir, to_dir, copied[i], err);
    if (rc == TG_OK)
        rc = write_special(x, from_dir, to_dir, "tokenizer_config.json", err);
    return rc ? rc : write_special(x, from_dir, to_dir, "generation_config.json", err);
}
