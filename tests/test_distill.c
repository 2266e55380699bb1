/* Recall items, training data, evaluation numbers and ranking. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "distill/data.h"
#include "distill/rank.h"
#include "distill/sample.h"
#include "formats/tensors.h"
#include "linearize/model/generate.h"
#include "tests/check.h"
#include "tests/small_model.h"

/* float32 logits of size 1, sums over thousands of rows in double */
static const double ROUNDING = 1e-5;
enum { SEED = 3 };
static const char tokenizer_path[] = "examples/teacher-8m/tokenizer.json";
static const struct tg_test_shape shape = {
    .layers = 3, .width = 16, .heads = 2, .kv_heads = 1, .head_dim = 8, .mlp = 24, .vocab = 41};

static char root[64];
static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/tegu-distill-XXXXXX");
    return mkdtemp(root) ? 0 : 1;
}
static int teardown(void **state)
{
    (void)state;
    return tg_dir_remove(root, NULL);
}

/* A tokenizer, text in it, and the source of its recall tasks. */
struct words {
    struct tg_tokenizer *tok;
    struct tg_ids text;
    struct tg_recall_source source;
};
static void words_open(struct words *w)
{
    static const char *const sentence[] = {
        " the old Captain went down to the water and Mary followed him",
        " nobody in London knew",
        ". When Peter asked, the Captain said nothing",
        ", and Harold walked to Oxford with Mary",
        ". It was a cold winter morning",
        " while the river carried London timber past Oxford"};
    struct tg_err err = {0};
    struct tg_rng rng = tg_rng_make(SEED, 0);
    *w = (struct words){0};
    tg_test_must(tg_tokenizer_load(&w->tok, tokenizer_path, 8192, &err), &err);
    for (int i = 0; i < 600; i++) {
        const char *s = sentence[tg_rng_below(&rng, 6)];
        tg_test_must(tg_tokenizer_encode(w->tok, s, strlen(s), false, &w->text, &err), &err);
        if (i % 40 == 0) {
            s = "\nTable: 1234 5678 9012 3456\n<|endoftext|>\n";
            tg_test_must(tg_tokenizer_encode(w->tok, s, strlen(s), false, &w->text, &err), &err);
        }
    }
    tg_test_must(tg_recall_source_init(&w->source, w->tok, w->text.data, w->text.count, &err),
                 &err);
}
static void words_close(struct words *w)
{
    tg_recall_source_release(&w->source);
    tg_ids_release(&w->text);
    tg_tokenizer_free(w->tok);
}
static void decode(const struct words *w, const struct tg_ids *ids, char **text)
{
    struct tg_err err = {0};
    size_t len;
    tg_test_must(tg_tokenizer_decode(w->tok, ids->data, ids->count, false, text, &len, &err), &err);
}

static void test_source(void **state)
{
    (void)state;
    struct words w;
    words_open(&w);
    assert_true(w.source.name_count >= 64); /* few in the text: the built-in ones are added */
    bool found = false;
    for (size_t i = 0; i < w.source.name_count; i++) {
        found |= strcmp(w.source.names[i], "Captain") == 0;
        assert_string_not_equal(w.source.names[i], "Mary-");
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(w.source.names[i], w.source.names[j]);
    }
    assert_true(found);
    int32_t end = tg_tokenizer_id(w.tok, "<|endoftext|>");
    assert_true(w.source.prose_count > w.text.count / 2);
    for (size_t i = 0; i < w.source.prose_count; i++)
        assert_int_not_equal(w.source.prose[i], end);
    words_close(&w);
}

/* The answer follows from the prompt, and is what the prompt's own text says. */
static void check_item(const char *name, const char *prompt, const char *answer,
                       const struct tg_recall_item *item)
{
    char line[256];
    if (strcmp(name, "needle") == 0) {
        snprintf(line, sizeof line, "\nThe pass key is%.6s. Remember it.%.6s is the pass key.\n",
                 answer, answer);
        assert_non_null(strstr(prompt, line));
        static const char question[] = "\nWhat is the pass key? The pass key is";
        assert_string_equal(prompt + strlen(prompt) - (sizeof question - 1), question);
        assert_int_equal(answer[6], '.');
    } else if (strcmp(name, "kv") == 0) {
        assert_int_equal(strncmp(prompt, "Register of names and numbers.\n", 31), 0);
        const char *asked = strrchr(prompt, '\n') + 1;
        snprintf(line, sizeof line, "\n%s%s", asked, answer);
        char *first = strstr(prompt, line);
        assert_non_null(first);
        snprintf(line, sizeof line, "\n%s", asked); /* only there, and as the question */
        assert_ptr_equal(strstr(strstr(first + 1, line) + 1, line), NULL);
        assert_non_null(strstr(prompt, "\nQuestions.\n"));
    } else if (strcmp(name, "copy") == 0) {
        const char *again = strstr(prompt, "\nAgain:");
        assert_non_null(again);
        assert_int_equal(strncmp(prompt + 5, answer, (size_t)(again - prompt) - 5), 0);
        assert_int_equal(strlen(answer), (size_t)(again - prompt) - 5 + 1);
    } else {
        int32_t key = item->prompt.data[item->prompt.count - 1];
        size_t seen = 0;
        assert_int_equal(item->answer.count, 1);
        for (size_t i = 0; i + 1 < item->prompt.count; i += 2)
            if (item->prompt.data[i] == key) {
                assert_int_equal(item->prompt.data[i + 1], item->answer.data[0]);
                seen++;
            }
        assert_true(seen >= 1);
    }
}

static void test_items(void **state)
{
    (void)state;
    static const size_t sizes[TG_RECALL_TASKS] = {300, 12, 10, 9};
    struct words w;
    struct tg_err err = {0};
    words_open(&w);
    for (int t = 0; t < TG_RECALL_TASKS; t++)
        for (uint64_t i = 0; i < 20; i++) {
            struct tg_recall_item item, same, other;
            size_t n = sizes[t];
            tg_test_must(tg_recall_make(&w.source, t, n, SEED, i, &item, &err), &err);
            tg_test_must(tg_recall_make(&w.source, t, n, SEED, i, &same, &err), &err);
            tg_test_must(tg_recall_make(&w.source, t, n, SEED + 1, i, &other, &err), &err);
            size_t bytes = item.prompt.count * sizeof(int32_t);
            assert_int_equal(item.prompt.count, same.prompt.count);
            assert_memory_equal(item.prompt.data, same.prompt.data, bytes);
            assert_true(item.prompt.count != other.prompt.count ||
                        memcmp(item.prompt.data, other.prompt.data, bytes) != 0);
            char *prompt, *answer;
            decode(&w, &item.prompt, &prompt);
            decode(&w, &item.answer, &answer);
            check_item(tg_recall_name(t), prompt, answer, &item);
            tg_free(prompt);
            tg_free(answer);
            tg_recall_item_release(&item);
            tg_recall_item_release(&same);
            tg_recall_item_release(&other);
        }
    struct tg_recall_item item;
    assert_int_equal(tg_recall_make(&w.source, TG_RECALL_KV, 100000, SEED, 0, &item, &err),
                     TG_ERR_VALUE);
    assert_int_equal(tg_recall_make(&w.source, TG_RECALL_NEEDLE, 60, SEED, 0, &item, &err),
                     TG_ERR_VALUE);
    words_close(&w);
}

static void test_fill(void **state)
{
    (void)state;
    struct words w;
    struct tg_err err = {0};
    enum { N = 512 };
    int32_t a[N], b[N];
    size_t marks[4] = {0};
    static const char *const seen[4] = {"pass key", "Register of", "Copy:", "Again:"};
    words_open(&w);
    for (uint64_t i = 0; i < 40; i++) {
        struct tg_rng r1 = tg_rng_make(SEED, i), r2 = r1;
        memset(a, -1, sizeof a);
        tg_test_must(tg_recall_fill(&w.source, &r1, a, N, &err), &err);
        tg_test_must(tg_recall_fill(&w.source, &r2, b, N, &err), &err);
        assert_memory_equal(a, b, sizeof a);
        struct tg_ids ids = {.data = a, .count = N};
        char *text;
        decode(&w, &ids, &text);
        for (int k = 0; k < 4; k++)
            marks[k] += strstr(text, seen[k]) != NULL;
        tg_free(text);
    }
    for (int k = 0; k < 4; k++)
        assert_true(marks[k] >= 5);
    words_close(&w);
}

static void write_ids(const char *path, const int32_t *ids, size_t n)
{
    struct tg_err err = {0};
    struct tg_tensor_writer *w = NULL;
    struct tg_tensor_plan plan = {.name = "ids", .dtype = TG_I32, .rank = 1, .shape = {(int64_t)n}};
    tg_test_must(tg_tensor_writer_open(&w, path, &plan, 1, &tg_write_single, &err), &err);
    tg_test_must(tg_tensor_writer_put_raw(w, ids, &err), &err);
    tg_test_must(tg_tensor_writer_finish(w, &err), &err);
    tg_tensor_writer_close(w);
}

/* Every window of the training part once an epoch, in another order each epoch and stage; the held
 * out part never; any sequence by its number alone. */
static void test_data(void **state)
{
    (void)state;
    enum { LENGTH = 10, WINDOWS = 37, COUNT = 400, KEPT = 380 };
    struct tg_err err = {0};
    char path[128], *files[1] = {path};
    int32_t ids[COUNT], out[LENGTH], first[WINDOWS];
    snprintf(path, sizeof path, "%s/ids.safetensors", root);
    for (int i = 0; i < COUNT; i++)
        ids[i] = i;
    write_ids(path, ids, COUNT);
    struct tg_data_settings set = {
        .files = files, .file_count = 1, .length = LENGTH, .held_out = 0.05, .seed = SEED};
    struct tg_data *d;
    tg_test_must(tg_data_open(&d, &set, NULL, COUNT, &err), &err);
    assert_int_equal(d->train_count, KEPT);
    assert_int_equal(d->held_count, COUNT - KEPT);
    assert_int_equal(d->held[0], KEPT);
    size_t moved = 0, per_epoch = KEPT / LENGTH, differs = 0;
    assert_int_equal(per_epoch, WINDOWS + 1);
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        bool seen[KEPT / LENGTH] = {false};
        for (uint64_t n = 0; n < per_epoch; n++) {
            tg_test_must(tg_data_sequence(d, 0, epoch * per_epoch + n, out, &err), &err);
            for (int i = 1; i < LENGTH; i++)
                assert_int_equal(out[i], out[0] + i);
            assert_true(out[LENGTH - 1] < KEPT);
            assert_false(seen[out[0] / LENGTH]);
            seen[out[0] / LENGTH] = true;
            if (n < WINDOWS) {
                moved += epoch && first[n] != out[0];
                first[n] = out[0];
            }
            int32_t again[LENGTH];
            tg_test_must(tg_data_sequence(d, 1, epoch * per_epoch + n, again, &err), &err);
            differs += again[0] != out[0];
        }
    }
    assert_true(moved > WINDOWS && differs > 2 * WINDOWS);
    tg_data_close(d);
    set.length = COUNT;
    assert_int_equal(tg_data_open(&d, &set, NULL, COUNT, &err), TG_ERR_VALUE);
    set.length = LENGTH;
    set.recall_mix = 0.2;
    assert_int_equal(tg_data_open(&d, &set, NULL, COUNT, &err), TG_ERR_VALUE);
}

/* One in five sequences is recall text, and the text is not skipped for it. */
static void test_mix(void **state)
{
    (void)state;
    enum { LENGTH = 32 };
    struct words w;
    struct tg_err err = {0};
    char path[128], *files[1] = {path};
    int32_t out[LENGTH];
    snprintf(path, sizeof path, "%s/ids.safetensors", root);
    words_open(&w);
    write_ids(path, w.text.data, w.text.count);
    struct tg_data_settings set = {
        .files = files, .file_count = 1, .length = LENGTH, .recall_mix = 0.2, .seed = SEED};
    struct tg_data *d;
    tg_test_must(tg_data_open(&d, &set, w.tok, 8192, &err), &err);
    size_t windows = d->train_count / LENGTH, from_text = 0;
    for (uint64_t n = 0; n < 50; n++) {
        tg_test_must(tg_data_sequence(d, 0, n, out, &err), &err);
        bool text = false;
        for (size_t i = 0; i + LENGTH <= d->train_count && !text; i++)
            text = memcmp(out, d->train + i, sizeof out) == 0;
        from_text += text;
    }
    assert_true(windows > 50);
    assert_int_equal(from_text, 40);
    tg_data_close(d);
    words_close(&w);
}

static struct tg_model *changed(const struct tg_model *teacher, const char *keep, size_t window)
{
    struct tg_err err = {0};
    struct tg_plan plan;
    struct tg_model *student;
    struct tg_plan_options options = {
        .mixer = "window", .keep = keep, .window = window, .sinks = 0};
    tg_test_must(tg_plan_make(&plan, &teacher->spec, &options, NULL, &err), &err);
    tg_test_must(tg_surgery_apply(teacher, &plan, NULL, &student, &err), &err);
    tg_plan_release(&plan);
    return student;
}

/* hidden [T,D] of one window by the model alone */
static float *hidden_of(struct tg_model *m, const int32_t *ids, size_t T)
{
    struct tg_err err = {0};
    size_t begin[2] = {0, T};
    struct tg_batch b = {.count = 1, .begin = begin};
    struct tg_run *run;
    float *hidden = tg_alloc_floats(T * m->spec.width);
    assert_non_null(hidden);
    tg_test_must(tg_run_create(&run, &err), &err);
    tg_test_must(tg_run_fit(run, m, &b, false, &err), &err);
    tg_model_forward(m, run, ids, &b, hidden, false, NULL);
    tg_run_free(run);
    return hidden;
}
/* log-probabilities [T,N], softmax in double */
static void log_probs(struct tg_model *m, const int32_t *ids, size_t T, double *out)
{
    size_t N = m->spec.vocab;
    float *hidden = hidden_of(m, ids, T), *logits = tg_alloc_floats(T * N);
    assert_non_null(logits);
    tg_model_logits(m, hidden, T, logits);
    for (size_t t = 0; t < T; t++) {
        double sum = 0;
        for (size_t n = 0; n < N; n++)
            sum += exp((double)logits[t * N + n]);
        for (size_t n = 0; n < N; n++)
            out[t * N + n] = (double)logits[t * N + n] - log(sum);
    }
    tg_free(hidden);
    tg_free(logits);
}
static size_t best(const double *x, size_t n)
{
    size_t b = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[b])
            b = i;
    return b;
}
/* The same numbers, window by window, in double. */
static void by_hand(struct tg_model *t, struct tg_model *s, const int32_t *ids, size_t count,
                    size_t length, struct tg_text_eval *out)
{
    size_t N = t->spec.vocab;
    double *a = tg_alloc_array(length * N, sizeof *a), *b = tg_alloc_array(length * N, sizeof *b);
    assert_true(a && b);
    *out = (struct tg_text_eval){0};
    for (size_t at = 0; at < count; at += length) {
        size_t T = count - at < length ? count - at : length;
        if (T < 2)
            break;
        log_probs(t, ids + at, T, a);
        log_probs(s, ids + at, T, b);
        out->windows++;
        for (size_t p = 0; p < T; p++) {
            size_t k = p == 0 ? 0 : (size_t)floor(log2((double)p)) + 1;
            double kl = 0;
            for (size_t n = 0; n < N; n++)
                kl += exp(a[p * N + n]) * (a[p * N + n] - b[p * N + n]);
            out->kl += kl;
            out->bucket[k].kl += kl;
            out->positions++;
            out->bucket[k].positions++;
            out->top1 += best(a + p * N, N) == best(b + p * N, N);
            if (p + 1 == T)
                continue;
            out->targets++;
            out->bucket[k].targets++;
            out->teacher_nll -= a[p * N + (size_t)ids[at + p + 1]];
            out->student_nll -= b[p * N + (size_t)ids[at + p + 1]];
            out->bucket[k].student_nll -= b[p * N + (size_t)ids[at + p + 1]];
        }
    }
    tg_free(a);
    tg_free(b);
}

static void test_eval(void **state)
{
    (void)state;
    enum { COUNT = 211, LENGTH = 30 };
    struct tg_err err = {0};
    struct tg_model *t = tg_test_teacher(&shape, 2, 1), *s = changed(t, "none", 4);
    int32_t ids[COUNT];
    tg_test_ids(ids, COUNT, shape.vocab, SEED);
    struct tg_text_eval want, got, alone;
    tg_test_must(tg_eval_text(t, s, ids, COUNT, LENGTH, 0, &got, NULL, &err), &err);
    by_hand(t, s, ids, COUNT, LENGTH, &want); /* the 211th token is a window of one: left out */
    assert_int_equal(got.windows, 7);
    assert_int_equal(got.windows, want.windows);
    assert_int_equal(got.targets, want.targets);
    assert_int_equal(got.positions, want.positions);
    assert_int_equal(got.top1, want.top1);
    assert_below(fabs(got.teacher_nll / want.teacher_nll - 1), ROUNDING, "teacher's nll");
    assert_below(fabs(got.student_nll / want.student_nll - 1), ROUNDING, "student's nll");
    assert_below(fabs(got.kl / want.kl - 1), ROUNDING, "kl");
    for (int k = 0; k < 6; k++) {
        assert_int_equal(got.bucket[k].positions, want.bucket[k].positions);
        assert_int_equal(got.bucket[k].targets, want.bucket[k].targets);
        if (k >= 3) /* before, the window sees everything and KL is rounding */
            assert_below(fabs(got.bucket[k].kl / want.bucket[k].kl - 1), ROUNDING, "bucket's kl");
        assert_below(fabs(got.bucket[k].student_nll / want.bucket[k].student_nll - 1), ROUNDING,
                     "bucket's nll");
    }
    tg_test_must(tg_eval_text(t, NULL, ids, COUNT, LENGTH, 2, &alone, NULL, &err), &err);
    by_hand(t, s, ids, 2 * LENGTH, LENGTH, &want);
    assert_int_equal(alone.windows, 2);
    assert_below(fabs(alone.teacher_nll / want.teacher_nll - 1), ROUNDING, "first two windows");
    assert_int_equal(tg_eval_text(t, NULL, ids, COUNT, LENGTH, 8, &alone, NULL, &err),
                     TG_ERR_VALUE);
    double agreement;
    tg_test_must(tg_eval_generation(t, t, ids, COUNT, 3, 8, 10, &agreement, NULL, &err), &err);
    assert_true(agreement == 1);
    tg_test_must(tg_eval_generation(t, s, ids, COUNT, 3, 8, 10, &agreement, NULL, &err), &err);
    assert_true(agreement >= 0 && agreement < 1);
    tg_model_free(s);
    tg_model_free(t);
}

/* Scores by decoding: the greedy continuation of the prompt is the answer. */
static void test_recall_score(void **state)
{
    (void)state;
    struct words w;
    struct tg_err err = {0};
    struct tg_test_shape big = shape;
    enum { ITEMS = 30 };
    big.vocab = 8192;
    words_open(&w);
    struct tg_model *m = tg_test_teacher(&big, 1, 1);
    size_t right = 0;
    float *head = tg_model_param(m, "head.weight");
    /* the head's row of an answer points where the prompt of one in four items ends */
    for (uint64_t i = 0; i < ITEMS; i += 4) {
        struct tg_recall_item item;
        tg_test_must(tg_recall_make(&w.source, TG_RECALL_MQAR, 1, SEED, i, &item, &err), &err);
        float *h = hidden_of(m, item.prompt.data, item.prompt.count);
        for (size_t k = 0; k < big.width; k++)
            head[(size_t)item.answer.data[0] * big.width + k] =
                4 * h[(item.prompt.count - 1) * big.width + k];
        tg_free(h);
        tg_recall_item_release(&item);
    }
    for (uint64_t i = 0; i < ITEMS; i++) {
        struct tg_recall_item item;
        struct tg_sampling greedy = {.top_p = 1};
        int32_t made[1];
        size_t n;
        tg_test_must(tg_recall_make(&w.source, TG_RECALL_MQAR, 1, SEED, i, &item, &err), &err);
        const int32_t *prompt = item.prompt.data;
        tg_test_must(tg_generate(m, &prompt, &item.prompt.count, 1, 1, &greedy, false, made, &n,
                                 NULL, NULL, &err),
                     &err);
        right += made[0] == item.answer.data[0];
        tg_recall_item_release(&item);
    }
    double score;
    tg_test_must(tg_eval_recall(m, &w.source, TG_RECALL_MQAR, 1, ITEMS, SEED, &score, NULL, &err),
                 &err);
    assert_true(right > 0 && right < ITEMS);
    assert_true(score == (double)right / ITEMS);
    tg_model_free(m);
    words_close(&w);
}

/* Against students made by surgery, one at a time. */
static void test_rank(void **state)
{
    (void)state;
    enum { LENGTH = 24, COUNT = 5 * LENGTH };
    struct tg_err err = {0};
    struct tg_model *t = tg_test_teacher(&shape, 2, 1);
    int32_t ids[COUNT];
    tg_test_ids(ids, COUNT, shape.vocab, SEED);
    struct tg_rank_settings set = {
        .window = 3, .tokens = COUNT, .length = LENGTH, .pairs = 5, .seed = SEED};
    struct tg_rank rank;
    tg_test_must(tg_rank_layers(t, NULL, ids, COUNT, &set, &rank, NULL, &err), &err);
    assert_int_equal(rank.count, 3);
    assert_int_equal(rank.pairs, 2);
    static const char *const others[] = {"1,2", "0,2", "0,1"};
    size_t worst = 0;
    for (size_t l = 0; l < 3; l++) {
        struct tg_model *s = changed(t, others[l], 3);
        struct tg_text_eval e;
        tg_test_must(tg_eval_text(t, s, ids, COUNT, LENGTH, 0, &e, NULL, &err), &err);
        assert_below(fabs(rank.rows[l].kl / (e.kl / COUNT) - 1), ROUNDING, "one layer windowed");
        worst = rank.rows[l].kl > rank.rows[worst].kl ? l : worst;
        tg_model_free(s);
    }
    for (size_t i = 0; i < rank.pairs; i++) {
        char keep[16];
        struct tg_text_eval e;
        assert_true(rank.pair_a[i] < rank.pair_b[i]);
        assert_true(rank.pair_a[i] == worst || rank.pair_b[i] == worst);
        snprintf(keep, sizeof keep, "%zu,%zu", rank.pair_a[i], rank.pair_b[i]);
        struct tg_model *s = changed(t, keep, 3);
        tg_test_must(tg_eval_text(t, s, ids, COUNT, LENGTH, 0, &e, NULL, &err), &err);
        assert_below(fabs(rank.pair_kl[i] / (e.kl / COUNT) - 1), ROUNDING, "all but two windowed");
        tg_model_free(s);
    }
    tg_rank_release(&rank);
    tg_model_free(t);
}

static int stop_at(void *ud, const char *phase, uint64_t done, uint64_t total, const char *unit,
                   const char *note)
{
    (void)phase, (void)total, (void)unit, (void)note;
    return done >= *(const uint64_t *)ud;
}

/* Stopped in the second round and gone on with: the same text. */
static void test_sample(void **state)
{
    (void)state;
    struct tg_err err = {0};
    struct tg_model *t = tg_test_teacher(&shape, 1, 1);
    struct tg_sample_settings set = {
        .tokens = 100, .length = 12, .at_once = 3, .temperature = 1, .seed = SEED};
    char whole[128], parts[128], *a, *b;
    size_t na, nb;
    snprintf(whole, sizeof whole, "%s/whole.safetensors", root);
    snprintf(parts, sizeof parts, "%s/parts.safetensors", root);
    tg_test_must(tg_sample_text(t, &set, whole, NULL, &err), &err);
    uint64_t limit = 50;
    struct tg_progress stop = {stop_at, &limit};
    assert_int_equal(tg_sample_text(t, &set, parts, &stop, &err), TG_ERR_INTERRUPTED);
    assert_false(tg_path_exists(parts));
    tg_test_must(tg_sample_text(t, &set, parts, NULL, &err), &err);
    tg_test_must(tg_file_read(whole, 1 << 20, &a, &na, &err), &err);
    tg_test_must(tg_file_read(parts, 1 << 20, &b, &nb, &err), &err);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    struct tg_corpus_spec spec;
    struct tg_ids ids = {0};
    tg_test_must(tg_corpus_spec_parse(whole, &spec, &err), &err);
    tg_test_must(tg_corpus_read(&spec, NULL, shape.vocab, &ids, &err), &err);
    assert_int_equal(ids.count, 108);
    tg_ids_release(&ids);
    tg_corpus_spec_release(&spec);
    tg_free(a);
    tg_free(b);
    tg_model_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_source),
        cmocka_unit_test(test_items),
        cmocka_unit_test(test_fill),
        cmocka_unit_test_setup_teardown(test_data, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mix, setup, teardown),
        cmocka_unit_test(test_eval),
        cmocka_unit_test(test_recall_score),
        cmocka_unit_test(test_rank),
        cmocka_unit_test_setup_teardown(test_sample, setup, teardown),
    };
    return tg_run_tests("distill", tests, sizeof tests / sizeof *tests);
}
