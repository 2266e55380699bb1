#include "tools/inspect_view.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/format.h"
#include "tools/table.h"

bool tg_facts_find(struct tg_facts *f, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (!tg_grow(&f->findings, &f->finding_cap, f->finding_count + 1, sizeof *f->findings))
        return false;
    f->findings[f->finding_count] = tg_strdup(text);
    return f->findings[f->finding_count++] != NULL;
}

void tg_facts_release(struct tg_facts *f)
{
    tg_names_free(f->findings, f->finding_count);
    f->findings = NULL;
    f->finding_count = f->finding_cap = 0;
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

static void print_weights(const struct tg_facts *f)
{
    char dtypes[256] = "";
    size_t used = 0;
    for (int d = 0; d < TG_DTYPE_COUNT; d++) {
        char size[40];
        if (f->tensors_of[d] && used < sizeof dtypes)
            used += (size_t)snprintf(dtypes + used, sizeof dtypes - used, "%s%s (%s)",
                                     used ? ", " : "", tg_dtype_info((enum tg_dtype)d)->name,
                                     tg_bytes_text((double)f->bytes_of[d], size, sizeof size));
    }
    printf("weights        %zu tensors in %zu %s file%s: %s\n", tg_tensors_count(f->tensors),
           tg_tensors_file_count(f->tensors), tg_tensors_format(f->tensors)->name,
           tg_tensors_file_count(f->tensors) == 1 ? "" : "s", dtypes);
}

static void print_model(const struct tg_facts *f)
{
    const struct tg_model_spec *s = f->spec;
    char mixers[256], count[40], kv[40], state[40];
    mixer_summary(s, mixers, sizeof mixers);
    if (strcmp(s->family, s->base_family) == 0 || !s->base_family[0])
        printf("family         %s\n", s->family);
    else
        printf("family         %s (from %s)\n", s->family, s->base_family);
    printf("layers         %zu: %s\n", s->layer_count, mixers);
    printf("width          %zu, vocabulary %zu, head %s\n", s->width, s->vocab,
           s->tied_head ? "tied" : "of its own");
    printf("rotary         %s, theta %g\n", tg_rope_kind_name(s->ropes[0].kind), s->ropes[0].theta);
    printf("parameters     %s\n",
           tg_thousands((double)tg_spec_param_count(s), count, sizeof count));
    print_weights(f);
    printf("tokenizer      %s\n", f->tokenizer[0] ? f->tokenizer : "none");
    printf("KV cache       %s per token (bf16)\n",
           tg_bytes_text((double)tg_spec_kv_bytes_per_token(s, 2), kv, sizeof kv));
    printf("state          %s constant\n",
           tg_bytes_text((double)tg_spec_state_bytes(s), state, sizeof state));
}

static void print_layers(const struct tg_tool *t, const struct tg_model_spec *s)
{
    struct tg_table table;
    printf("\n");
    tg_table_init(&table, "layer|mixer|heads|kv|head size|rotary|window|sinks|feature map|mlp");
    for (size_t l = 0; l < s->layer_count; l++) {
        const struct tg_layer_spec *y = &s->layers[l];
        bool far = y->mixer->flags & TG_MIXER_FAR;
        char window[32] = "-", map[64] = "-", mlp[64];
        if (y->window)
            snprintf(window, sizeof window, "%zu", y->window);
        if (far)
            snprintf(map, sizeof map, "%s %zu", tg_feature_map_name(y->feature_map),
                     tg_feature_count(y));
        if (y->moe.experts)
            snprintf(mlp, sizeof mlp, "%zu of %zu x %zu", y->moe.per_token, y->moe.experts,
                     y->moe.mlp_dim);
        else
            snprintf(mlp, sizeof mlp, "%zu", y->mlp_dim);
        /* a state-space layer has heads of its own: of x, groups of B and C */
        bool space = !y->heads;
        const struct tg_recurrent_spec *r = &y->recurrent;
        tg_table_row(&table, "%zu|%s|%zu|%zu|%zu|%zu|%s|%zu|%s|%s", l, y->mixer->name,
                     space ? r->v_heads : tg_out_heads(y), space ? r->groups : y->kv_heads,
                     space ? r->v_dim : y->head_dim, y->rotary_dim, window, y->sinks, map, mlp);
    }
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
}

static void print_tensors(const struct tg_tool *t, const struct tg_facts *f)
{
    struct tg_table table;
    printf("\n");
    tg_table_init(&table, f->content_hash[0] ? "tensor|dtype|shape|bytes|sha256"
                                             : "tensor|dtype|shape|bytes");
    for (size_t i = 0; i < tg_tensors_count(f->tensors); i++) {
        const struct tg_tensor *x = tg_tensors_at(f->tensors, i);
        char shape[96];
        tg_table_row(&table, "%s|%s|%s|%zu|%s", x->name, tg_dtype_info(x->dtype)->name,
                     tg_shape_text(x->shape, x->rank, shape, sizeof shape), x->bytes,
                     f->content_hash[0] ? f->content[i].hash : "");
    }
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
}

void tg_facts_print(const struct tg_tool *t, const struct tg_facts *f)
{
    printf("%s          %s\n", f->spec ? "model" : "files", f->path);
    if (f->spec)
        print_model(f);
    else
        print_weights(f);
    if (f->hash[0])
        printf("sha256         %s\n", f->hash);
    if (f->content_hash[0])
        printf("hash           %s\n", f->content_hash);
    for (size_t i = 0; i < f->finding_count; i++)
        printf("%s        %s\n", f->wrong ? "found " : "note  ", f->findings[i]);
    if (f->checked && !f->wrong)
        printf("values         all finite\n");
    if (f->spec)
        print_layers(t, f->spec);
    if (f->list)
        print_tensors(t, f);
}

static void json_model(struct tg_json_out *out, const struct tg_model_spec *s)
{
    tg_jout_str(out, "family", s->family);
    tg_jout_str(out, "base_family", s->base_family);
    tg_jout_int(out, "params", (int64_t)tg_spec_param_count(s));
    tg_jout_int(out, "width", (int64_t)s->width);
    tg_jout_int(out, "vocab", (int64_t)s->vocab);
    tg_jout_bool(out, "tied_head", s->tied_head);
    tg_jout_int(out, "kv_bytes_per_token", (int64_t)tg_spec_kv_bytes_per_token(s, 2));
    tg_jout_int(out, "state_bytes", (int64_t)tg_spec_state_bytes(s));
}

static void json_layers(struct tg_json_out *out, const struct tg_model_spec *s)
{
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
        if (y->moe.experts) {
            tg_jout_int(out, "experts", (int64_t)y->moe.experts);
            tg_jout_int(out, "experts_per_token", (int64_t)y->moe.per_token);
            tg_jout_int(out, "expert_dim", (int64_t)y->moe.mlp_dim);
        }
        tg_jout_end_object(out);
    }
    tg_jout_end_array(out);
}

static void json_tensors(struct tg_json_out *out, const struct tg_facts *f)
{
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
        if (f->content_hash[0])
            tg_jout_str(out, "sha256", f->content[i].hash);
        tg_jout_end_object(out);
    }
    tg_jout_end_array(out);
}

int tg_facts_print_json(const struct tg_facts *f, struct tg_err *err)
{
    struct tg_json_doc_out doc;
    struct tg_json_out *out = tg_print_json_begin(&doc);
    tg_jout_str(out, "path", f->path);
    tg_jout_str(out, "format", tg_tensors_format(f->tensors)->name);
    if (f->spec)
        json_model(out, f->spec);
    tg_jout_object(out, "dtypes");
    for (int d = 0; d < TG_DTYPE_COUNT; d++)
        if (f->tensors_of[d])
            tg_jout_int(out, tg_dtype_info((enum tg_dtype)d)->name, (int64_t)f->bytes_of[d]);
    tg_jout_end_object(out);
    if (f->tokenizer[0])
        tg_jout_str(out, "tokenizer", f->tokenizer);
    else
        tg_jout_null(out, "tokenizer");
    if (f->hash[0])
        tg_jout_str(out, "sha256", f->hash);
    if (f->content_hash[0])
        tg_jout_str(out, "hash", f->content_hash);
    tg_jout_array(out, "findings");
    for (size_t i = 0; i < f->finding_count; i++)
        tg_jout_str(out, NULL, f->findings[i]);
    tg_jout_end_array(out);
    if (f->spec)
        json_layers(out, f->spec);
    if (f->list)
        json_tensors(out, f);
    return tg_print_json_end(&doc, err);
}
