#include "tools/subject.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "convert/gguf_model.h"
#include "formats/gguf_vocab.h"

/* Does the directory hold one of the files that tg_tokenizer_load reads? Else *vocab is the path
 * of its tokenizer.gguf, which a hybrid of a GGUF teacher has, or NULL. */
static int find_tokenizer(const char *dir, bool *yes, char **vocab, struct tg_err *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "tokenizer.gguf"};
    *yes = false;
    *vocab = NULL;
    for (size_t i = 0; i < 3 && !*yes && !*vocab; i++) {
        char *file = tg_path_join(dir, names[i]);
        if (!file)
            return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", dir);
        const bool there = tg_path_exists(file);
        *yes = there && i < 2;
        *vocab = there && i == 2 ? file : NULL;
        if (!*vocab)
            tg_free(file);
    }
    return TG_OK;
}

static int vocabulary_of(const char *path, size_t vocab_limit, struct tg_tokenizer **tok,
                         struct tg_err *err)
{
    struct tg_tensors *t;
    int status = tg_tensors_open(&t, path, err);
    if (status == TG_OK && tg_gguf_has_vocab(t))
        status = tg_gguf_tokenizer(tok, t, vocab_limit, err);
    tg_tensors_close(t);
    return status;
}

int tg_tokenizer_of(const char *path, size_t vocab_limit, bool must, struct tg_tokenizer **tok,
                    struct tg_err *err)
{
    bool gguf = false, there = false;
    char *vocab = NULL;
    *tok = NULL;
    int status = tg_path_is_dir(path) ? find_tokenizer(path, &there, &vocab, err) : TG_OK;
    if (status == TG_OK && there)
        return tg_tokenizer_load(tok, path, vocab_limit, err);
    if (status == TG_OK && !vocab)
        status = tg_gguf_is_model(path, &gguf, err);
    if (status == TG_OK && (gguf || vocab))
        status = vocabulary_of(vocab ? vocab : path, vocab_limit, tok, err);
    tg_free(vocab);
    if (status == TG_OK && !*tok && must && (gguf || tg_path_is_dir(path)))
        return tg_fail(err, TG_ERR_VALUE, "%s: has no %s", path,
                       gguf ? "tokenizer.ggml.tokens" : "tokenizer.json");
    if (status == TG_OK && !*tok && must)
        return tg_tokenizer_load(tok, path, vocab_limit, err);
    return status;
}

int tg_subject_open(struct tg_tool *t, const char *path, unsigned flags, struct tg_subject *s,
                    struct tg_err *err)
{
    memset(s, 0, sizeof *s);
    struct tg_checkpoint *c = NULL;
    int status = tg_checkpoint_open(&c, path, err);
    if (status == TG_OK)
        status = tg_model_from_checkpoint(&s->model, c, &t->ctx, err);
    if (status == TG_OK && (flags & TG_SUBJECT_HASH))
        status = tg_checkpoint_hash(c, s->hash, err);
    if (status == TG_OK && (flags & (TG_SUBJECT_TOKENIZER | TG_SUBJECT_TOKENIZER_IF_ANY)))
        status =
            tg_tokenizer_of(path, s->model->spec.vocab, flags & TG_SUBJECT_TOKENIZER, &s->tok, err);
    tg_checkpoint_close(c);
    if (status)
        tg_subject_close(s);
    return status;
}

void tg_subject_close(struct tg_subject *s)
{
    tg_model_free(s->model);
    tg_tokenizer_free(s->tok);
    memset(s, 0, sizeof *s);
}

int tg_texts_read(const struct tg_texts *files, const struct tg_tokenizer *tok, size_t vocab,
                  struct tg_ids *ids, struct tg_err *err)
{
    for (size_t i = 0; i < files->count; i++) {
        struct tg_corpus_spec spec = {0};
        int status = tg_corpus_spec_parse(files->items[i], &spec, err);
        if (status == TG_OK)
            status = tg_corpus_read(&spec, tok, vocab, ids, err);
        tg_corpus_spec_release(&spec);
        if (status)
            return status;
    }
    return TG_OK;
}

int tg_subjects_match(const struct tg_subject *teacher, const char *teacher_path,
                      const struct tg_subject *student, const char *student_path,
                      struct tg_err *err)
{
    size_t a = teacher->model->spec.vocab, b = student->model->spec.vocab;
    if (a != b)
        return tg_fail(err, TG_ERR_MISMATCH, "%s has a vocabulary of %zu, its teacher %s of %zu",
                       student_path, b, teacher_path, a);
    return TG_OK;
}
