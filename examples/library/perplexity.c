/* Perplexity of a text under a model, with libtegu:
 *     cc perplexity.c $(pkg-config --cflags --libs tegu) -lm -o perplexity && ./perplexity MODEL
 * TEXT */
#include <math.h>
#include <stdio.h>

#include "tegu.h"

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: perplexity MODEL TEXT\n");
        return 2;
    }
    struct tg_err err = {0};
    struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = tg_cpu_count()};
    struct tg_model *model = NULL;
    struct tg_tokenizer *tokenizer = NULL;
    struct tg_corpus_spec part = {0};
    struct tg_ids ids = {0};
    struct tg_text_eval result;
    tg_gemm_init();

    int status = tg_model_load(&model, argv[1], &ctx, &err);
    if (status == TG_OK)
        status = tg_tokenizer_load(&tokenizer, argv[1], model->spec.vocab, &err);
    if (status == TG_OK)
        status = tg_corpus_spec_parse(argv[2], &part, &err);
    if (status == TG_OK)
        status = tg_corpus_read(&part, tokenizer, model->spec.vocab, &ids, &err);
    if (status == TG_OK)
        status = tg_eval_text(model, NULL, ids.data, ids.count, 1024, 4, &result, NULL, &err);
    if (status == TG_OK)
        printf("%.4f\n", exp(result.teacher_nll / (double)result.targets));
    else
        fprintf(stderr, "%s\n", err.msg);

    tg_ids_release(&ids);
    tg_corpus_spec_release(&part);
    tg_tokenizer_free(tokenizer);
    tg_model_free(model);
    return status == TG_OK ? 0 : 1;
}
