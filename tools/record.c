#include "tools/record.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "tools/front_matter.h"

enum { MAX_RECORD = 1 << 24, MAX_CARD = 1 << 16 };

/* Members of a record, in order */
static const char *const keys[] = {"base_model", "teacher", "steps",  "results_of",
                                   "results",    "checks",  "passed", NULL};

/* A record being written: the text of `out` becomes r->doc. */
struct draft {
    struct tg_strbuf text;
    struct tg_json_out out;
};

static void draft_begin(struct draft *d)
{
    tg_strbuf_init(&d->text, MAX_RECORD);
    tg_jout_init(&d->out, &d->text, 2);
    tg_jout_object(&d->out, NULL);
    tg_jout_int(&d->out, "format", TG_RECORD_FORMAT);
}

static int draft_end(struct draft *d, struct tg_record *r, struct tg_err *err)
{
    struct tg_json_doc *doc = NULL;
    int rc;

    tg_jout_end_object(&d->out);
    rc = d->text.failed ? tg_fail(err, TG_ERR_NOMEM, TG_RECORD_FILE ": no memory, or over %d bytes",
                                  MAX_RECORD)
                        : tg_json_parse(&doc, d->text.text, d->text.len, TG_RECORD_FILE, 0, err);
    tg_strbuf_release(&d->text);
    if (rc == TG_OK) {
        tg_record_close(r);
        r->doc = doc;
    }
    return rc;
}

static void keep(struct draft *d, const struct tg_record *r, const char *key)
{
    const struct tg_json v = tg_json_key(tg_record_root(r), key);

    if (v.node)
        tg_jout_copy(&d->out, key, v);
}

static void put_if(struct tg_json_out *out, const char *key, const char *text)
{
    if (text && text[0])
        tg_jout_str(out, key, text);
}

/* Is what is read a record? Members that are there must be of their type. */
static int check(struct tg_json root, struct tg_err *err)
{
    int64_t format;
    int rc;

    if (!tg_json_is_object(root))
        return tg_json_fail(root, "", TG_ERR_FORMAT, err, "not an object");
    if ((rc = tg_json_get_int(root, "format", 1, TG_RECORD_FORMAT, &format, err)))
        return rc;
    for (size_t i = 0; keys[i]; i++) {
        const struct tg_json v = tg_json_key(root, keys[i]);
        const bool list = !strcmp(keys[i], "steps") || !strcmp(keys[i], "checks");
        const bool truth = !strcmp(keys[i], "passed");
        if (v.node && !(list    ? tg_json_is_array(v)
                        : truth ? tg_json_is_bool(v)
                                : tg_json_is_object(v)))
            return tg_json_fail(root, keys[i], TG_ERR_FORMAT, err, "not %s",
                                list    ? "a list"
                                : truth ? "true or false"
                                        : "an object");
    }
    return TG_OK;
}

static int load(struct tg_record *r, const char *path, struct tg_err *err)
{
    char *text = NULL;
    size_t len;
    int rc = tg_file_read(path, MAX_RECORD, &text, &len, err);

    if (rc == TG_OK)
        rc = tg_json_parse(&r->doc, text, len, path, 0, err);
    if (rc == TG_OK)
        rc = check(tg_json_root(r->doc), err);
    if (rc)
        tg_record_close(r);
    tg_free(text);
    return rc;
}

/* "Qwen/Qwen3-0.6B" of .../models--Qwen--Qwen3-0.6B/snapshots/HASH, where the Hub's cache keeps it;
 * else the last part of the path, without the ending of a GGUF file */
static void name_of(const char *model, char *name, size_t size)
{
    char real[PATH_MAX];
    const char *path = realpath(model, real) ? real : model;
    const char *cached = strstr(path, "/models--");
    size_t n = 0;

    if (cached && strstr(cached, "/snapshots/")) {
        for (cached += strlen("/models--"); *cached && *cached != '/' && n + 1 < size; cached++) {
            const bool slash = !strncmp(cached, "--", 2);
            name[n++] = slash ? '/' : *cached;
            cached += slash;
        }
        name[n] = '\0';
        return;
    }
    snprintf(name, size, "%s", tg_path_base(path));
    n = strlen(name);
    if (n > 5 && !strcmp(name + n - 5, ".gguf"))
        name[n - 5] = '\0';
}

/* The beginning of its README.md, as far as there is one that can be read */
static void read_card(const char *dir, struct tg_front_matter *f)
{
    char *path = tg_path_join(dir, "README.md");
    struct tg_map map = {0};

    *f = (struct tg_front_matter){0};
    if (path && tg_path_exists(path) && tg_map_open(&map, path, NULL) == TG_OK && map.size)
        tg_front_matter_read((const char *)map.data, map.size < MAX_CARD ? map.size : MAX_CARD, f);
    tg_map_close(&map);
    tg_free(path);
}

/* The record in a native config (convert/native.h); absent elsewhere */
static int read_config(const char *dir, struct tg_json_doc **doc, struct tg_json *tegu,
                       struct tg_err *err)
{
    char *path = tg_path_join(dir, "config.json");
    int rc = path ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", dir);

    if (rc == TG_OK && tg_path_exists(path) &&
        !(rc = tg_json_load(doc, path, TG_JSON_INFINITY, err)))
        *tegu = tg_json_key(tg_json_root(*doc), "tegu");
    tg_free(path);
    return rc;
}

static void put_base(struct draft *d, const char *name, const struct tg_front_matter *f)
{
    struct tg_json_out *out = &d->out;

    tg_jout_object(out, "base_model");
    put_if(out, "name", name);
    put_if(out, "license", f->license);
    put_if(out, "license_name", f->license_name);
    put_if(out, "license_link", f->license_link);
    tg_jout_array(out, "languages");
    for (size_t i = 0; i < f->language_count; i++)
        tg_jout_str(out, NULL, f->languages[i]);
    tg_jout_end_array(out);
    tg_jout_end_object(out);
}

static void put_teacher(struct draft *d, const char *name, const char *hash)
{
    tg_jout_object(&d->out, "teacher");
    put_if(&d->out, "name", name);
    put_if(&d->out, "sha256", hash);
    tg_jout_end_object(&d->out);
}

/* A model without a record */
static int begin(struct tg_record *r, const char *model, struct tg_err *err)
{
    struct tg_json_doc *config = NULL;
    struct tg_json tegu = {0};
    struct tg_front_matter f = {0};
    struct draft d;
    char name[256];

    if (tg_path_is_dir(model)) {
        const int rc = read_config(model, &config, &tegu, err);
        if (rc)
            return rc;
        read_card(model, &f);
    }
    const char *teacher = tg_json_string(tg_json_key(tegu, "teacher_name"));
    name_of(model, name, sizeof name);
    draft_begin(&d);
    put_base(&d, teacher[0] ? teacher : name, &f);
    if (teacher[0])
        put_teacher(&d, teacher, tg_json_string(tg_json_key(tegu, "teacher_hash")));
    tg_jout_array(&d.out, "steps");
    if (tegu.node) {
        tg_jout_object(&d.out, NULL);
        put_if(&d.out, "command", tg_json_string(tg_json_key(tegu, "command")));
        put_if(&d.out, "version", tg_json_string(tg_json_key(tegu, "version")));
        put_if(&d.out, "seed", tg_json_string(tg_json_key(tegu, "seed")));
        tg_jout_end_object(&d.out);
    }
    tg_jout_end_array(&d.out);
    tg_json_free(config);
    return draft_end(&d, r, err);
}

int tg_record_open(struct tg_record *r, const char *model, struct tg_err *err)
{
    char *path = tg_path_join(model, TG_RECORD_FILE);
    int rc;

    *r = (struct tg_record){0};
    if (!path)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", model);
    rc = tg_path_is_dir(model) && tg_path_exists(path) ? load(r, path, err) : begin(r, model, err);
    tg_free(path);
    return rc;
}

void tg_record_close(struct tg_record *r)
{
    tg_json_free(r->doc);
    r->doc = NULL;
}

struct tg_json tg_record_root(const struct tg_record *r)
{
    return r->doc ? tg_json_root(r->doc) : (struct tg_json){0};
}

bool tg_record_is_made(const struct tg_record *r)
{
    return tg_json_count(tg_json_key(tg_record_root(r), "steps")) > 0;
}

static int put_step(struct draft *d, const struct tg_tool *t, const struct tg_record_step *step,
                    struct tg_err *err)
{
    struct tg_json_doc *settings = NULL;
    char seed[24];
    int rc = TG_OK;

    snprintf(seed, sizeof seed, "%lld", (long long)t->set.seed);
    if (step->settings)
        rc = tg_json_parse(&settings, step->settings, strlen(step->settings), "settings", 0, err);
    tg_jout_object(&d->out, NULL);
    tg_jout_str(&d->out, "command", t->command_line);
    tg_jout_str(&d->out, "version", TG_VERSION);
    tg_jout_str(&d->out, "seed", seed);
    if (settings)
        tg_jout_copy(&d->out, "settings", tg_json_root(settings));
    tg_jout_end_object(&d->out);
    tg_json_free(settings);
    return rc;
}

int tg_record_step(struct tg_record *r, const struct tg_tool *t, const struct tg_record_step *step,
                   struct tg_err *err)
{
    const struct tg_json steps = tg_json_key(tg_record_root(r), "steps");
    struct draft d;
    int rc;

    draft_begin(&d);
    keep(&d, r, "base_model");
    if (step->teacher_name)
        put_teacher(&d, step->teacher_name, step->teacher_hash);
    else
        keep(&d, r, "teacher");
    tg_jout_array(&d.out, "steps");
    for (struct tg_json c = tg_json_first(steps); c.node; c = tg_json_next(c))
        tg_jout_copy(&d.out, NULL, c);
    rc = put_step(&d, t, step, err);
    tg_jout_end_array(&d.out);
    if (rc) {
        tg_strbuf_release(&d.text);
        return rc;
    }
    return draft_end(&d, r, err);
}

int tg_record_results(struct tg_record *r, const struct tg_report *report, const char *arch,
                      const char *dtype, struct tg_err *err)
{
    struct draft d;

    draft_begin(&d);
    keep(&d, r, "base_model");
    keep(&d, r, "teacher");
    keep(&d, r, "steps");
    tg_jout_object(&d.out, "results_of");
    tg_jout_str(&d.out, "arch", arch);
    tg_jout_str(&d.out, "dtype", dtype);
    tg_jout_end_object(&d.out);
    tg_jout_object(&d.out, "results");
    tg_results_write_json(&report->results, &d.out);
    tg_jout_end_object(&d.out);
    tg_verdicts_write_json(report->verdicts, report->verdict_count, &d.out, "checks");
    tg_jout_bool(&d.out, "passed", report->failed == 0);
    return draft_end(&d, r, err);
}

int tg_record_save(const struct tg_record *r, const char *dir, struct tg_err *err)
{
    char *path = tg_path_join(dir, TG_RECORD_FILE);
    struct tg_strbuf text;
    struct tg_json_out out;
    int rc;

    tg_strbuf_init(&text, MAX_RECORD);
    tg_jout_init(&out, &text, 2);
    tg_jout_copy(&out, NULL, tg_record_root(r));
    tg_strbuf_puts(&text, "\n");
    rc = !path || text.failed ? tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", dir)
                              : tg_file_write(path, text.text, text.len, err);
    tg_strbuf_release(&text);
    tg_free(path);
    return rc;
}
