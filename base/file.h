/* Files: read-only mappings, whole-file reads, atomic outputs, directories. */
#ifndef TG_BASE_FILE_H
#define TG_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct tg_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
};
int tg_map_open(struct tg_map *m, const char *path, struct tg_err *err); /* regular files only */
void tg_map_close(struct tg_map *m); /* accepts a zeroed struct */
/* Hints about n bytes inside a mapping: they are needed now; they are not needed any more, so that
 * a long pass over a large file does not fill the process's memory. */
void tg_map_fetch(const void *from, size_t n);
void tg_map_forget(const void *from, size_t n);

/* Whole file, NUL-terminated, caller frees; error above `max` bytes. */
int tg_file_read(const char *path, size_t max, char **text, size_t *len, struct tg_err *err);

/* Atomic file output: written as PATH.tmp, renamed by _commit after fsync. _close without _commit
 * removes the temporary. */
struct tg_out;
int tg_out_open(struct tg_out **o, const char *path, struct tg_err *err);
int tg_out_write(struct tg_out *o, const void *bytes, size_t n, struct tg_err *err); /* buffered */
int tg_out_commit(struct tg_out *o, struct tg_err *err);
void tg_out_close(struct tg_out *o); /* NULL allowed; after _commit only frees */
int tg_file_write(const char *path, const void *bytes, size_t n,
                  struct tg_err *err); /* the three above in one */

/* Renames a file within a file system; an existing `to` is replaced. */
int tg_file_move(const char *from, const char *to, struct tg_err *err);

/* Paths. tg_path_join's result is the caller's. */
char *tg_path_join(const char *dir, const char *name);
const char *tg_path_base(const char *path); /* part after the last '/', borrowed */
bool tg_path_exists(const char *path);
bool tg_path_is_dir(const char *path);
int tg_dir_make(const char *path, struct tg_err *err);   /* with parents; existing is fine */
int tg_dir_remove(const char *path, struct tg_err *err); /* recursively; missing is fine */
/* Names of the regular files in a directory, sorted; caller frees with tg_names_free. */
int tg_dir_list(const char *path, char ***names, size_t *count, struct tg_err *err);
void tg_names_free(char **names, size_t count);

/* Atomic directory output: the caller fills TMP ("PATH.tmp", made empty here); _commit renames it
 * to PATH. With `force` an existing PATH is replaced (its old content is removed only after the new
 * one is in place), else TG_ERR_EXISTS at _begin. */
int tg_dir_begin(const char *path, bool force, char **tmp, struct tg_err *err);
int tg_dir_commit(const char *tmp, const char *path, struct tg_err *err);

/* SHA-256 of a file, of several as if they were one, or of bytes: 64 hex digits and NUL. */
int tg_sha256_files(const char *const *paths, size_t count, char hex[65], struct tg_err *err);
int tg_sha256_file(const char *path, char hex[65], struct tg_err *err);
void tg_sha256(const void *bytes, size_t n, char hex[65]);

#endif
