/* What the files of the torch format share: the names of PyTorch that stand in its pickles, and the
 * writer's half of the row. */
#ifndef TG_FORMATS_TORCH_H
#define TG_FORMATS_TORCH_H

#include "formats/format.h"
#include "formats/pickle.h"

enum tg_torch_kind {                  /* `what` of the globals */
                     TG_TORCH_DATA,   /* makes no tensor: its calls are left as they are */
                     TG_TORCH_SIZE,   /* torch.Size */
                     TG_TORCH_CLASS,  /* torch.Tensor, Parameter: named as a type, not made directly
                                       */
                     TG_TORCH_TENSOR, /* (storage, offset, size, stride) */
                     TG_TORCH_TENSOR_V2, /* and (requires_grad, hooks[, metadata]) */
                     TG_TORCH_TENSOR_V3, /* and (requires_grad, hooks, dtype[, metadata]), storage
                                            untyped */
                     TG_TORCH_PARAMETER, /* (tensor, requires_grad, hooks[, state]) */
                     TG_TORCH_FROM_TYPE, /* (function, type, its arguments, state) */
                     TG_TORCH_REFUSED,   /* makes a tensor that Tegu does not know */
                     TG_TORCH_UNTYPED,   /* storage of bytes */
                     TG_TORCH_OTHER_STORAGE,
                     TG_TORCH_OTHER_DTYPE,
                     TG_TORCH_STORAGE,                                   /* + enum tg_dtype */
                     TG_TORCH_DTYPE = TG_TORCH_STORAGE + TG_DTYPE_COUNT, /* + enum tg_dtype */
};
extern const struct tg_pickle_global tg_torch_globals[];

/* The name of a type in the module torch: of its storage class ("FloatStorage") if it has one; else
 * storage is false and it is that of the dtype ("float8_e5m2"), whose data lie in an untyped
 * storage. NULL: PyTorch has no such type. */
const char *tg_torch_name(enum tg_dtype t, bool *storage);

bool tg_torch_holds(enum tg_dtype t);
int tg_torch_begin(struct tg_format_out *f, struct tg_err *err);
int tg_torch_before(struct tg_format_out *f, size_t i, struct tg_err *err);
int tg_torch_write(struct tg_format_out *f, const void *bytes, size_t n, struct tg_err *err);
int tg_torch_after(struct tg_format_out *f, size_t i, struct tg_err *err);
int tg_torch_end(struct tg_format_out *f, struct tg_err *err);
void tg_torch_close(struct tg_format_out *f);

#endif
