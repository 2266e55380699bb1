/* Models of flash-linear-attention: what their reading and their writing share. */
#ifndef TG_CONVERT_FAMILIES_FLA_H
#define TG_CONVERT_FAMILIES_FLA_H

#include "convert/family.h"

/* Of whichever type: layouts say which layers a rule is for. The first is another spelling, which
 * is read but not written. */
enum { TG_FLA_READ_ONLY = 1 };
extern const struct tg_name_rule tg_fla_names[];

/* What the code fixes and no config says: the rank of GLA's gate, the largest head that RetNet
 * rotates and by which theta, the epsilon of HGRN2's norm */
enum { TG_FLA_GLA_RANK = 16, TG_FLA_RETNET_MOST = 256, TG_FLA_RETNET_THETA = 10000 };
#define TG_FLA_HGRN2_EPS 1e-5

#endif
