/* tegu compare: RMS(A - B) / RMS(B) and the largest difference of same-named tensors. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "formats/tensors.h"
#include "tools/command.h"
#include "tools/table.h"

struct settings {
    struct tg_texts tensors;
    double max_rel;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "tensor", TG_OPT_TEXTS, AT(tensors), NULL, "NAME", "only this tensor; must be in both", 0,
     0, NULL, false},
    {0, "max-rel", TG_OPT_NUM, AT(max_rel), NULL, "X",
     "exit status 3 if a relative difference is above X", 0, 1e30, NULL, false},
    {0},
};
#undef AT

struct difference {
    const char *name;
    double rel, largest;
    size_t elements;
    bool shapes_differ;
    char shape_a[64], shape_b[64];
};

static int as_doubles(const struct tg_tensor *x, double **out, struct tg_err *err)
{
    double *v = tg_alloc_array(x->elements + 1, sizeof *v);
    if (!v)
        return tg_fail(err, TG_ERR_NOMEM, "%s: tensor '%s': no memory for %zu elements", x->file,
                       x->name, x->elements);
    int status;
    if (tg_dtype_info(x->dtype)->is_float) {
        float *f = tg_alloc_floats(x->elements + 1);
        status = f ? tg_tensor_read_f32(x, f, err)
                   : tg_fail(err, TG_ERR_NOMEM, "no memory for a tensor");
        for (size_t i = 0; status == TG_OK && i < x->elements; i++)
            v[i] = (double)f[i];
        tg_free(f);
    } else {
        int64_t *n = (int64_t *)v; /* same size: converted in place */
        status = tg_tensor_read_i64(x, n, err);
        for (size_t i = 0; status == TG_OK && i < x->elements; i++) {
            int64_t one;
            memcpy(&one, &n[i], sizeof one);
            v[i] = (double)one;
        }
    }
    if (status)
        tg_free(v);
    else
        *out = v;
    return status;
}

static int difference_of(const struct tg_tensor *a, const struct tg_tensor *b, struct difference *d,
                         struct tg_err *err)
{
    double *x = NULL, *y = NULL;
    d->name = a->name;
    d->elements = b->elements;
    tg_shape_text(a->shape, a->rank, d->shape_a, sizeof d->shape_a);
    tg_shape_text(b->shape, b->rank, d->shape_b, sizeof d->shape_b);
    d->shapes_differ = strcmp(d->shape_a, d->shape_b) != 0;
    if (d->shapes_differ) {
        d->rel = d->largest = NAN;
        return TG_OK;
    }
    int status = as_doubles(a, &x, err);
    if (status == TG_OK)
        status = as_doubles(b, &y, err);
    double diff = 0, ref = 0, largest = 0;
    for (size_t i = 0; status == TG_OK && i < b->elements; i++) {
        double e = x[i] - y[i];
        diff += e * e;
        ref += y[i] * y[i];
        if (!(fabs(e) <= largest)) /* NaN stays */
            largest = fabs(e);
    }
    /* against zeros there is no scale: then the RMS of A itself counts */
    d->rel = ref > 0 ? sqrt(diff / ref) : sqrt(diff / (double)(b->elements ? b->elements : 1));
    d->largest = largest;
    tg_free(x);
    tg_free(y);
    return status;
}

static bool wanted(const struct settings *set, const char *name)
{
    for (size_t i = 0; i < set->tensors.count; i++)
        if (strcmp(set->tensors.items[i], name) == 0)
            return true;
    return set->tensors.count == 0;
}

static int check_names(const struct settings *set, const struct tg_tensors *const *side,
                       char **paths, struct tg_err *err)
{
    for (size_t i = 0; i < set->tensors.count; i++)
        for (int s = 0; s < 2; s++)
            if (!tg_tensors_find(side[s], set->tensors.items[i]))
                return tg_fail(err, TG_ERR_VALUE, "%s: has no tensor '%s'", paths[s],
                               set->tensors.items[i]);
    return TG_OK;
}

static int print_all(struct tg_tool *t, const struct difference *d, size_t count, size_t alone,
                     struct tg_err *err)
{
    if (t->set.json) {
        struct tg_json_doc_out doc;
        struct tg_json_out *out = tg_print_json_begin(&doc);
        tg_jout_array(out, "tensors");
        for (size_t i = 0; i < count; i++) {
            tg_jout_object(out, NULL);
            tg_jout_str(out, "name", d[i].name);
            tg_jout_str(out, "shape", d[i].shape_a);
            tg_jout_num(out, "rel", d[i].rel);
            tg_jout_num(out, "max_abs", d[i].largest);
            tg_jout_end_object(out);
        }
        tg_jout_end_array(out);
        tg_jout_int(out, "in_one_only", (int64_t)alone);
        return tg_print_json_end(&doc, err);
    }
    struct tg_table table;
    tg_table_init(&table, "tensor|shape|relative|largest");
    for (size_t i = 0; i < count; i++) {
        if (d[i].shapes_differ)
            tg_table_row(&table, "%s|%s and %s|shapes differ|", d[i].name, d[i].shape_a,
                         d[i].shape_b);
        else
            tg_table_row(&table, "%s|%s|%.3e|%.3e", d[i].name, d[i].shape_a, d[i].rel,
                         d[i].largest);
    }
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
    if (alone)
        printf("%zu tensors are in one of the two only\n", alone);
    return TG_OK;
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    struct tg_tensors *a = NULL, *b = NULL;
    struct difference *d = NULL;
    size_t count = 0, alone = 0;
    bool apart = false;
    int status = tg_tensors_open(&a, t->args[0], err);
    if (status == TG_OK)
        status = tg_tensors_open(&b, t->args[1], err);
    if (status == TG_OK)
        status = check_names(set, (const struct tg_tensors *const[]){a, b}, t->args, err);
    if (status)
        goto out;
    d = tg_alloc_array(tg_tensors_count(a) + 1, sizeof *d);
    if (!d) {
        status = tg_fail(err, TG_ERR_NOMEM, "no memory for %zu tensors", tg_tensors_count(a));
        goto out;
    }
    for (size_t i = 0; status == TG_OK && i < tg_tensors_count(a); i++) {
        const struct tg_tensor *x = tg_tensors_at(a, i), *y = tg_tensors_find(b, x->name);
        if (!y || !wanted(set, x->name))
            continue;
        status = difference_of(x, y, &d[count], err);
        apart = apart || (tg_parse_given(t->parse, "max-rel") && !(d[count].rel <= set->max_rel)) ||
                d[count].shapes_differ;
        count++;
        if (tg_progress_tell(&t->progress, "compare", i + 1, tg_tensors_count(a), "tensors", NULL))
            status = tg_fail(err, TG_ERR_INTERRUPTED, "stopped");
    }
    if (status == TG_OK && count == 0)
        status = tg_fail(err, TG_ERR_VALUE, "%s and %s have no tensor of the same name", t->args[0],
                         t->args[1]);
    if (status)
        goto out;
    if (set->tensors.count == 0)
        alone = tg_tensors_count(a) + tg_tensors_count(b) - 2 * count;
    status = print_all(t, d, count, alone, err);
    if (status == TG_OK && apart)
        status = TG_EXIT_CHECK;
out:
    tg_free(d);
    tg_tensors_close(a);
    tg_tensors_close(b);
    return status;
}

const struct tg_command tg_cmd_compare = {
    .name = "compare",
    .args = "A B",
    .min_args = 2,
    .max_args = 2,
    .details = "A and B are tensor files or checkpoints. Prints RMS(A - B) / RMS(B) and the "
               "largest |A - B| of each\n"
               "tensor that both have. Differing shapes, and with --max-rel a difference above it, "
               "give exit status 3.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}},
    .run = run,
};
