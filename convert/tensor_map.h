/* Private to convert: which stored tensors make up which parameter, proved to be a bijection. */
#ifndef TG_CONVERT_TENSOR_MAP_H
#define TG_CONVERT_TENSOR_MAP_H

#include "convert/checkpoint.h"
#include "convert/family.h"
#include "convert/scaled.h"

struct tg_tensor_map {
    struct tg_source *sources; /* by parameter, then by place in it; owned */
    size_t *first;             /* [parameters + 1]; owned */
};

/* Every tensor is a parameter or parts of some, down to its last element, or is droppable; every
 * element of every parameter comes from one place; a tied head that is stored equals the embedding.
 * `wrapped`: the text model is one of several in the checkpoint, the others' tensors are droppable.
 * `path` begins messages. */
int tg_tensor_map_make(struct tg_tensor_map *map, const struct tg_family *family, bool wrapped,
                       const struct tg_scaling *scaling, const struct tg_model_spec *spec,
                       const struct tg_param_list *params, const struct tg_tensors *tensors,
                       const char *path, struct tg_err *err);
void tg_tensor_map_release(struct tg_tensor_map *map);

#endif
