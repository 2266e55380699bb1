/* tegu inspect: what is in a model, and anything wrong with it. Reads headers alone unless asked
 * for more. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "tools/subject.h"
#include "tools/table.h"

struct settings {
    bool tensors, hash, check;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "tensors", TG_OPT_FLAG, AT(tensors), NULL, NULL, "list every tensor", 0, 0, NULL, false},
    {0, "hash", TG_OPT_FLAG, AT(hash), NULL, NULL, "SHA-256 of the checkpoint (reads every byte)",
     0, 0, NULL, false},
    {0, "check", TG_OPT_FLAG, AT(check), NULL, NULL,
     "read every weight: NaN and infinities are errors", 0, 0, NULL, false},
    {0},
};
#undef AT

struct facts {
    const char *path;
    const struct tg_model_spec *spec;
    const struct tg_param_list *params;
    const struct tg_tensors *tensors;
    size_t bytes_of[TG_DTYPE_COUNT];
    char tokenizer[64];
    char hash[65];
};

static const char *position_kind(const struct tg_model_spec *s)
{
    return s->ropes[0].kind == TG_ROPE_LLAMA3 ? "llama3" : "default";
}

/* "3 x gated_window, 5 x softmax" */
static void mixer_summary(const struct tg_model_spec *s, char *buf, size_t size)
{
    size_t used = 0;
    buf[0] = 0;
    for (size_t m = 0; tg_mixer_schemas[m]; m++) {
        size_t n = 0;
        for (size_t l = 0; l < s->layer_count; l++)
            n += s->layers[l].mixer == tg_mixer_schemas[m];
        if (n && used < size)
            used += (size_t)snprintf(buf + used, size - used, "%s%zu x %s", used ? ", " : "", n,
                                     tg_mixer_schemas[m]->name);
    }
}

static void print_text(struct tg_tool *t, const struct settings *set, const struct facts *f)
{
    const struct tg_model_spec *s = f->spec;
    char mixers[256], count[40], kv[40], state[40], dtypes[256] = "";
    size_t used = 0;
    mixer_summary(s, mixers, sizeof mixers);
    for (int d = 0; d < TG_DTYPE_COUNT; d++) {
        char size[40];
        if (f->bytes_of[d] && used < sizeof dtypes)
            used += (size_t)snprintf(dtypes + used, sizeof dtypes - used, "%s%s (%s)",
                                     used ? ", " : "", tg_dtype_info((enum tg_dtype)d)->name,
                                     tg_bytes_text((double)f->bytes_of[d], size, sizeof size));
    }
    printf("model          %s\n", f->path);
    if (strcmp(s->family, s->base_family) == 0 || !s->base_family[0])
        printf("family         %s\n", s->family);
    else
        printf("family         %s (from %s)\n", s->family, s->base_family);
    printf("layers         %zu: %s\n", s->layer_count, mixers);
    printf("width          %zu, vocabulary %zu, head %s\n", s->width, s->vocab,
           s->tied_head ? "tied" : "of its own");
    printf("rotary         %s, theta %g\n", position_kind(s), s->ropes[0].theta);
    printf("parameters     %s\n",
           tg_thousands((double)tg_spec_param_count(s), count, sizeof count));
    printf("weights        %zu tensors in %zu file%s: %s\n", tg_tensors_count(f->tensors),
           tg_tensors_file_count(f->tensors), tg_tensors_file_count(f->tensors) == 1 ? "" : "s",
           dtypes);
    printf("tokenizer      %s\n", f->tokenizer[0] ? f->tokenizer : "none");
    printf("KV cache       %s per token (bf16)\n",
           tg_bytes_text((double)tg_spec_kv_bytes_per_token(s, 2), kv, sizeof kv));
    printf("state          %s constant\n",
           tg_bytes_text((double)tg_spec_state_bytes(s), state, sizeof state));
    if (f->hash[0])
        printf("sha256         %s\n", f->hash);
    if (set->check)
        printf("weights        all finite\n");
    printf("\n");
    struct tg_table table;
    tg_table_init(&table, "layer|mixer|heads|kv|head size|rotary|window|sinks|feature map|mlp");
    for (size_t l = 0; l < s->layer_count; l++) {
        const struct tg_layer_spec *y = &s->layers[l];
        bool far = y->mixer->flags & TG_MIXER_FAR;
        char window[32] = "-", map[64] = "-";
        if (y->window)
            snprintf(window, sizeof window, "%zu", y->window);
        if (far)
            snprintf(map, sizeof map, "%s %zu", tg_feature_map_name(y->feature_map),
                     tg_feature_count(y));
        tg_table_row(&table, "%zu|%s|%zu|%zu|%zu|%zu|%s|%zu|%s|%zu", l, y->mixer->name, y->heads,
                     y->kv_heads, y->head_dim, y->rotary_dim, window, y->sinks, map, y->mlp_dim);
    }
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
    if (!set->tensors)
        return;
    printf("\n");
    tg_table_init(&table, "tensor|dtype|shape|bytes");
    for (size_t i = 0; i < tg_tensors_count(f->tensors); i++) {
        const struct tg_tensor *x = tg_tensors_at(f->tensors, i);
        char shape[96];
        tg_table_row(&table, "%s|%s|%s|%zu", x->name, tg_dtype_info(x->dtype)->name,
                     tg_shape_text(x->shape, x->rank, shape, sizeof shape), x->bytes);
    }
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
}

static int print_json(const struct settings *set, const struct facts *f, struct tg_err *err)
{
    const struct tg_model_spec *s = f->spec;
    struct tg_json_doc_out doc;
    struct tg_json_out *out = tg_print_json_begin(&doc);
    tg_jout_str(out, "path", f->path);
    tg_jout_str(out, "family", s->family);
    tg_jout_str(out, "base_family", s->base_family);
    tg_jout_int(out, "params", (int64_t)tg_spec_param_count(s));
    tg_jout_int(out, "width", (int64_t)s->width);
    tg_jout_int(out, "vocab", (int64_t)s->vocab);
    tg_jout_bool(out, "tied_head", s->tied_head);
    tg_jout_int(out, "kv_bytes_per_token", (int64_t)tg_spec_kv_bytes_per_token(s, 2));
    tg_jout_int(out, "state_bytes", (int64_t)tg_spec_state_bytes(s));
    tg_jout_object(out, "dtypes");
    for (int d = 0; d < TG_DTYPE_COUNT; d++)
        if (f->bytes_of[d])
            tg_jout_int(out, tg_dtype_info((enum tg_dtype)d)->name, (int64_t)f->bytes_of[d]);
    tg_jout_end_object(out);
    if (f->tokenizer[0])
        tg_jout_str(out, "tokenizer", f->tokenizer);
    else
        tg_jout_null(out, "tokenizer");
    if (f->hash[0])
        tg_jout_str(out, "sha256", f->hash);
    tg_jout_array(out, "layers");
    for (size_t l = 0; l < s->layer_count; l++) {
        const struct tg_layer_spec *y = &s->layers[l];
        tg_jout_object(out, NULL);
        tg_jout_str(out, "mixer", y->mixer->name);
        tg_jout_int(out, "heads", (int64_t)y->heads);
        tg_jout_int(out, "kv_heads", (int64_t)y->kv_heads);
        tg_jout_int(out, "head_dim", (int64_t)y->head_dim);
        tg_jout_int(out, "rotary_dim", (int64_t)y->rotary_dim);
        tg_jout_int(out, "window", (int64_t)y->window);
        tg_jout_int(out, "sinks", (int64_t)y->sinks);
        if (y->mixer->flags & TG_MIXER_FAR)
            tg_jout_str(out, "feature_map", tg_feature_map_name(y->feature_map));
        tg_jout_int(out, "mlp_dim", (int64_t)y->mlp_dim);
        tg_jout_end_object(out);
    }
    tg_jout_end_array(out);
    if (set->tensors) {
        tg_jout_array(out, "tensors");
        for (size_t i = 0; i < tg_tensors_count(f->tensors); i++) {
            const struct tg_tensor *x = tg_tensors_at(f->tensors, i);
            tg_jout_object(out, NULL);
            tg_jout_str(out, "name", x->name);
            tg_jout_str(out, "dtype", tg_dtype_info(x->dtype)->name);
            tg_jout_array(out, "shape");
            for (int r = 0; r < x->rank; r++)
                tg_jout_int(out, NULL, x->shape[r]);
            tg_jout_end_array(out);
            tg_jout_str(out, "file", tg_path_base(x->file));
            tg_jout_end_object(out);
        }
        tg_jout_end_array(out);
    }
    return tg_print_json_end(&doc, err);
}

static int check_weights(struct tg_tool *t, const struct tg_checkpoint *c, struct tg_err *err)
{
    const struct tg_param_list *p = tg_checkpoint_params(c);
    for (size_t i = 0; i < p->count; i++) {
        float *data = tg_alloc_floats(p->items[i].count);
        int status = data ? tg_checkpoint_read(c, i, data, err)
                          : tg_fail(err, TG_ERR_NOMEM, "no memory for a tensor");
        tg_free(data);
        if (status == TG_OK &&
            tg_progress_tell(&t->progress, "check", i + 1, p->count, "tensors", NULL))
            status = tg_fail(err, TG_ERR_INTERRUPTED, "stopped");
        if (status)
            return status;
    }
    return TG_OK;
}

static int describe_tokenizer(const char *path, size_t vocab, char *buf, size_t size,
                              struct tg_err *err)
{
    char *file = tg_path_is_dir(path) ? tg_path_join(path, "tokenizer.json") : NULL;
    struct tg_tokenizer *tok = NULL;
    int status = TG_OK;
    if (file && tg_path_exists(file)) {
        status = tg_tokenizer_load(&tok, file, vocab, err);
        if (status == TG_OK)
            snprintf(buf, size, "%s, %zu tokens", tg_tokenizer_kind(tok), tg_tokenizer_vocab(tok));
    }
    tg_tokenizer_free(tok);
    tg_free(file);
    return status;
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    struct tg_checkpoint *c = NULL;
    struct facts f = {.path = t->args[0]};
    int status = tg_checkpoint_open(&c, f.path, err);
    if (status)
        goto out;
    f.spec = tg_checkpoint_spec(c);
    f.params = tg_checkpoint_params(c);
    f.tensors = tg_checkpoint_tensors(c);
    for (size_t i = 0; i < tg_tensors_count(f.tensors); i++)
        f.bytes_of[tg_tensors_at(f.tensors, i)->dtype] += tg_tensors_at(f.tensors, i)->bytes;
    status = describe_tokenizer(f.path, f.spec->vocab, f.tokenizer, sizeof f.tokenizer, err);
    if (status == TG_OK && set->check)
        status = check_weights(t, c, err);
    if (status == TG_OK && set->hash)
        status = tg_checkpoint_hash(c, f.hash, err);
    if (status)
        goto out;
    if (t->set.json)
        status = print_json(set, &f, err);
    else
        print_text(t, set, &f);
out:
    tg_checkpoint_close(c);
    return status;
}

const struct tg_command tg_cmd_inspect = {
    .name = "inspect",
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .details = "Opens MODEL as every command does, so anything wrong with its config, its weights' "
               "headers or its\n"
               "tokenizer is reported here, with status 1. Weights are not read unless asked for.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}},
    .run = run,
};
