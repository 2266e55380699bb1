/* The tensors that a pickle of PyTorch describes. */
#ifndef TG_FORMATS_TORCH_READ_H
#define TG_FORMATS_TORCH_READ_H

#include "formats/torch.h"
#include "formats/zip.h"

struct tg_torch_storage {
    const char *key; /* borrowed from the pickle, not terminated */
    size_t key_len;
    size_t elements, bytes;
    int what;            /* global of its class: TG_TORCH_UNTYPED or TG_TORCH_STORAGE + dtype */
    const uint8_t *data; /* NULL: in a deflated entry */
    const struct tg_zip_entry *entry; /* NULL: in a file without a zip */
};

/* Strides of a tensor that does not lie in its file as it is. */
struct tg_torch_view {
    void *owner; /* given to tg_torch_tensors */
    const struct tg_torch_storage *storage;
    size_t offset; /* elements, as strides */
    size_t stride[TG_MAX_RANK];
};

struct tg_torch_text {
    const char *key, *value;
};

struct tg_torch_source {
    const char *file; /* for messages; borrowed */
    struct tg_pickle pickle;
    struct tg_torch_storage *storages; /* [storage_count], sorted by key */
    size_t storage_count;
    struct tg_torch_view *views;
    char *names; /* of tensors */
    struct tg_torch_text *texts;
    size_t text_count;
    char *text; /* of them */
};

/* Lists the storages that the pickle names; their data are the caller's to find. `legacy`: ids have
 * one field more. */
int tg_torch_storages(struct tg_torch_source *s, bool legacy, struct tg_err *err);
struct tg_torch_storage *tg_torch_storage_find(const struct tg_torch_source *s, const char *key,
                                               size_t len);
/* Appends the tensors, all inside their storages. Those that lie in the file as they are get
 * `data`, others `make` with a struct tg_torch_view as source. */
int tg_torch_tensors(struct tg_torch_source *s, void *owner,
                     int (*make)(const struct tg_tensor *t, size_t first, size_t count, void *dst,
                                 struct tg_err *err),
                     struct tg_tensor_list *list, struct tg_err *err);
/* Elements [first, first + count) of a view from the bytes of its storage */
void tg_torch_gather(const struct tg_tensor *t, const uint8_t *storage, size_t first, size_t count,
                     unsigned char *dst);
const char *tg_torch_meta(const struct tg_torch_source *s, const char *key);
void tg_torch_source_release(struct tg_torch_source *s);

#endif
