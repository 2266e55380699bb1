/* A model family: how its config.json becomes a spec and its tensor names become canonical ones.
 * One file and one row of families.def each. */
#ifndef TG_CONVERT_FAMILY_H
#define TG_CONVERT_FAMILY_H

#include "base/json.h"
#include "convert/layout.h"
#include "convert/spec.h"

/* "[model.]layers.{i}.self_attn.q_proj.weight" <-> "layers.{i}.mixer.q.weight". {i} is the layer's
 * number, {e} an expert's; a bracketed beginning may be missing in a file; a final '*' is the rest
 * of the name. A source that holds several parameters has a rule for each; a parameter that comes
 * from several sources ({e}, or the spellings of two versions) likewise. A rule whose parameter the
 * spec does not have is passed over. */
struct tg_name_rule {
    const char *source, *canonical;
    tg_layout_fn layout; /* NULL: the stored tensor is the parameter */
};

struct tg_family {
    const char *name;                 /* "llama" */
    const char *const *types;         /* model_type values, NULL-terminated */
    const struct tg_name_rule *names; /* NULL-terminated by source == NULL */
    const char *const
        *droppable; /* patterns with '*' that may be present and are ignored; NULL-terminated */
    /* config.json (the text model's part of it) -> spec; spec is zeroed before */
    int (*read_config)(struct tg_json config, struct tg_model_spec *spec, struct tg_err *err);
};
extern const struct tg_family
    *const tg_families[]; /* NULL-terminated, in the order of families.def */

#endif
