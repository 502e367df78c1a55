/* Linear maps with adapters and GELU, and norms of sums, forward and backward, for layer.c. */

#include "kernels.h"

/* An fp32 matrix (rows, columns) as pairs of both kinds: below (rows / 2, columns), across (columns / 2, rows). Multiples of 16. */
static int both_pairs(const float *x, long rows, long columns, pair *below, pair *across) {
    bf16 *rounded = aligned_alloc(64, UP(sizeof(bf16) * rows * columns, 64));
    if (!rounded) return 1;
    for (long i = 0; i < rows * columns; i += 16) store(rounded + i, _mm512_loadu_ps(x + i));
    pair_rows(rounded, columns, rows, columns, below, columns);
    pair_columns(rounded, columns, rows, columns, across, rows);
    free(rounded);
    return 0;
}

/* A (rank, inputs) and B (outputs, rank) in fp32 → the pairs of `Adapters`. */
int adapter_pairs(const float *a, const float *b, long rank, long inputs, long outputs, pair *thin, pair *up, pair *wide,
                  pair *down) {
    return both_pairs(a, rank, inputs, down, thin) || both_pairs(b, outputs, rank, wide, up);
}

/* Return gelu(x) = x Φ(x) and its derivative Φ(x) + x φ(x). Φ is approximated within 1e-7: Abramowitz and Stegun 1964, 7.1.26. */
INLINE __m512 gelu_and_slope(__m512 x, __m512 *slope) {
    __m512 one = _mm512_set1_ps(1.0f), size = _mm512_abs_ps(x);
    __m512 bell = power_of_2(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.721347520f))); /* exp(-x² / 2) */
    __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(size, _mm512_set1_ps(0.231641888f), one));
    __m512 y = _mm512_set1_ps(0.530702714f);
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-0.726576013f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.710706871f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-0.142248368f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.127414796f));
    __m512 tail = _mm512_mul_ps(_mm512_mul_ps(y, t), bell); /* Φ(-|x|) */
    __m512 phi = _mm512_mask_sub_ps(tail, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ), one, tail);
    *slope = _mm512_fmadd_ps(_mm512_mul_ps(x, bell), _mm512_set1_ps(0.398942280f), phi);
    return _mm512_mul_ps(x, phi);
}

/* (rows, columns) of x, zero wherever row places[r] of the mask is zero. */
static void masked(const bf16 *x, long ldx, long rows, long columns, const bf16 *mask, const int *places, bf16 *to) {
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c += 16) {
            __m256i mask_values = _mm256_loadu_si256((const void *)(mask + places[r] * ldx + c));
            __m256i values = _mm256_maskz_loadu_epi16(_mm256_test_epi16_mask(mask_values, mask_values), x + r * ldx + c);
            _mm256_storeu_si256((void *)(to + r * columns + c), values);
        }
}

/* low (rows, rank) = (mask ∘ x) thin, for x (rows, inputs). Each of x's `blocks` has its own columns of thin (inputs / 2, rank). */
static int narrow(const bf16 *x, long rows, long inputs, const bf16 *mask, const int *places, const pair *thin, long rank,
                  long blocks, const int *first, bf16 *low) {
    enum { BLOCK_ROWS = 4 * ROWS };
    float *sums = aligned_alloc(64, UP(BLOCK_ROWS * (sizeof(float) * rank + sizeof(bf16) * inputs), 64));
    if (!sums) return 1;
    bf16 *kept = (bf16 *)(sums + BLOCK_ROWS * rank);
    long half = inputs / blocks / 2;
    for (long r = 0; r < rows; r += BLOCK_ROWS) {
        long count = rows - r < BLOCK_ROWS ? rows - r : BLOCK_ROWS;
        const bf16 *from = x + r * inputs;
        if (mask) masked(from, inputs, count, inputs, mask, places + r, kept), from = kept;
        memset(sums, 0, sizeof(float) * count * rank);
        for (long b = 0; b < blocks; b++) {
            long n = first[b] / 16 * 16, until = UP(first[b + 1], 16);
            if (first[b] < first[b + 1])
                product(count, (const pair *)from + b * half, inputs / 2, 1, thin + b * half * rank + n, rank, half, sums + n, rank,
                        until - n, 1);
        }
        for (long i = 0; i < count * rank; i += 16) store(low + r * rank + i, _mm512_loadu_ps(sums + i));
    }
    free(sums);
    return 0;
}

/* out (rank, inputs / blocks) fp32 = lowᵀ (mask ∘ x), for low (rows, rank). Each of x's blocks has its own columns of low. */
static int outer(const bf16 *low, long rank, long blocks, const int *first, const bf16 *x, long rows, long inputs, const bf16 *mask,
                 const int *places, float *out) {
    long half = (rows + 1) / 2, width = inputs / blocks;
    pair *left = aligned_alloc(64, UP(sizeof(pair) * half * (rank + COLUMNS) + sizeof(bf16) * rows * COLUMNS, 64));
    if (!left) return 1;
    pair *right = left + half * rank;
    bf16 *kept = (bf16 *)(right + half * COLUMNS);
    pair_rows(low, rank, rows, rank, left, rank);
    for (long n = 0; n < inputs; n += COLUMNS) {
        long b = n / width, ranks = first[b + 1] - first[b];
        if (!ranks) continue;
        if (mask) masked(x + n, inputs, rows, COLUMNS, mask + n, places, kept);
        pair_rows(mask ? kept : x + n, mask ? COLUMNS : inputs, rows, COLUMNS, right, COLUMNS);
        product(ranks, left + first[b], 1, rank, right, COLUMNS, half, out + first[b] * width + n % width, width, COLUMNS, 0);
    }
    free(left);
    return 0;
}

/* M rows of `linear`, in 64 columns; low and up start at the `ranks` columns of these columns' adapter. */
INLINE void linear_tile(const int M, const bf16 *x, long inputs, const pair *weight, const bf16 *bias, const bf16 *low, long rank,
                        long ranks, const pair *up, bf16 *y, bf16 *slope, long outputs, const int gelu) {
    __m512 sum[ROWS][4];
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) sum[m][v] = load(bias + 16 * v);
    accumulate(M, 4, sum, (const pair *)x, inputs / 2, 1, weight, COLUMNS, inputs / 2);
    accumulate(M, 4, sum, (const pair *)low, rank / 2, 1, up, outputs, ranks / 2);
    float kept[ROWS][COLUMNS];
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++)
            if (gelu) _mm512_storeu_ps(kept[m] + 16 * v, sum[m][v]);
            else store(y + m * outputs + 16 * v, sum[m][v]);
    if (gelu)
        for (int m = 0; m < M; m++)
            for (int v = 0; v < 4; v++) {
                __m512 derivative;
                store(y + m * outputs + 16 * v, gelu_and_slope(_mm512_loadu_ps(kept[m] + 16 * v), &derivative));
                if (slope) store(slope + m * outputs + 16 * v, derivative);
            }
}

/* y = x Wᵀ + bias + adapters, followed by GELU if `gelu`, whose derivative is written to `slope` unless it is null.
 * x: (rows, inputs); weight: W (outputs, inputs) as (outputs / 64, inputs / 2, 64) pairs; adapters: may be null; low: (rows, rank),
 * their low-rank product; y, slope: (rows, outputs). Inputs and outputs: multiples of 64. */
int linear(const bf16 *x, long rows, long inputs, const pair *weight, const bf16 *bias, const Adapters *adapters, bf16 *low,
           bf16 *y, bf16 *slope, long outputs, int gelu) {
    long rank = 0;
    if (adapters) {
        const int all[] = {0, rank = adapters->rank};
        if (narrow(x, rows, inputs, adapters->mask, adapters->places, adapters->thin, rank, 1, all, low)) return 1;
    }
    for (long n = 0; n < outputs; n += COLUMNS) {
        long b = adapters ? n / (outputs / adapters->blocks) : 0, begin = adapters ? adapters->first[b] : 0;
        long ranks = adapters ? adapters->first[b + 1] - begin : 0, m = 0;
        const pair *columns = weight + n * (inputs / 2), *up = adapters ? adapters->up + begin / 2 * outputs + n : NULL;
#define TILE(M, GELU) \
    linear_tile(M, x + m * inputs, inputs, columns, bias + n, low + m * rank + begin, rank, ranks, up, y + m * outputs + n, \
                slope ? slope + m * outputs + n : NULL, outputs, GELU)
#define TILES(GELU) \
    for (; m + ROWS <= rows; m += ROWS) TILE(ROWS, GELU); \
    for (; m + 2 <= rows; m += 2) TILE(2, GELU); \
    if (m < rows) TILE(1, GELU)
        if (gelu) {
            TILES(1);
        } else {
            TILES(0);
        }
    }
    return 0;
}

/* M rows of `linear_backward`, in 64 columns. */
INLINE void linear_backward_tile(const int M, const bf16 *dy, long outputs, const pair *weight, const bf16 *low, long rank,
                                 const pair *down, const bf16 *mask, const int *places, const bf16 *slope, const bf16 *more,
                                 bf16 *dx, long inputs) {
    __m512 sum[ROWS][4];
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) sum[m][v] = _mm512_setzero_ps();
    if (slope) fetch(M, slope, inputs);
    accumulate(M, 4, sum, (const pair *)low, rank / 2, 1, down, inputs, rank / 2);
    if (mask)
#pragma GCC unroll 6
        for (int m = 0; m < M; m++)
#pragma GCC unroll 4
            for (int v = 0; v < 4; v++) {
                __m256i mask_values = _mm256_loadu_si256((const void *)(mask + places[m] * inputs + 16 * v));
                sum[m][v] = _mm512_maskz_mov_ps(_mm256_test_epi16_mask(mask_values, mask_values), sum[m][v]);
            }
    accumulate(M, 4, sum, (const pair *)dy, outputs / 2, 1, weight, COLUMNS, outputs / 2);
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            if (more) sum[m][v] = _mm512_add_ps(sum[m][v], load(more + m * inputs + 16 * v));
            if (slope) sum[m][v] = _mm512_mul_ps(sum[m][v], load(slope + m * inputs + 16 * v));
            store(dx + m * inputs + 16 * v, sum[m][v]);
        }
}

/* The gradients of `linear` from dy (rows, outputs), that of the value before GELU.
 * dx = (dy W + gradient through the adapters + more) ∘ slope, where slope is the derivative of the activation that made x. dx, more
 * and slope may be null. weight: W (outputs, inputs), not packed; back: (rows, rank), dy's low-rank product. With adapters, whose x
 * and low are those of `linear`: da (rank, inputs) is A's gradient without dropout's scale, and db (rank, outputs / blocks) that of
 * Bᵀ without LoRA's scale, both fp32. Inputs and outputs: multiples of 64. */
int linear_backward(const bf16 *dy, long rows, long outputs, const bf16 *weight, const Adapters *adapters, const bf16 *x,
                    const bf16 *low, bf16 *back, float *da, float *db, const bf16 *slope, const bf16 *more, bf16 *dx, long inputs) {
    const bf16 *mask = adapters ? adapters->mask : NULL;
    const int *places = adapters ? adapters->places : NULL;
    const pair *down = adapters ? adapters->down : NULL;
    long rank = adapters ? adapters->rank : 0;
    if (adapters) {
        const int all[] = {0, rank};
        if (narrow(dy, rows, outputs, NULL, NULL, adapters->wide, rank, adapters->blocks, adapters->first, back) ||
            outer(back, rank, 1, all, x, rows, inputs, mask, places, da) ||
            outer(low, rank, adapters->blocks, adapters->first, dy, rows, outputs, NULL, NULL, db))
            return 1;
    }
    if (!dx) return 0;
    pair *columns = aligned_alloc(64, sizeof(pair) * outputs / 2 * COLUMNS);
    if (!columns) return 1;
    for (long n = 0; n < inputs; n += COLUMNS) {
        pair_rows(weight + n, inputs, outputs, COLUMNS, columns, COLUMNS);
        long m = 0;
#define BACK(M) \
    linear_backward_tile(M, dy + m * outputs, outputs, columns, back + m * rank, rank, down + n, mask ? mask + n : NULL, \
                         places + m, slope ? slope + m * inputs + n : NULL, more ? more + m * inputs + n : NULL, \
                         dx + m * inputs + n, inputs)
        for (; m + ROWS <= rows; m += ROWS) BACK(ROWS);
        for (; m + 2 <= rows; m += 2) BACK(2);
        if (m < rows) BACK(1);
    }
    free(columns);
    return 0;
}

/* y = norm(x + residual) of every row. x is overwritten by the normalized sum, before weight and bias; rstd: (rows,), 1 / its
 * standard deviation. */
void add_norm(bf16 *x, const bf16 *residual, const float *weight, const float *bias, float eps, long rows, long width, bf16 *y,
              float *rstd) {
    for (long r = 0; r < rows; r++, x += width, residual += width, y += width) {
        __m512 sum = _mm512_setzero_ps(), squares = sum;
        for (long c = 0; c < width; c += 16) sum = _mm512_add_ps(sum, _mm512_add_ps(load(x + c), load(residual + c)));
        __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
        for (long c = 0; c < width; c += 16) {
            __m512 v = _mm512_sub_ps(_mm512_add_ps(load(x + c), load(residual + c)), mean);
            squares = _mm512_fmadd_ps(v, v, squares);
        }
        rstd[r] = 1.0f / sqrtf(_mm512_reduce_add_ps(squares) / width + eps);
        __m512 by = _mm512_set1_ps(rstd[r]);
        for (long c = 0; c < width; c += 16) {
            __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_add_ps(load(x + c), load(residual + c)), mean), by);
            store(x + c, v);
            store(y + c, _mm512_fmadd_ps(v, _mm512_loadu_ps(weight + c), _mm512_loadu_ps(bias + c)));
        }
    }
}

/* The gradient of `add_norm` with respect to x and to residual, which are equal, overwrites x; dy: (rows, width). */
void add_norm_backward(const bf16 *dy, bf16 *x, const float *weight, const float *rstd, long rows, long width) {
    for (long r = 0; r < rows; r++, dy += width, x += width) {
        __m512 sum = _mm512_setzero_ps(), along = sum;
        for (long c = 0; c < width; c += 16) {
            __m512 g = _mm512_mul_ps(load(dy + c), _mm512_loadu_ps(weight + c));
            sum = _mm512_add_ps(sum, g);
            along = _mm512_fmadd_ps(g, load(x + c), along);
        }
        __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width),
               slope = _mm512_set1_ps(_mm512_reduce_add_ps(along) / width);
        for (long c = 0; c < width; c += 16) {
            __m512 g = _mm512_sub_ps(_mm512_mul_ps(load(dy + c), _mm512_loadu_ps(weight + c)), mean);
            store(x + c, _mm512_mul_ps(_mm512_set1_ps(rstd[r]), _mm512_fnmadd_ps(load(x + c), slope, g)));
        }
    }
}
