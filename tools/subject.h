/* What commands work on: an opened model with its tokenizer, and texts as token ids. */
#ifndef TG_TOOLS_SUBJECT_H
#define TG_TOOLS_SUBJECT_H

#include "convert/checkpoint.h"
#include "formats/corpus.h"
#include "formats/tokenizer/tokenizer.h"
#include "linearize/model/model.h"
#include "tools/command.h"

struct tg_subject {
    struct tg_model *model;
    struct tg_tokenizer *tok; /* NULL if there is none and it was not needed */
    char hash[65];            /* tg_checkpoint_hash, empty unless asked for */
};
enum tg_subject_flags {
    TG_SUBJECT_TOKENIZER = 1,        /* must have one */
    TG_SUBJECT_TOKENIZER_IF_ANY = 2, /* loads it if the file is there */
    TG_SUBJECT_HASH = 4,
};
int tg_subject_open(struct tg_tool *t, const char *path, unsigned flags, struct tg_subject *s,
                    struct tg_err *err);
/* The tokenizer that a model or a file of one has: a tokenizer.json, a tokenizer.model, or the
 * vocabulary in a GGUF file. Without any, *tok is NULL and only `must` makes that an error. */
int tg_tokenizer_of(const char *path, size_t vocab_limit, bool must, struct tg_tokenizer **tok,
                    struct tg_err *err);
void tg_subject_close(struct tg_subject *s); /* accepts a zeroed struct */

/* Token ids of files (parts allowed), one after another. */
int tg_texts_read(const struct tg_texts *files, const struct tg_tokenizer *tok, size_t vocab,
                  struct tg_ids *ids, struct tg_err *err);
/* Teacher and student must share a vocabulary. */
int tg_subjects_match(const struct tg_subject *teacher, const char *teacher_path,
                      const struct tg_subject *student, const char *student_path,
                      struct tg_err *err);

#endif
