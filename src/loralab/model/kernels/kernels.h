/* The functions that the C files share. Each is documented at its definition. */

#pragma once

#include "tiles.h"

/* The adapters of one map, with `rank` low-rank columns in total, a multiple of 16. The map's outputs are `blocks` of equal size:
 * query, key and value, or one. Block b's adapter has the columns first[b] to first[b + 1], which are even; it may have none. A and
 * B include the scales of dropout and LoRA. mask: the dropout mask, or null; token t uses row places[t], and zeros are dropped. */
typedef struct {
    long rank, blocks;
    int first[4];
    const pair *thin; /* A for x: (inputs / 2, rank) */
    const pair *up;   /* B for its low-rank product: (rank / 2, outputs) */
    const pair *wide; /* B for the gradient: (outputs / 2, rank) */
    const pair *down; /* A for the gradient's low-rank product: (rank / 2, inputs) */
    const bf16 *mask;
    const int *places;
} Adapters;

int adapter_pairs(const float *a, const float *b, long rank, long inputs, long outputs, pair *thin, pair *up, pair *wide,
                  pair *down);
int linear(const bf16 *x, long rows, long inputs, const pair *weight, const bf16 *bias, const Adapters *adapters, bf16 *low,
           bf16 *y, bf16 *slope, long outputs, int gelu);
int linear_backward(const bf16 *dy, long rows, long outputs, const bf16 *weight, const Adapters *adapters, const bf16 *x,
                    const bf16 *low, bf16 *back, float *da, float *db, const bf16 *slope, const bf16 *more, bf16 *dx, long inputs);
void add_norm(bf16 *x, const bf16 *residual, const float *weight, const float *bias, float eps, long rows, long width, bf16 *y,
              float *rstd);
void add_norm_backward(const bf16 *dy, bf16 *x, const float *weight, const float *rstd, long rows, long width);
int attention(const bf16 *qkv, const int *starts, long texts, long heads, long size, float scale, long first, bf16 *context,
              float *logsums);
int attention_backward(const bf16 *qkv, const int *starts, long texts, long heads, long size, float scale, long first,
                       const float *logsums, const bf16 *dc, bf16 *back);
