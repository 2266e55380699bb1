#include "convert/layout.h"

#include <math.h>
#include <string.h>

/* Builders. A view is a list of (count, from) for the stored tensor; the parameter is filled in
 * order unless a loop says otherwise. */
static struct tg_piece *piece(struct tg_layout *out, size_t from, size_t to)
{
    struct tg_piece *p = &out->piece[out->pieces++];
    *p = (struct tg_piece){.from = from, .to = to};
    return p;
}

static void loop(struct tg_piece *p, size_t count, size_t from, size_t to)
{
    p->loop[p->loops].count = count;
    p->loop[p->loops].from = from;
    p->loop[p->loops].to = to;
    p->loops++;
}

/* Elements of one row of the parameter: all sizes but the first */
static size_t row_size(const struct tg_param *p)
{
    return p->shape[0] ? p->count / (size_t)p->shape[0] : 0;
}

/* The parameter's own shape, with another first size */
static void expect_rows(const struct tg_layout_ask *ask, struct tg_layout *out, size_t rows)
{
    out->rank = ask->param->rank;
    memcpy(out->shape, ask->param->shape, sizeof out->shape);
    out->shape[0] = (int64_t)rows;
}

/* Rows [first, first + those of the parameter) of a stored tensor of `all` rows */
static void rows_of(const struct tg_layout_ask *ask, struct tg_layout *out, size_t first,
                    size_t all)
{
    const size_t width = row_size(ask->param);
    expect_rows(ask, out, all);
    loop(piece(out, first * width, 0), ask->param->count, 1, 1);
}

void tg_layout_same(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    rows_of(ask, out, 0, (size_t)ask->param->shape[0]);
}

void tg_layout_conv1d(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    rows_of(ask, out, 0, (size_t)ask->param->shape[0]);
    out->rank = 3;
    out->shape[2] = out->shape[1];
    out->shape[1] = 1;
}

void tg_layout_neg_exp(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    rows_of(ask, out, 0, (size_t)ask->param->shape[0]);
    out->neg_exp = true;
}

/* Sizes other than 1, in order; their number */
static int real_sizes(int rank, const int64_t *shape, int64_t *sizes)
{
    int n = 0;
    for (int i = 0; i < rank; i++)
        if (shape[i] != 1)
            sizes[n++] = shape[i];
    return n;
}

void tg_layout_squeeze(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    int64_t stored[8], param[8];
    tg_layout_same(ask, out);
    if (ask->stored_rank > 4)
        return;
    const int n = real_sizes(ask->stored_rank, ask->stored, stored);
    if (n == real_sizes(ask->param->rank, ask->param->shape, param) &&
        !memcmp(stored, param, (size_t)n * sizeof *stored)) {
        out->rank = ask->stored_rank;
        memcpy(out->shape, ask->stored, (size_t)out->rank * sizeof *out->shape);
    }
}

/* Columns [first, first + parameter's rows) of a stored [in, all] */
static void columns_of(const struct tg_layout_ask *ask, struct tg_layout *out, size_t first,
                       size_t all)
{
    const size_t rows = (size_t)ask->param->shape[0], width = row_size(ask->param);
    out->rank = 2;
    out->shape[0] = (int64_t)width;
    out->shape[1] = (int64_t)all;
    struct tg_piece *p = piece(out, first, 0);
    loop(p, rows, 1, width);
    loop(p, width, all, 1);
}

void tg_layout_transpose(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    columns_of(ask, out, 0, (size_t)ask->param->shape[0]);
}

struct qkv {
    size_t q, k, v; /* rows */
};
static struct qkv qkv_rows(const struct tg_layout_ask *ask)
{
    const struct tg_layer_spec *l = ask->layer;
    return (struct qkv){l->heads * l->head_dim, l->kv_heads * l->head_dim,
                        tg_value_heads(l) * tg_value_dim(l)};
}

void tg_layout_qkv_q(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const struct qkv n = qkv_rows(ask);
    rows_of(ask, out, 0, n.q + n.k + n.v);
}

void tg_layout_qkv_k(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const struct qkv n = qkv_rows(ask);
    rows_of(ask, out, n.q, n.q + n.k + n.v);
}

void tg_layout_qkv_v(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const struct qkv n = qkv_rows(ask);
    rows_of(ask, out, n.q + n.k, n.q + n.k + n.v);
}

void tg_layout_qkv_transposed_q(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const struct qkv n = qkv_rows(ask);
    columns_of(ask, out, 0, n.q + n.k + n.v);
}

void tg_layout_qkv_transposed_k(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const struct qkv n = qkv_rows(ask);
    columns_of(ask, out, n.q, n.q + n.k + n.v);
}

void tg_layout_qkv_transposed_v(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const struct qkv n = qkv_rows(ask);
    columns_of(ask, out, n.q + n.k, n.q + n.k + n.v);
}

/* `heads` of the H/G + 2 heads of each group, from head `first` of it */
static void group_heads(const struct tg_layout_ask *ask, struct tg_layout *out, size_t first,
                        size_t heads)
{
    const struct tg_layer_spec *l = ask->layer;
    const size_t each = l->head_dim * row_size(ask->param), all = l->heads / l->kv_heads + 2;
    expect_rows(ask, out, l->kv_heads * all * l->head_dim);
    struct tg_piece *p = piece(out, first * each, 0);
    loop(p, l->kv_heads, all * each, heads * each);
    loop(p, heads * each, 1, 1);
}

void tg_layout_qkv_groups_q(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    group_heads(ask, out, 0, ask->layer->heads / ask->layer->kv_heads);
}

void tg_layout_qkv_groups_k(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    group_heads(ask, out, ask->layer->heads / ask->layer->kv_heads, 1);
}

void tg_layout_qkv_groups_v(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    group_heads(ask, out, ask->layer->heads / ask->layer->kv_heads + 1, 1);
}

void tg_layout_half_first(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    rows_of(ask, out, 0, 2 * (size_t)ask->param->shape[0]);
}

void tg_layout_half_second(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const size_t rows = (size_t)ask->param->shape[0];
    rows_of(ask, out, rows, 2 * rows);
}

/* `heads` blocks of `size` rows of `width` elements, n of them from row `skip` rotated in pairs */
static void pairs(struct tg_layout *out, size_t heads, size_t size, size_t width, size_t skip,
                  size_t n)
{
    const size_t each = size * width;
    struct tg_piece *p = piece(out, skip * width, skip * width);
    loop(p, heads, each, each);
    loop(p, 2, width, n / 2 * width);
    loop(p, n / 2, 2 * width, width);
    loop(p, width, 1, 1);
    if (skip) {
        p = piece(out, 0, 0);
        loop(p, heads, each, each);
        loop(p, skip * width, 1, 1);
    }
    if (skip + n < size) {
        p = piece(out, (skip + n) * width, (skip + n) * width);
        loop(p, heads, each, each);
        loop(p, (size - skip - n) * width, 1, 1);
    }
}

/* Rows of head size in the parameter, and elements of each */
static void head_rows(const struct tg_layout_ask *ask, size_t *rows, size_t *width)
{
    const struct tg_param *p = ask->param;
    const bool norm = p->rank == 2 && (size_t)p->shape[1] == ask->layer->head_dim &&
                      (size_t)p->shape[0] <= ask->layer->heads; /* [H,K]: each element is a row */
    *rows = norm ? p->count : (size_t)p->shape[0];
    *width = norm ? 1 : row_size(p);
}

void tg_layout_pairs(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const size_t K = ask->layer->head_dim, n = ask->layer->rotary_dim;
    size_t rows, width;
    expect_rows(ask, out, (size_t)ask->param->shape[0]);
    head_rows(ask, &rows, &width);
    if (ask->spec->pairs_apart)
        tg_layout_same(ask, out);
    else
        pairs(out, rows / K, K, width, 0, n);
}

void tg_layout_pairs_tail(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const size_t K = ask->layer->head_dim, n = ask->layer->rotary_dim,
                 rows = (size_t)ask->param->shape[0], width = row_size(ask->param);
    expect_rows(ask, out, rows);
    if (ask->spec->pairs_apart)
        tg_layout_same(ask, out);
    else if (rows == ask->layer->heads * K)
        pairs(out, rows / K, K, width, K - n, n);
    else
        pairs(out, 1, rows, width, rows - n, n);
}

void tg_layout_expert(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    const size_t each = row_size(ask->param);
    out->rank = ask->param->rank - 1;
    memcpy(out->shape, ask->param->shape + 1, (size_t)out->rank * sizeof *out->shape);
    loop(piece(out, 0, ask->expert * each), each, 1, 1);
}

/* Half `half` of the second size of a stored [E, 2M, ...] */
static void experts_half(const struct tg_layout_ask *ask, struct tg_layout *out, size_t half)
{
    const size_t each = row_size(ask->param);
    expect_rows(ask, out, (size_t)ask->param->shape[0]);
    out->shape[1] *= 2;
    struct tg_piece *p = piece(out, half * each, 0);
    loop(p, (size_t)ask->param->shape[0], 2 * each, each);
    loop(p, each, 1, 1);
}

void tg_layout_experts_first(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    experts_half(ask, out, 0);
}

void tg_layout_experts_second(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    experts_half(ask, out, 1);
}

static void gated(const struct tg_layout_ask *ask, struct tg_layout *out, size_t part)
{
    const size_t K = ask->layer->head_dim, each = K * row_size(ask->param);
    const size_t rows = (size_t)ask->param->shape[0];
    expect_rows(ask, out, 2 * rows);
    struct tg_piece *p = piece(out, part * each, 0);
    loop(p, rows / K, 2 * each, each);
    loop(p, each, 1, 1);
}

void tg_layout_gated_q(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    gated(ask, out, 0);
}

void tg_layout_gated_gate(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    gated(ask, out, 1);
}

static size_t piece_count(const struct tg_piece *p)
{
    size_t n = 1;
    for (int l = 0; l < p->loops; l++)
        n *= p->loop[l].count;
    return n;
}

size_t tg_layout_count(const struct tg_layout *l)
{
    size_t n = 0;
    for (int i = 0; i < l->pieces; i++)
        n += piece_count(&l->piece[i]);
    return n;
}

/* The innermost loop runs over src_step, dst_step; outer ones recurse. */
static void copy_loops(const struct tg_piece *p, int at, const float *from, float *to, bool back)
{
    if (at == p->loops) {
        *to = *from;
        return;
    }
    const size_t count = p->loop[at].count, src = back ? p->loop[at].to : p->loop[at].from,
                 dst = back ? p->loop[at].from : p->loop[at].to;
    if (at + 1 == p->loops && src == 1 && dst == 1)
        memcpy(to, from, count * sizeof *to);
    else if (at + 1 == p->loops)
        for (size_t n = 0; n < count; n++)
            to[n * dst] = from[n * src];
    else
        for (size_t n = 0; n < count; n++)
            copy_loops(p, at + 1, from + n * src, to + n * dst, back);
}

static void map_loops(const struct tg_layout *l, const struct tg_piece *p, int at, float *x,
                      bool back)
{
    if (at == p->loops || at == TG_LAYOUT_LOOPS) {
        *x = l->negative ? -*x : back ? (float)-exp((double)*x) : (float)log(-(double)*x);
        return;
    }
    const size_t step = back ? p->loop[at].from : p->loop[at].to;
    for (size_t n = 0; n < p->loop[at].count; n++)
        map_loops(l, p, at + 1, x + n * step, back);
}

static void copy_piece(const struct tg_layout *l, const struct tg_piece *p, const float *from,
                       float *to, bool back)
{
    if (!piece_count(p))
        return;
    copy_loops(p, 0, from, to, back);
    if (l->neg_exp || l->negative)
        map_loops(l, p, 0, to, back);
}

void tg_layout_copy(const struct tg_layout *l, const float *stored, float *param)
{
    for (int i = 0; i < l->pieces; i++)
        copy_piece(l, &l->piece[i], stored + l->piece[i].from, param + l->piece[i].to, false);
}

void tg_layout_copy_back(const struct tg_layout *l, const float *param, float *stored)
{
    for (int i = 0; i < l->pieces; i++)
        copy_piece(l, &l->piece[i], param + l->piece[i].to, stored + l->piece[i].from, true);
}
