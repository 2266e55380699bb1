/* The one table of a model's parameters, derived from its spec in a fixed order:
 *
 *   embed.weight, pos.weight, embed_in.weight; per layer l the norms that its residual kind has
 *   (norm_in, norm_mixer_out, norm_mlp, norm_mlp_out: .weight unless bare, .bias if the model's
 *   norms have one), mixer.*, then the mlp; norm_out; embed_out.weight; head.weight unless tied,
 *   head.bias.
 *
 *   dense mlp:  mlp.{gate,up,down}.{weight,bias}; PLAIN has no gate
 *   experts:    moe.router.{weight [E,D],bias [E]}, moe.correction [E], moe.{gate,up}.weight
 * [E,M,D], moe.down.weight [E,D,M], their .bias [E,M], [E,M], [E,D]; moe.shared.{gate,up,down}
 *               .weight, moe.shared_gate.weight [1,D] */
#ifndef TG_CONVERT_PARAMS_H
#define TG_CONVERT_PARAMS_H

#include "convert/spec.h"

struct tg_param {
    char name[80];     /* canonical: "layers.3.mixer.q.weight" */
    int layer;         /* -1 outside layers */
    const char *local; /* "q.weight" for mixer parameters: the rule's name; NULL otherwise */
    int rank;
    int64_t shape[4];
    size_t count;  /* elements */
    size_t offset; /* floats from the start of the parameter block; multiple of 16 */
    bool is_mixer; /* belongs to a mixer */
    bool is_new;   /* a mixer parameter that the softmax layer does not have (rule flag) */
    bool decays;   /* weight decay applies (rank >= 2) */
};
struct tg_param_list {
    struct tg_param *items; /* owned */
    size_t count;
    size_t floats; /* of the whole block */
};
int tg_params_of(const struct tg_model_spec *spec, struct tg_param_list *list, struct tg_err *err);
void tg_params_release(struct tg_param_list *list);
const struct tg_param *tg_params_find(const struct tg_param_list *list,
                                      const char *name); /* NULL if absent */

#endif
