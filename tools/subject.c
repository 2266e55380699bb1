#include "tools/subject.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"

static int open_tokenizer(const char *path, unsigned flags, size_t vocab, struct tg_tokenizer **tok,
                          struct tg_err *err)
{
    char *file = tg_path_is_dir(path) ? tg_path_join(path, "tokenizer.json") : NULL;
    bool there = file && tg_path_exists(file);
    tg_free(file);
    if (!there && !(flags & TG_SUBJECT_TOKENIZER))
        return TG_OK;
    if (!there)
        return tg_fail(err, TG_ERR_VALUE, "%s: has no tokenizer.json", path);
    return tg_tokenizer_load(tok, path, vocab, err);
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
        status = open_tokenizer(path, flags, s->model->spec.vocab, &s->tok, err);
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
