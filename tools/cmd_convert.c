/* tegu convert: the tensors of a checkpoint or file in another format, dtype or sharding. Names and
 * shapes stay as they are. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "convert/model_files.h"
#include "convert/repack.h"
#include "formats/format.h"
#include "formats/gguf_types.h"
#include "tools/card.h"
#include "tools/output.h"
#include "tools/table.h"

#define GGUF_FILE "model.gguf" /* in a directory */

struct settings {
    const char *to, *dtype, *arch;
    int64_t max_shard;
    struct tg_texts only, exclude;
    bool dry_run, allow_irregular;
};

static const char *choice_format(size_t i)
{
    for (size_t k = 0; tg_formats[k]; k++)
        if (tg_formats[k]->begin && i-- == 0)
            return tg_formats[k]->name;
    return NULL;
}

/* Types that tensors may become: what the files say in their config, NULL where they cannot. */
static const struct {
    const char *name;
    enum tg_dtype dtype;
    const char *config;
} dtypes[] = {
    {"keep", TG_F32, NULL},     {"f32", TG_F32, "float32"},    {"bf16", TG_BF16, "bfloat16"},
    {"f16", TG_F16, "float16"}, {"f8_e4m3", TG_F8_E4M3, NULL}, {"f8_e5m2", TG_F8_E5M2, NULL},
    {"q8_0", TG_Q8_0, NULL},    {"q4_0", TG_Q4_0, NULL},       {"q4_k", TG_Q4_K, NULL},
    {"q5_k", TG_Q5_K, NULL},    {"q6_k", TG_Q6_K, NULL},
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

static bool is_dtype(const char *name)
{
    for (size_t i = 0; i < DTYPES; i++)
        if (!strcmp(dtypes[i].name, name))
            return true;
    return false;
}

/* Types, then mixtures of them */
static const char *choice_dtype(size_t i)
{
    size_t at = DTYPES;
    if (i < DTYPES)
        return dtypes[i].name;
    for (const struct tg_gguf_mix *m = tg_gguf_mixes; m->name; m++)
        if (!is_dtype(m->name) && at++ == i)
            return m->name;
    return NULL;
}

#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "to", TG_OPT_CHOICE, AT(to), NULL, "FORMAT",
     "format of the output; default: by OUT's ending, else as the input", 0, 0, choice_format,
     false},
    {0, "dtype", TG_OPT_CHOICE, AT(dtype), "keep", "T",
     "what floating tensors become; q4_k_m, q5_k_m: mixtures, with an architecture alone", 0, 0,
     choice_dtype, false},
    {0, "max-shard-size", TG_OPT_BYTES, AT(max_shard), "5G", "SIZE",
     "largest file; 0: one file. GGUF is cut only if this is given", 0, 0, NULL, false},
    {0, "only", TG_OPT_TEXTS, AT(only), NULL, "PATTERN",
     "only tensors whose names match; * stands for anything", 0, 0, NULL, false},
    {0, "exclude", TG_OPT_TEXTS, AT(exclude), NULL, "PATTERN", "no tensors whose names match", 0, 0,
     NULL, false},
    {0, "arch", TG_OPT_CHOICE, AT(arch), NULL, "A",
     "write the model as this architecture: auto: the one that most engines load", 0, 0,
     tg_choice_any_arch, false},
    {0, "allow-irregular", TG_OPT_FLAG, AT(allow_irregular), NULL, NULL,
     "with --arch: also layouts that some engine loads wrongly without a word", 0, 0, NULL, false},
    {0, "dry-run", TG_OPT_FLAG, AT(dry_run), NULL, NULL,
     "print the plan, or with --arch what fits and why not; write nothing", 0, 0, NULL, false},
    {0},
};
#undef AT

static size_t dtype_row(const char *name)
{
    size_t i = 0;
    while (i + 1 < DTYPES && strcmp(dtypes[i].name, name) != 0)
        i++;
    return i;
}

/* The format whose ending the path has; NULL: a directory */
static const struct tg_format *format_by_ending(const char *path)
{
    const size_t n = strlen(path);
    for (size_t i = 0; tg_formats[i]; i++) {
        const size_t m = strlen(tg_formats[i]->ext);
        if (n > m && !strcmp(path + n - m, tg_formats[i]->ext))
            return tg_formats[i];
    }
    return NULL;
}

static int print_plan(struct tg_tool *t, const struct tg_repack *r, struct tg_err *err)
{
    uint64_t before = 0, after = 0;
    struct tg_table table;
    struct tg_json_doc_out doc;
    struct tg_json_out *out = t->set.json ? tg_print_json_begin(&doc) : NULL;
    char a[40], b[40], shape[96];
    if (out)
        tg_jout_array(out, "tensors");
    else
        tg_table_init(&table, "tensor|shape|from|to|bytes|note");
    for (size_t i = 0; i < tg_repack_count(r); i++) {
        const struct tg_repack_row *row = tg_repack_row(r, i);
        const struct tg_tensor *x = row->tensor;
        before += x->bytes;
        after += row->bytes;
        tg_shape_text(x->shape, x->rank, shape, sizeof shape);
        if (out) {
            tg_jout_object(out, NULL);
            tg_jout_str(out, "name", x->name);
            tg_jout_str(out, "shape", shape);
            tg_jout_str(out, "from", tg_dtype_info(x->dtype)->name);
            tg_jout_str(out, "to", tg_dtype_info(row->dtype)->name);
            tg_jout_int(out, "bytes", (int64_t)row->bytes);
            tg_jout_end_object(out);
        } else
            tg_table_row(&table, "%s|%s|%s|%s|%zu|%s", x->name, shape,
                         tg_dtype_info(x->dtype)->name, tg_dtype_info(row->dtype)->name, row->bytes,
                         row->why ? row->why : "");
    }
    if (out) {
        tg_jout_end_array(out);
        tg_jout_int(out, "bytes_before", (int64_t)before);
        tg_jout_int(out, "bytes_after", (int64_t)after);
        return tg_print_json_end(&doc, err);
    }
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
    printf("\n%zu tensors, %s become %s\n", tg_repack_count(r),
           tg_bytes_text((double)before, a, sizeof a), tg_bytes_text((double)after, b, sizeof b));
    return TG_OK;
}

/* A directory is filled beside its name and renamed when it is whole; so is a single file, by the
 * writer. */
static int write_dir(struct tg_tool *t, struct tg_repack *r, const char *dtype, struct tg_err *err)
{
    const char *in = t->args[0], *path = t->args[1];
    char *tmp = NULL;
    int status = tg_dir_begin(path, t->set.force, &tmp, err);
    if (status == TG_OK)
        status = tg_repack_write(r, tmp, &t->progress, err);
    if (status == TG_OK && tg_path_is_dir(in))
        status = tg_model_files_copy(in, tmp, dtype, err);
    if (status == TG_OK)
        status = tg_dir_commit(tmp, path, err);
    if (status && tmp)
        tg_dir_remove(tmp, NULL);
    tg_free(tmp);
    return status;
}

/* The type of most of the model: that of its largest tensor */
static const char *own_dtype(const struct tg_checkpoint *c)
{
    const struct tg_tensors *t = tg_checkpoint_tensors(c);
    const struct tg_tensor *largest = NULL;
    for (size_t i = 0; i < tg_tensors_count(t); i++)
        if (!largest || tg_tensors_at(t, i)->elements > largest->elements)
            largest = tg_tensors_at(t, i);
    return !largest || largest->dtype == TG_BF16 ? "bf16"
           : largest->dtype == TG_F16            ? "f16"
                                                 : "f32";
}

/* What stands beside a model in a directory: its record and its card */
static int describe(const struct tg_tool *t, const struct tg_export_job *job, const char *dir,
                    const struct tg_export_result *result, struct tg_err *err)
{
    const struct tg_card card = {
        .path = t->args[1],
        .file = job->gguf ? GGUF_FILE : NULL,
        .dtype = job->dtype,
        .record = job->record,
        .spec = &result->spec,
        .result = result,
        .command = t->command_line,
    };
    int status = tg_record_save(job->record, dir, err);
    return status == TG_OK ? tg_card_write(dir, &card, err) : status;
}

/* As another architecture: a directory appears by rename; so does a single file, which is the only
 * one of what was written. */
static int write_export(struct tg_tool *t, const struct tg_export_job *job,
                        const struct tg_target *target, bool single, const struct tg_remarks *why,
                        struct tg_err *err)
{
    struct tg_export_result result = {0};
    const char *path = t->args[1];
    char *tmp = NULL;
    int status = tg_dir_begin(path, t->set.force, &tmp, err);
    char *file = status == TG_OK && job->gguf ? tg_path_join(tmp, GGUF_FILE) : NULL;
    if (status == TG_OK && job->gguf && !file)
        status = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    if (status == TG_OK)
        status = tg_export_make(t, job, target, file ? file : tmp, &result, err);
    if (status == TG_OK && !single)
        status = describe(t, job, tmp, &result, err);
    if (status == TG_OK)
        status = single ? tg_file_move(file, path, err) : tg_dir_commit(tmp, path, err);
    if (tmp && (status || single))
        tg_dir_remove(tmp, NULL);
    if (status == TG_OK)
        tg_export_tell(t, &result, why);
    tg_export_result_release(&result);
    tg_free(file);
    tg_free(tmp);
    return status;
}

static int write_native(struct tg_tool *t, const struct tg_export_job *job,
                        const struct tg_checkpoint *c, const struct tg_remarks *why,
                        struct tg_err *err)
{
    const struct tg_export_result no_target = {0};
    struct tg_model *m = NULL;
    char hash[65];
    int status = tg_checkpoint_hash(c, hash, err);
    if (status == TG_OK)
        status = tg_model_from_checkpoint(&m, c, &t->ctx, err);
    if (status)
        return status;
    const struct tg_checkpoint_job native = {.model = m,
                                             .dtype = job->dtype,
                                             .max_shard = job->max_shard,
                                             .tokenizer_dir = t->args[0],
                                             .teacher_hash = hash,
                                             .teacher_name = tg_path_base(t->args[0]),
                                             .made_from = t->args[0],
                                             .converted = true};
    status = tg_checkpoint_write(t, &native, t->args[1], err);
    if (status == TG_OK)
        tg_export_tell(t, &no_target, why);
    tg_model_free(m);
    return status;
}

static int choose_and_write(struct tg_tool *t, struct tg_export_job *job,
                            const struct tg_checkpoint *c, bool single, struct tg_err *err)
{
    const struct tg_target *target = NULL;
    struct tg_record record = {0};
    struct tg_remarks why = {0};
    char name[128];
    int status = tg_export_choose(job->arch, job->gguf, job->allow_irregular, job->source.spec,
                                  &target, &why, err);
    if (status == TG_OK)
        status = tg_record_open(&record, t->args[0], err);
    tg_card_title(t->args[1], name, sizeof name);
    if (single && strlen(name) > strlen(".gguf"))
        name[strlen(name) - strlen(".gguf")] = '\0';
    job->name = name;
    job->record = &record;
    if (status == TG_OK)
        status = target ? write_export(t, job, target, single, &why, err)
                        : write_native(t, job, c, &why, err);
    tg_record_close(&record);
    tg_remarks_release(&why);
    return status;
}

/* --arch: by what the model is, where without it tensors are moved as they are */
static int run_export(struct tg_tool *t, const struct settings *set, bool gguf, bool single,
                      struct tg_err *err)
{
    struct tg_checkpoint *c = NULL;
    int status = tg_checkpoint_open(&c, t->args[0], err);
    if (status)
        return status;
    struct tg_export_job job = {
        .source = tg_export_from_checkpoint(c),
        .dir = t->args[0],
        .arch = set->arch,
        .dtype = strcmp(set->dtype, "keep") ? set->dtype : own_dtype(c),
        .gguf = gguf,
        .allow_irregular = set->allow_irregular,
        .max_shard = set->max_shard,
    };
    status = set->dry_run ? tg_export_verdicts(t, job.source.spec, err)
                          : choose_and_write(t, &job, c, single, err);
    tg_checkpoint_close(c);
    return status;
}

/* Which form the output has: --to, its ending, or the architecture that was asked for */
static bool wants_gguf(const struct settings *set, const struct tg_format *ending)
{
    const struct tg_target *target = tg_target_find(set->arch);
    if (set->to || ending)
        return (set->to ? tg_format_find(set->to) : ending) == &tg_format_gguf;
    return target && target->gguf;
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    const size_t dtype = dtype_row(set->dtype);
    const struct tg_format *ending = format_by_ending(t->args[1]);
    struct tg_repack_options o = {
        .to = set->to ? tg_format_find(set->to) : ending,
        .keep = dtype == 0,
        .dtype = dtypes[dtype].dtype,
        .single = ending != NULL,
        .only = set->only.items,
        .onlys = set->only.count,
        .exclude = set->exclude.items,
        .excludes = set->exclude.count,
        .threads = t->ctx.threads,
    };
    struct tg_tensors *in = NULL;
    struct tg_repack *r = NULL;
    if (set->to && ending && o.to != ending)
        return tg_usage(err, "--to %s, but %s ends in %s", set->to, t->args[1], ending->ext);
    if (set->arch && (set->only.count || set->exclude.count))
        return tg_usage(err, "option --arch writes a whole model: no --only, no --exclude");
    if (set->arch && o.to && o.to != &tg_format_gguf && o.to != &tg_format_safetensors)
        return tg_usage(err, "option --arch writes safetensors or GGUF, not %s", o.to->name);
    if (set->arch && ending && ending != &tg_format_gguf)
        return tg_usage(err,
                        "option --arch writes a directory or a GGUF file, not a single %s file",
                        ending->name);
    if (!set->arch && !is_dtype(set->dtype))
        return tg_usage(err, "option --dtype %s is a mixture of types, for --arch", set->dtype);
    if (!set->arch && set->allow_irregular)
        return tg_usage(err, "option --allow-irregular is for --arch");
    int status = tg_output_apart(t->args[1], t->args[0], err);
    if (status == TG_OK && !set->dry_run)
        status = tg_output_check(t, t->args[1], err);
    if (status == TG_OK && set->arch)
        return run_export(t, set, wants_gguf(set, ending), ending != NULL, err);
    if (status == TG_OK)
        status = tg_tensors_open(&in, t->args[0], err);
    if (status)
        return status;
    if (!o.to)
        o.to = tg_tensors_format(in);
    if (o.to->index || tg_parse_given(t->parse, "max-shard-size"))
        o.max_shard = (uint64_t)set->max_shard;
    status = tg_repack_plan(&r, in, &o, err);
    if (status == TG_OK && set->dry_run)
        status = print_plan(t, r, err);
    else if (status == TG_OK && o.single)
        status = tg_repack_write(r, t->args[1], &t->progress, err);
    else if (status == TG_OK)
        status = write_dir(t, r, dtypes[dtype].config, err);
    tg_repack_free(r);
    tg_tensors_close(in);
    return status;
}

const struct tg_command tg_cmd_convert = {
    .name = "convert",
    .args = "IN OUT",
    .min_args = 2,
    .max_args = 2,
    .details =
        "IN is a checkpoint's directory or a file of any format that is read. OUT is a directory, "
        "or a single\n"
        "file if it has a format's ending. Names and shapes stay as they are; what stands beside "
        "the weights\n"
        "of a directory (config, tokenizer, template) is copied. Tensors are streamed: memory does "
        "not grow\n"
        "with the model. OUT appears when it is whole.\n"
        "With --arch the model itself is written as one of another architecture, read back and "
        "compared with\n"
        "IN; what does not fit exactly is refused with its layer and reason.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}},
    .run = run,
};
