/* Golden operations: files DIR/NAME.safetensors with float64 inputs `in.*`, the output `out`, the
 * upstream gradient `grad_out` and the gradients `grad.*` (layout: tests/test_ops.c). A row runs
 * our float32 code on one file and compares. Shapes and settings come from the file. */
#ifndef TG_TESTS_OPS_H
#define TG_TESTS_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/tensors.h"
#include "linearize/kernels/batch.h"
#include "linearize/kernels/kernels.h"

/* One file under test. Memory that it hands out is freed by the driver after the row has run. */
struct tg_op {
    const struct tg_tensors *file;
    const char *name; /* "softmax" */
    struct tg_ctx ctx;
    int failed;   /* comparisons that were not below the tolerance, or things missing */
    int compared; /* comparisons made */
    void *blocks[128];
    size_t block_count;
};

struct tg_op_row {
    const char *name;
    void (*run)(struct tg_op *op);
};
/* Both end with a row without name. */
extern const struct tg_op_row tg_ops_dense[], tg_ops_mixers[], tg_ops_recur[], tg_ops_recurrent[];

/* Notes a failure with its reason; the row should then return (op->failed tells). */
void tg_op_fail(struct tg_op *op, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A tensor by its full name ("in.q"); NULL after tg_op_fail if it is missing. */
const struct tg_tensor *tg_op_tensor(struct tg_op *op, const char *name);
size_t tg_op_dim(struct tg_op *op, const char *name, int axis); /* 0 after tg_op_fail */
/* Float tensor as float32, integer tensor as int64: zeros of one element if missing. */
float *tg_op_load(struct tg_op *op, const char *name);
int64_t *tg_op_load_int(struct tg_op *op, const char *name);
/* Zeroed floats (never NULL). */
float *tg_op_floats(struct tg_op *op, size_t count);
/* A number in the metadata ("scale", "window"). */
double tg_op_number(struct tg_op *op, const char *key);
/* B sequences of T rows each. */
struct tg_batch tg_op_batch(struct tg_op *op, size_t B, size_t T);

/* Compares got[count] with the tensor `name` ("out", "grad.q"): count must be its size, the RMS
 * relative error below TG_OP_TOLERANCE. */
void tg_op_check(struct tg_op *op, const char *name, const float *got, size_t count);
/* Every grad.* of the file must have been compared: called by the driver. */
#define TG_OP_TOLERANCE 1e-5

#endif
