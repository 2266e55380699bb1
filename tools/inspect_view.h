/* What tegu inspect found about a model or a set of tensor files. */
#ifndef TG_TOOLS_INSPECT_VIEW_H
#define TG_TOOLS_INSPECT_VIEW_H

#include "convert/checkpoint.h"
#include "formats/content.h"
#include "tools/command.h"

struct tg_facts {
    const char *path;
    const struct tg_model_spec *spec; /* NULL: tensors without a model */
    const struct tg_tensors *tensors;
    const struct tg_content *content; /* by tensor; NULL: not read */
    size_t bytes_of[TG_DTYPE_COUNT], tensors_of[TG_DTYPE_COUNT];
    char tokenizer[64];
    char hash[65];         /* of the files; empty unless asked for */
    char content_hash[65]; /* of what is in them */
    bool list, checked;    /* every tensor is listed; values were looked at */
    char **findings;       /* sentences about what is wrong or unusual; owned */
    size_t finding_count, finding_cap;
    bool wrong; /* one of them is a fault */
};

/* Appends a finding; false without memory */
bool tg_facts_find(struct tg_facts *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tg_facts_release(struct tg_facts *f);
void tg_facts_print(const struct tg_tool *t, const struct tg_facts *f);
int tg_facts_print_json(const struct tg_facts *f, struct tg_err *err);

#endif
