/* Decode: a state per layer and sequence, and steps of any number of new tokens. The rows of all
 * sequences go through each GEMM together; only the mixers look at one sequence at a time. */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/model/model_internal.h"

struct tg_cache {
    uint64_t shape; /* of the model that it was made for */
    size_t layers, sequences, capacity;
    size_t *length;    /* [sequences] */
    size_t *offset;    /* [layers + 1] of each layer's state in a sequence's floats */
    size_t width, mlp; /* for the scratch */
    float *states;     /* [sequences, offset[layers]] */
    float **at;        /* scratch: states of one layer [sequences] */
    float *block;      /* scratch of a step */
    size_t block_floats;
    struct tg_ropes ropes; /* of those that depend on the text's length: for `capacity` tokens */
};

struct scratch {
    float *x, *y, *a, *b, *work;
};

struct snapshot_header {
    uint64_t magic, shape, capacity, length, floats;
};
static const uint64_t SNAPSHOT_MAGIC = 0x3130306563616754; /* "Tgace001" in ASCII, low byte first */

static uint64_t mix(uint64_t hash, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * 0x100000001b3;
    return hash;
}

/* FNV-1a of everything that the meaning of a state depends on, weights excepted */
static uint64_t shape_of(const struct tg_model_spec *spec)
{
    uint64_t hash = mix(0xcbf29ce484222325, &spec->width, sizeof spec->width);
    for (size_t l = 0; l < spec->layer_count; l++) {
        const struct tg_layer_spec *s = &spec->layers[l];
        const uint64_t values[] = {s->heads,  s->kv_heads, s->head_dim,    s->rotary_dim,
                                   s->window, s->sinks,    s->feature_dim, (uint64_t)s->feature_map,
                                   s->gated};
        hash = mix(hash, s->mixer->name, strlen(s->mixer->name) + 1);
        hash = mix(hash, values, sizeof values);
    }
    return hash;
}

static int measure(struct tg_cache *c, const struct tg_model *m, struct tg_err *err)
{
    bool fits = true;
    for (size_t l = 0; l < c->layers; l++) {
        struct tg_mixer mixer;
        tg_model_mixer(m, l, m->data, &c->ropes, &mixer);
        size_t floats = tg_model_mixer_ops(m, l)->state_floats(&mixer, c->capacity);
        fits = fits && tg_add_size(&c->offset[l + 1], c->offset[l], (floats + 15) & ~(size_t)15);
    }
    size_t total = 0;
    if (fits && tg_mul_size(&total, c->offset[c->layers], c->sequences))
        c->states = tg_alloc_array(total, sizeof *c->states);
    if (!c->states)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a cache of %zu sequences of %zu tokens",
                       c->sequences, c->capacity);
    return TG_OK;
}

int tg_cache_create(struct tg_cache **out, const struct tg_model *m, size_t sequences,
                    size_t capacity, struct tg_err *err)
{
    *out = NULL;
    if (sequences == 0 || capacity == 0)
        return tg_fail(err, TG_ERR_VALUE, "a cache of %zu sequences of %zu tokens holds nothing",
                       sequences, capacity);
    struct tg_cache *c = tg_alloc(sizeof *c);
    if (!c)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a cache");
    c->layers = m->spec.layer_count;
    c->sequences = sequences;
    c->capacity = capacity;
    c->shape = shape_of(&m->spec);
    c->width = m->spec.width;
    c->mlp = tg_model_widest_mlp(m);
    c->length = tg_alloc_array(sequences, sizeof *c->length);
    c->offset = tg_alloc_array(c->layers + 1, sizeof *c->offset);
    c->at = tg_alloc_array(sequences, sizeof *c->at);
    int status = c->length && c->offset && c->at
                     ? measure(c, m, err)
                     : tg_fail(err, TG_ERR_NOMEM, "no memory for a cache");
    if (!status)
        status = tg_ropes_fit(&c->ropes, &m->spec, true, capacity, err);
    if (status) {
        tg_cache_free(c);
        return status;
    }
    *out = c;
    return TG_OK;
}

void tg_cache_free(struct tg_cache *c)
{
    if (!c)
        return;
    tg_free(c->length);
    tg_free(c->offset);
    tg_free(c->at);
    tg_free(c->states);
    tg_free(c->block);
    tg_ropes_release(&c->ropes);
    tg_free(c);
}

static size_t sequence_floats(const struct tg_cache *c)
{
    return c->offset[c->layers];
}

void tg_cache_reset(struct tg_cache *c, size_t sequence)
{
    if (c->length[sequence])
        memset(c->states + sequence * sequence_floats(c), 0, sequence_floats(c) * sizeof(float));
    c->length[sequence] = 0;
}

size_t tg_cache_length(const struct tg_cache *c, size_t sequence)
{
    return c->length[sequence];
}

size_t tg_cache_bytes(const struct tg_cache *c)
{
    return c->sequences * sequence_floats(c) * sizeof(float);
}

size_t tg_cache_snapshot_bytes(const struct tg_cache *c)
{
    return sizeof(struct snapshot_header) + sequence_floats(c) * sizeof(float);
}

void tg_cache_snapshot(const struct tg_cache *c, size_t sequence, void *out)
{
    struct snapshot_header h = {SNAPSHOT_MAGIC, c->shape, c->capacity, c->length[sequence],
                                sequence_floats(c)};
    memcpy(out, &h, sizeof h);
    memcpy((char *)out + sizeof h, c->states + sequence * sequence_floats(c),
           sequence_floats(c) * sizeof(float));
}

int tg_cache_restore(struct tg_cache *c, size_t sequence, const void *in, size_t bytes,
                     struct tg_err *err)
{
    struct snapshot_header h;
    if (bytes < sizeof h)
        return tg_fail(err, TG_ERR_FORMAT, "snapshot of %zu bytes is shorter than its header",
                       bytes);
    memcpy(&h, in, sizeof h);
    if (h.magic != SNAPSHOT_MAGIC)
        return tg_fail(err, TG_ERR_FORMAT, "not a cache snapshot");
    if (h.shape != c->shape)
        return tg_fail(err, TG_ERR_MISMATCH, "snapshot is of a model with other layers");
    if (h.capacity != c->capacity)
        return tg_fail(err, TG_ERR_MISMATCH,
                       "snapshot is of a cache for %" PRIu64 " tokens, this one is for %zu",
                       h.capacity, c->capacity);
    if (h.floats != sequence_floats(c) || bytes != tg_cache_snapshot_bytes(c))
        return tg_fail(err, TG_ERR_FORMAT, "snapshot has %zu bytes, expected %zu", bytes,
                       tg_cache_snapshot_bytes(c));
    if (h.length > c->capacity)
        return tg_fail(err, TG_ERR_FORMAT, "snapshot holds %" PRIu64 " tokens, more than %zu",
                       h.length, c->capacity);
    memcpy(c->states + sequence * sequence_floats(c), (const char *)in + sizeof h,
           sequence_floats(c) * sizeof(float));
    c->length[sequence] = (size_t)h.length;
    return TG_OK;
}

static size_t lay_out(const struct tg_cache *c, size_t rows, size_t work, float *base,
                      struct scratch *s)
{
    struct tg_carve k = {base, 0};
    s->x = tg_carve(&k, rows * c->width);
    s->y = tg_carve(&k, rows * c->width);
    s->a = tg_carve(&k, rows * c->mlp);
    s->b = tg_carve(&k, rows * c->mlp);
    s->work = tg_carve(&k, work);
    return k.used;
}

static int scratch_for(struct tg_cache *c, const struct tg_model *m, const struct tg_batch *b,
                       struct scratch *s, struct tg_err *err)
{
    size_t work = tg_block_work_floats(m, tg_batch_rows(b), false);
    for (size_t l = 0; l < c->layers; l++) {
        struct tg_mixer mixer;
        tg_model_mixer(m, l, m->data, &c->ropes, &mixer);
        size_t need =
            tg_mixer_step_work(tg_model_mixer_ops(m, l), &mixer, b, c->capacity, m->ctx.threads);
        work = need > work ? need : work;
    }
    size_t need = lay_out(c, tg_batch_rows(b), work, NULL, s);
    if (need > c->block_floats) {
        tg_free(c->block);
        c->block = tg_alloc_floats(need);
        c->block_floats = c->block ? need : 0;
        if (!c->block)
            return tg_fail(err, TG_ERR_NOMEM, "no memory for a step of %zu tokens",
                           tg_batch_rows(b));
    }
    lay_out(c, tg_batch_rows(b), work, c->block, s);
    return TG_OK;
}

static int check_step(struct tg_model *m, const struct tg_cache *c, const int32_t *ids,
                      const size_t *begin, struct tg_err *err)
{
    size_t longest = 0;
    if (c->shape != shape_of(&m->spec))
        return tg_fail(err, TG_ERR_MISMATCH, "the cache was made for a model with other layers");
    for (size_t i = 0; i < c->sequences; i++) {
        size_t length = c->length[i] + (begin[i + 1] - begin[i]);
        if (length > c->capacity)
            return tg_fail(err, TG_ERR_VALUE,
                           "sequence %zu would hold %zu tokens, the cache is for %zu", i, length,
                           c->capacity);
        longest = length > longest ? length : longest;
        int status = tg_model_check_length(m, i, length, err);
        if (status)
            return status;
    }
    for (size_t i = 0; i < begin[c->sequences]; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= m->spec.vocab)
            return tg_fail(err, TG_ERR_VALUE, "token id %" PRId32 " is not below %zu", ids[i],
                           m->spec.vocab);
    return tg_model_reserve(m, longest, err);
}

static void step_layer(const struct tg_model *m, struct tg_cache *c, size_t l,
                       const struct tg_batch *b, float *h, const struct scratch *s,
                       const struct tg_hooks *hooks)
{
    size_t rows = tg_batch_rows(b);
    struct tg_block_space space = {s->x, s->y, s->a, s->b, s->work};
    struct tg_mixer mixer;
    tg_model_mixer(m, l, m->data, &c->ropes, &mixer);
    for (size_t i = 0; i < c->sequences; i++)
        c->at[i] = c->states + i * sequence_floats(c) + c->offset[l];
    const float *x = tg_block_enter(m, l, h, rows, s->x);
    tg_model_mixer_ops(m, l)->step(&m->ctx, &mixer, b, c->capacity, x, c->at, s->y, s->work);
    if (hooks && hooks->mixer)
        hooks->mixer(hooks->ud, l, x, s->y);
    tg_block_leave(m, l, h, rows, x, &space, NULL);
}

int tg_model_step(struct tg_model *m, struct tg_cache *c, const int32_t *ids, const size_t *begin,
                  float *hidden, const struct tg_hooks *hooks, struct tg_err *err)
{
    struct tg_batch b = {.count = c->sequences, .begin = begin, .past = c->length};
    struct scratch s;
    int status = check_step(m, c, ids, begin, err);
    if (!status)
        status = scratch_for(c, m, &b, &s, err);
    if (status)
        return status;
    size_t rows = tg_batch_rows(&b);
    tg_model_embed(m, ids, &b, hidden);
    for (size_t l = 0; l < c->layers; l++) {
        if (hooks && hooks->hidden)
            hooks->hidden(hooks->ud, l, hidden);
        step_layer(m, c, l, &b, hidden, &s, hooks);
    }
    tg_model_final_norm(m, hidden, rows);
    if (hooks && hooks->hidden)
        hooks->hidden(hooks->ud, c->layers, hidden);
    for (size_t i = 0; i < c->sequences; i++)
        c->length[i] += begin[i + 1] - begin[i];
    return TG_OK;
}
