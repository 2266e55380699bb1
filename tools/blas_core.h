#ifndef TG_TOOLS_BLAS_CORE_H
#define TG_TOOLS_BLAS_CORE_H

/* The first call of a main(): OpenBLAS chooses its core while it is loaded, so a better one takes a
 * new start of the program, and this does not return. A user's own OPENBLAS_CORETYPE stays; where
 * no new start is possible the old core serves. */
void tg_choose_blas_core(char **argv);

#endif
