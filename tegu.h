/* libtegu: what a program needs to read, run, graft, distill and write models. Each header says
 * shapes, units, errors and ownership; docs/architecture.md says what may know what.
 *
 *     struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = tg_cpu_count()};
 *     struct tg_model *m;
 *     struct tg_err err;
 *     if (tg_model_load(&m, "path/to/model", &ctx, &err) != TG_OK)
 *         fprintf(stderr, "%s\n", err.msg);
 *
 * Compile with `pkg-config --cflags --libs tegu`. */
#ifndef TEGU_H
#define TEGU_H

#include "base/status.h"
#include "base/pool.h"
#include "formats/tensors.h"
#include "formats/corpus.h"
#include "formats/tokenizer/tokenizer.h"
#include "convert/checkpoint.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/kernels.h"
#include "linearize/model/model.h"
#include "linearize/model/generate.h"
#include "linearize/surgery/closed_form.h"
#include "linearize/surgery/surgery.h"
#include "distill/calibrate.h"
#include "distill/data.h"
#include "distill/eval.h"
#include "distill/rank.h"
#include "distill/train.h"

#endif
