/* Calibration text from the teacher itself: rounds of sequences decoded side by side, each round a
 * function of (settings, its number). */
#include "distill/sample.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "distill/keys.h"
#include "formats/tensors.h"
#include "linearize/model/generate.h"

enum { SAMPLE_STREAM = 0x73616d70, START_STREAM = 0x73746172 };

struct tg_sample_settings tg_sample_defaults(void)
{
    return (struct tg_sample_settings){
        .tokens = 300000, .length = 1024, .at_once = 48, .temperature = 1};
}

struct sampling {
    struct tg_model *m;
    const struct tg_sample_settings *set;
    const char *path;
    char *part;
    int32_t *ids;   /* [rounds * at_once * length] */
    int32_t *drawn; /* [at_once * (length - 1)] */
    const int32_t **prompts;
    size_t *prompt_len, *made;
    size_t round_ids, rounds;
    const struct tg_progress *progress;
    uint64_t done;
    bool stopped;
    char meaning[160]; /* settings as text: a part made with others is not gone on with */
};

static int32_t first_token(const struct sampling *s, size_t round, size_t i)
{
    const struct tg_model_spec *spec = &s->m->spec;
    if (spec->bos_id >= 0 && (size_t)spec->bos_id < spec->vocab)
        return spec->bos_id;
    if (spec->eos_count)
        return spec->eos_ids[0];
    struct tg_rng rng = tg_rng_make(tg_key(s->set->seed, START_STREAM, round), i);
    return (int32_t)tg_rng_below(&rng, spec->vocab);
}

static int watch(void *ud, size_t sequence, int32_t id)
{
    (void)sequence, (void)id;
    struct sampling *s = ud;
    s->stopped = tg_progress_tell(s->progress, "sample", ++s->done,
                                  (uint64_t)s->rounds * s->round_ids, "tokens", NULL) != 0;
    return s->stopped;
}

static int write_ids(const struct sampling *s, const char *path, size_t rounds, struct tg_err *err)
{
    struct tg_tensor_writer *w = NULL;
    struct tg_tensor_plan plan = {
        .name = "ids", .dtype = TG_I32, .rank = 1, .shape = {(int64_t)(rounds * s->round_ids)}};
    struct tg_meta meta = {"tegu_sample", s->meaning};
    int status = tg_tensor_writer_open(
        &w, path, &plan, 1, &(struct tg_write_options){.single = true, .meta = &meta, .metas = 1},
        err);
    if (status == TG_OK)
        status = tg_tensor_writer_put_raw(w, s->ids, err);
    if (status == TG_OK)
        status = tg_tensor_writer_finish(w, err);
    tg_tensor_writer_close(w);
    return status;
}

/* Rounds that an earlier run left; 0 when there are none or they were made with other settings. */
static int read_part(struct sampling *s, size_t *rounds, struct tg_err *err)
{
    struct tg_tensors *t = NULL;
    *rounds = 0;
    if (!tg_path_exists(s->part))
        return TG_OK;
    int status = tg_tensors_open(&t, s->part, err);
    const struct tg_tensor *ids = status == TG_OK ? tg_tensors_find(t, "ids") : NULL;
    const char *meaning = status == TG_OK ? tg_tensors_meta(t, "tegu_sample") : NULL;
    if (ids && ids->dtype == TG_I32 && meaning && strcmp(meaning, s->meaning) == 0 &&
        ids->elements <= s->rounds * s->round_ids) {
        *rounds = ids->elements / s->round_ids;
        memcpy(s->ids, ids->data, *rounds * s->round_ids * sizeof *s->ids);
    }
    tg_tensors_close(t);
    return status;
}

static int sample_round(struct sampling *s, size_t round, struct tg_err *err)
{
    const struct tg_sample_settings *set = s->set;
    struct tg_sampling how = {.temperature = set->temperature,
                              .top_p = 1,
                              .seed = tg_key(set->seed, SAMPLE_STREAM, round)};
    int32_t *to = s->ids + round * s->round_ids;
    for (size_t i = 0; i < set->at_once; i++) {
        to[i * set->length] = first_token(s, round, i);
        s->prompts[i] = to + i * set->length;
        s->prompt_len[i] = 1;
    }
    s->done += set->at_once;
    int status = tg_generate(s->m, s->prompts, s->prompt_len, set->at_once, set->length - 1, &how,
                             false, s->drawn, s->made, watch, s, err);
    if (status == TG_OK && s->stopped)
        return tg_fail(err, TG_ERR_INTERRUPTED, "interrupted: sampling can go on");
    for (size_t i = 0; i < set->at_once && status == TG_OK; i++)
        memcpy(to + i * set->length + 1, s->drawn + i * (set->length - 1),
               (set->length - 1) * sizeof *to);
    return status;
}

static int sampling_init(struct sampling *s, struct tg_err *err)
{
    const struct tg_sample_settings *set = s->set;
    size_t all;
    if (set->length < 2 || set->at_once < 1 || set->tokens < 1)
        return tg_fail(err, TG_ERR_VALUE,
                       "sample: length %zu must be at least 2, sequences at once %zu and tokens "
                       "%zu at least 1",
                       set->length, set->at_once, set->tokens);
    if (!tg_mul_size(&s->round_ids, set->length, set->at_once) ||
        !tg_mul_size(&all, s->round_ids, (set->tokens - 1) / s->round_ids + 1))
        return tg_fail(err, TG_ERR_VALUE, "sample: %zu tokens are too many", set->tokens);
    s->rounds = all / s->round_ids;
    snprintf(s->meaning, sizeof s->meaning, "length %zu, at once %zu, temperature %.17g, seed %llu",
             set->length, set->at_once, set->temperature, (unsigned long long)set->seed);
    struct tg_strbuf part;
    tg_strbuf_init(&part, 1 << 16);
    tg_strbuf_printf(&part, "%s.part", s->path);
    s->part = tg_strbuf_take(&part);
    s->ids = tg_alloc_array(all, sizeof *s->ids);
    s->drawn = tg_alloc_array(s->round_ids, sizeof *s->drawn);
    s->prompts = tg_alloc_array(set->at_once, sizeof *s->prompts);
    s->prompt_len = tg_alloc_array(set->at_once, sizeof *s->prompt_len);
    s->made = tg_alloc_array(set->at_once, sizeof *s->made);
    if (!s->part || !s->ids || !s->drawn || !s->prompts || !s->prompt_len || !s->made)
        return tg_fail(err, TG_ERR_NOMEM, "sample: no memory for %zu tokens", all);
    return TG_OK;
}

int tg_sample_text(struct tg_model *teacher, const struct tg_sample_settings *set, const char *path,
                   const struct tg_progress *p, struct tg_err *err)
{
    if (tg_path_exists(path))
        return TG_OK;
    struct sampling s = {.m = teacher, .set = set, .path = path, .progress = p};
    size_t round = 0;
    int status = sampling_init(&s, err);
    if (status == TG_OK)
        status = tg_model_reserve(teacher, set->length, err);
    if (status == TG_OK)
        status = read_part(&s, &round, err);
    s.done = (uint64_t)round * s.round_ids;
    while (status == TG_OK && round < s.rounds) {
        status = sample_round(&s, round, err);
        if (status == TG_OK && ++round < s.rounds)
            status = write_ids(&s, s.part, round, err);
    }
    if (status == TG_OK)
        status = write_ids(&s, path, s.rounds, err);
    if (status == TG_OK)
        remove(s.part);
    tg_free(s.part);
    tg_free(s.ids);
    tg_free(s.drawn);
    tg_free(s.prompts);
    tg_free(s.prompt_len);
    tg_free(s.made);
    return status;
}
