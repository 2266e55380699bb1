/* Small random models for tests. */
#ifndef TG_TESTS_SMALL_MODEL_H
#define TG_TESTS_SMALL_MODEL_H

#include "linearize/model/model.h"

struct tg_test_shape {
    size_t layers, width, heads, kv_heads, head_dim, mlp, vocab;
    bool bias, qk_norm, tied;
};
/* Softmax everywhere; weights of size fan_in^-1/2, norms around 1. Fails the test on error. */
struct tg_model *tg_test_teacher(const struct tg_test_shape *shape, int threads, uint64_t seed);
/* Halves the parameters that softmax does not have and adds noise of that size: far from their
 * start, where sinks and gates hardly matter. */
void tg_test_stir_new(struct tg_model *m, double size, uint64_t seed);
enum { TG_TEST_ALL_ROWS = 47 };
/* A layer of each row of mixers.def that has all these flags (but that named `without`, if any), of
 * those `count` from `first` on, with windows and chunks of about `window`; one softmax layer last.
 * shape's number of layers does not count. */
struct tg_model *tg_test_hybrid(const struct tg_test_shape *shape, size_t window, unsigned flags,
                                const char *without, size_t first, size_t count, int threads);
/* Ids below vocab */
void tg_test_ids(int32_t *ids, size_t n, size_t vocab, uint64_t seed);
void tg_test_must(int status, const struct tg_err *err);

#endif
