/* A model family: how its config.json becomes a spec and its tensor names become canonical ones.
 * One file and one row of families.def each. */
#ifndef TG_CONVERT_FAMILY_H
#define TG_CONVERT_FAMILY_H

#include "base/json.h"
#include "convert/spec.h"

/* "[model.]layers.{i}.self_attn.q_proj.weight" <-> "layers.{i}.mixer.q.weight". {i} is the layer's
 * number; a bracketed beginning may be missing in a file; a final '*' is the rest of the name. */
struct tg_name_rule {
    const char *source, *canonical;
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

/* The rows themselves, each in families/<name>.c */
#define TG_FAMILY(name) extern const struct tg_family tg_family_##name;
#include "convert/families.def"
#undef TG_FAMILY

#endif
