/* An encoder layer's parts in bf16, forward and backward, for processors with AVX-512-BF16: see fused.py, which calls them.
 *
 * Everything is built on one register tile, up to 6 rows by 64 columns of fp32 sums, fed by the processor's product of pairs of
 * bf16 values. Its right operand lies as pairs: two values that are summed over share a word. Texts lie end to end, without padding.
 * Sums, softmax, norms and activations are fp32. Matrices are row-major; a row of tokens' states is `width` values.
 */

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t bf16;
typedef uint32_t pair;

#define INLINE static inline __attribute__((always_inline))
#define UP(n, to) (((n) + (to) - 1) / (to) * (to))
#define ROWS 6     /* of a tile: 24 of the 32 registers hold sums */
#define COLUMNS 64 /* of a tile */

INLINE __m512 load(const bf16 *x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)x)), 16));
}

/* Have M rows of 64 values on their way to the cache: a product takes about as long as they do. */
INLINE void fetch(const int M, const bf16 *x, long ldx) {
    for (int m = 0; m < M; m++) {
        _mm_prefetch((const char *)(x + m * ldx), _MM_HINT_T0);
        _mm_prefetch((const char *)(x + m * ldx + 32), _MM_HINT_T0);
    }
}

INLINE void store(bf16 *to, __m512 x) { _mm256_storeu_si256((void *)to, (__m256i)_mm512_cvtneps_pbh(x)); }

/* Two rows of 16 values, one below the other. */
INLINE __m512i stacked(__m256i above, __m256i below) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(above), _mm512_slli_epi32(_mm512_cvtepu16_epi32(below), 16));
}

/* sum (M, 16 V) += a b, over `pairs`: pair p of row m of a is a[m * by_row + p * by_pair], and b is (pairs, ldb). */
INLINE void accumulate(const int M, const int V, __m512 sum[ROWS][4], const pair *a, long by_row, long by_pair, const pair *b, long ldb,
                       long pairs) {
    for (long p = 0; p < pairs; p++) {
        __m512i right[4];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) right[v] = _mm512_loadu_si512(b + p * ldb + 16 * v);
#pragma GCC unroll 6
        for (int m = 0; m < M; m++) {
            __m512bh left = (__m512bh)_mm512_set1_epi32((int)a[m * by_row + p * by_pair]);
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sum[m][v] = _mm512_dpbf16_ps(sum[m][v], left, (__m512bh)right[v]);
        }
    }
}

INLINE void tile(const int M, const int V, const pair *a, long by_row, long by_pair, const pair *b, long ldb, long pairs, float *c, long ldc,
                 const int add) {
    __m512 sum[ROWS][4];
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sum[m][v] = add ? _mm512_loadu_ps(c + m * ldc + 16 * v) : _mm512_setzero_ps();
    accumulate(M, V, sum, a, by_row, by_pair, b, ldb, pairs);
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) _mm512_storeu_ps(c + m * ldc + 16 * v, sum[m][v]);
}

INLINE void band(const int M, const pair *a, long by_row, long by_pair, const pair *b, long ldb, long pairs, float *c, long ldc, long columns,
                 const int add) {
    long n = 0;
    for (; n + 64 <= columns; n += 64) tile(M, 4, a, by_row, by_pair, b + n, ldb, pairs, c + n, ldc, add);
    if (n + 32 <= columns) tile(M, 2, a, by_row, by_pair, b + n, ldb, pairs, c + n, ldc, add), n += 32;
    if (n < columns) tile(M, 1, a, by_row, by_pair, b + n, ldb, pairs, c + n, ldc, add);
}

/* c (rows, columns) = a b, or += a b. columns: a multiple of 16. */
static void product(long rows, const pair *a, long by_row, long by_pair, const pair *b, long ldb, long pairs, float *c, long ldc,
                    long columns, int add) {
    long m = 0;
#define BAND(M, ADD) band(M, a + m * by_row, by_row, by_pair, b, ldb, pairs, c + m * ldc, ldc, columns, ADD)
    if (add) {
        for (; m + ROWS <= rows; m += ROWS) BAND(ROWS, 1);
        for (; m + 2 <= rows; m += 2) BAND(2, 1);
        if (m < rows) BAND(1, 1);
    } else {
        for (; m + ROWS <= rows; m += ROWS) BAND(ROWS, 0);
        for (; m + 2 <= rows; m += 2) BAND(2, 0);
        if (m < rows) BAND(1, 0);
    }
#undef BAND
}

/* Rows of bf16 → pairs of one row below the other, (rows / 2, columns); zeros below where rows is odd. */
static void pair_rows(const bf16 *x, long ldx, long rows, long columns, pair *to, long ldt) {
    for (long r = 0; r < rows; r += 2)
        for (long c = 0; c < columns; c += 16) {
            __m256i above = _mm256_loadu_si256((const void *)(x + r * ldx + c)), below = _mm256_setzero_si256();
            if (r + 1 < rows) below = _mm256_loadu_si256((const void *)(x + (r + 1) * ldx + c));
            _mm512_storeu_si512(to + r / 2 * ldt + c, stacked(above, below));
        }
}

/* Rows of bf16 → the transpose of their pairs of neighbours, (columns / 2, rows); zeros from `rows` to a multiple of 16. */
static void pair_columns(const bf16 *x, long ldx, long rows, long columns, pair *to, long ldt) {
    for (long r = 0; r < rows; r += 16)
        for (long c = 0; c < columns; c += 32) {
            __m512i a[16], b[16]; /* 16 rows of 16 pairs, transposed in four steps */
            __mmask16 inside = columns - c >= 32 ? 0xffff : 0xff;
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                a[i] = r + i < rows ? _mm512_maskz_loadu_epi32(inside, x + (r + i) * ldx + c) : _mm512_setzero_si512();
#pragma GCC unroll 8
            for (int i = 0; i < 16; i += 2) {
                b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
                b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
            }
#pragma GCC unroll 4
            for (int i = 0; i < 16; i += 4) {
                a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
                a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
                a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
                a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
            }
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
                b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
                b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
                b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
            }
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                a[i] = _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88);
                a[i + 8] = _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd);
            }
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                if (c + 2 * i < columns) _mm512_storeu_si512(to + (c / 2 + i) * ldt + r, a[i]);
        }
}

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

/* A (rank, inputs) and B (outputs, rank) of `Adapters`, fp32 → its pairs. */
int adapter_pairs(const float *a, const float *b, long rank, long inputs, long outputs, pair *thin, pair *up, pair *wide, pair *down) {
    return both_pairs(a, rank, inputs, down, thin) || both_pairs(b, outputs, rank, wide, up);
}

/* 2 to the power x, for x ≤ 0: a polynomial (Taylor's) on [-½, ½], within 3e-6. */
INLINE __m512 power_of_2(__m512 x) {
    __m512 whole = _mm512_roundscale_ps(x, 8), rest = _mm512_sub_ps(x, whole), y = _mm512_set1_ps(1.33335581e-3f);
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(9.61812910e-3f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(5.55041087e-2f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(2.40226507e-1f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(6.93147181e-1f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}

/* Return gelu(x) = x Φ(x), and its derivative Φ(x) + x φ(x). Φ by Abramowitz and Stegun 1964, 7.1.26, within 1e-7. */
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

/* The adapters of one map: together `rank` low-rank columns, a multiple of 16. The map's outputs are `blocks` of equal size, query, key and
 * value or one alone, and block b's adapter has the columns first[b] to first[b + 1], even numbers; it may have none. A and B have the
 * scales of dropout and LoRA in them. mask, which may be null: dropout's, row places[t] for token t, where what is zero is dropped. */
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

/* (rows, columns) of x, zero where row places[r] of mask is. */
static void masked(const bf16 *x, long ldx, long rows, long columns, const bf16 *mask, const int *places, bf16 *to) {
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c += 16) {
            __m256i drawn = _mm256_loadu_si256((const void *)(mask + places[r] * ldx + c));
            __m256i values = _mm256_maskz_loadu_epi16(_mm256_test_epi16_mask(drawn, drawn), x + r * ldx + c);
            _mm256_storeu_si256((void *)(to + r * columns + c), values);
        }
}

/* low (rows, rank) = (mask ∘ x) thin, for x (rows, inputs) in `blocks`, each for its own columns of thin (inputs / 2, rank). */
static int narrow(const bf16 *x, long rows, long inputs, const bf16 *mask, const int *places, const pair *thin, long rank, long blocks,
                  const int *first, bf16 *low) {
    enum { SOME = 4 * ROWS };
    float *sums = aligned_alloc(64, UP(SOME * (sizeof(float) * rank + sizeof(bf16) * inputs), 64));
    if (!sums) return 1;
    bf16 *kept = (bf16 *)(sums + SOME * rank);
    long half = inputs / blocks / 2;
    for (long r = 0; r < rows; r += SOME) {
        long some = rows - r < SOME ? rows - r : SOME;
        const bf16 *from = x + r * inputs;
        if (mask) masked(from, inputs, some, inputs, mask, places + r, kept), from = kept;
        memset(sums, 0, sizeof(float) * some * rank);
        for (long b = 0; b < blocks; b++) {
            long n = first[b] / 16 * 16, until = UP(first[b + 1], 16);
            if (first[b] < first[b + 1])
                product(some, (const pair *)from + b * half, inputs / 2, 1, thin + b * half * rank + n, rank, half, sums + n, rank, until - n, 1);
        }
        for (long i = 0; i < some * rank; i += 16) store(low + r * rank + i, _mm512_loadu_ps(sums + i));
    }
    free(sums);
    return 0;
}

/* out (rank, inputs / blocks) fp32 = lowᵀ (mask ∘ x): for low (rows, rank), of which each of x's blocks has its own columns. */
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

/* The next M rows of `linear`, in 64 columns; low and up begin where these columns' adapter does, of `ranks` columns. */
INLINE void linear_tile(const int M, const bf16 *x, long inputs, const pair *weight, const bf16 *bias, const bf16 *low, long rank, long ranks,
                        const pair *up, bf16 *y, bf16 *slope, long outputs, const int gelu) {
    __m512 sum[ROWS][4];
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) sum[m][v] = load(weight ? bias + 16 * v : y + m * outputs + 16 * v);
    if (weight) accumulate(M, 4, sum, (const pair *)x, inputs / 2, 1, weight, COLUMNS, inputs / 2);
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

/* y = x Wᵀ + bias and what the adapters add, through GELU if asked, whose derivative goes to `slope` where that is given.
 * x: (rows, inputs); weight: W (outputs, inputs) as (outputs / 64, inputs / 2, 64) pairs, or null: then y holds x Wᵀ + bias already;
 * adapters: or null; low: (rows, rank), their low-rank product; y, slope: (rows, outputs). Inputs and outputs: multiples of 64. */
int linear(const bf16 *x, long rows, long inputs, const pair *weight, const bf16 *bias, const Adapters *adapters, bf16 *low, bf16 *y,
           bf16 *slope, long outputs, int gelu) {
    long rank = 0;
    if (adapters) {
        const int all[] = {0, rank = adapters->rank};
        if (narrow(x, rows, inputs, adapters->mask, adapters->places, adapters->thin, rank, 1, all, low)) return 1;
    }
    for (long n = 0; n < outputs; n += COLUMNS) {
        long b = adapters ? n / (outputs / adapters->blocks) : 0, begin = adapters ? adapters->first[b] : 0;
        long ranks = adapters ? adapters->first[b + 1] - begin : 0, m = 0;
        const pair *columns = weight ? weight + n * (inputs / 2) : NULL, *up = adapters ? adapters->up + begin / 2 * outputs + n : NULL;
#define TILE(M, GELU) \
    linear_tile(M, x + m * inputs, inputs, columns, bias + n, low + m * rank + begin, rank, ranks, up, y + m * outputs + n, \
                slope ? slope + m * outputs + n : NULL, outputs, GELU)
#define TILES(GELU) \
    for (; m + ROWS <= rows; m += ROWS) TILE(ROWS, GELU); \
    for (; m + 2 <= rows; m += 2) TILE(2, GELU); \
    if (m < rows) TILE(1, GELU)
        if (gelu) { TILES(1); } else { TILES(0); }
    }
    return 0;
}

/* The next M rows of `linear_backward`, in 64 columns. */
INLINE void linear_backward_tile(const int M, const bf16 *dy, long outputs, const pair *weight, const bf16 *low, long rank, const pair *down,
                                 const bf16 *mask, const int *places, const bf16 *slope, const bf16 *more, bf16 *dx, long inputs) {
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
                __m256i drawn = _mm256_loadu_si256((const void *)(mask + places[m] * inputs + 16 * v));
                sum[m][v] = _mm512_maskz_mov_ps(_mm256_test_epi16_mask(drawn, drawn), sum[m][v]);
            }
    if (weight) accumulate(M, 4, sum, (const pair *)dy, outputs / 2, 1, weight, COLUMNS, outputs / 2);
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            if (!weight) sum[m][v] = _mm512_add_ps(sum[m][v], load(dx + m * inputs + 16 * v));
            if (more) sum[m][v] = _mm512_add_ps(sum[m][v], load(more + m * inputs + 16 * v));
            if (slope) sum[m][v] = _mm512_mul_ps(sum[m][v], load(slope + m * inputs + 16 * v));
            store(dx + m * inputs + 16 * v, sum[m][v]);
        }
}

/* The gradients of `linear` from dy (rows, outputs), as it was before GELU.
 * dx = (dy W + what comes through the adapters + more) ∘ slope, where slope is the derivative that x went through before; dx may be null,
 * and more and slope. weight: W (outputs, inputs) as it is, or null: then dx holds dy W already. back: (rows, rank), dy's low-rank product.
 * With adapters, whose x and low are `linear`'s: da (rank, inputs) is A's gradient without dropout's scale, db (rank, outputs / blocks)
 * Bᵀ's without LoRA's, both fp32. Inputs and outputs: multiples of 64. */
int linear_backward(const bf16 *dy, long rows, long outputs, const bf16 *weight, const Adapters *adapters, const bf16 *x, const bf16 *low,
                    bf16 *back, float *da, float *db, const bf16 *slope, const bf16 *more, bf16 *dx, long inputs) {
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
    pair *columns = weight ? aligned_alloc(64, sizeof(pair) * outputs / 2 * COLUMNS) : NULL;
    if (weight && !columns) return 1;
    for (long n = 0; n < inputs; n += COLUMNS) {
        if (weight) pair_rows(weight + n, inputs, outputs, COLUMNS, columns, COLUMNS);
        long m = 0;
#define BACK(M) \
    linear_backward_tile(M, dy + m * outputs, outputs, columns, back + m * rank, rank, down + n, mask ? mask + n : NULL, places + m, \
                         slope ? slope + m * inputs + n : NULL, more ? more + m * inputs + n : NULL, dx + m * inputs + n, inputs)
        for (; m + ROWS <= rows; m += ROWS) BACK(ROWS);
        for (; m + 2 <= rows; m += 2) BACK(2);
        if (m < rows) BACK(1);
    }
    free(columns);
    return 0;
}

/* y = norm(x + residual) of every row, and x becomes that sum normalised, before weight and bias; rstd: (rows,), 1 / its deviation. */
int add_norm(bf16 *x, const bf16 *residual, const float *weight, const float *bias, float eps, long rows, long width, bf16 *y, float *rstd) {
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
    return 0;
}

/* The gradient of `add_norm` to x, and to residual, written over x; dy: (rows, width). */
int add_norm_backward(const bf16 *dy, bf16 *x, const float *weight, const float *rstd, long rows, long width) {
    for (long r = 0; r < rows; r++, dy += width, x += width) {
        __m512 sum = _mm512_setzero_ps(), along = sum;
        for (long c = 0; c < width; c += 16) {
            __m512 g = _mm512_mul_ps(load(dy + c), _mm512_loadu_ps(weight + c));
            sum = _mm512_add_ps(sum, g);
            along = _mm512_fmadd_ps(g, load(x + c), along);
        }
        __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width), slope = _mm512_set1_ps(_mm512_reduce_add_ps(along) / width);
        for (long c = 0; c < width; c += 16) {
            __m512 g = _mm512_sub_ps(_mm512_mul_ps(load(dy + c), _mm512_loadu_ps(weight + c)), mean);
            store(x + c, _mm512_mul_ps(_mm512_set1_ps(rstd[r]), _mm512_fnmadd_ps(load(x + c), slope, g)));
        }
    }
    return 0;
}

#define QUERIES 60 /* whose scores are at hand at once */

static long longest(const int *starts, long texts) {
    long most = 0;
    for (long i = 0; i < texts; i++) most = starts[i + 1] - starts[i] > most ? starts[i + 1] - starts[i] : most;
    return most;
}

/* scores → 2^(scores · factor - top), zero beyond `length`; returns their sum. */
INLINE float exponentials(float *scores, long length, float factor, float top) {
    __m512 sum = _mm512_setzero_ps();
    for (long c = 0; c < length; c += 16) {
        __m512 e = power_of_2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + c), _mm512_set1_ps(factor), _mm512_set1_ps(top)));
        e = _mm512_maskz_mov_ps(length - c >= 16 ? 0xffff : 0xffff >> (16 - (length - c)), e);
        _mm512_storeu_ps(scores + c, e);
        sum = _mm512_add_ps(sum, e);
    }
    return _mm512_reduce_add_ps(sum);
}

/* Scores (queries, padded) → weights, softmax(scores · scale) in bf16 pairs of neighbours; logsums: log₂ of each query's sum. */
static void softmax(float *scores, long queries, long length, long padded, float scale, bf16 *weights, float *logsums, long ldl) {
    float factor = scale * 1.44269504f;
    for (long q = 0; q < queries; q++, scores += padded, weights += padded) {
        __m512 most = _mm512_set1_ps(-INFINITY);
        for (long c = 0; c < length; c += 16)
            most = _mm512_mask_max_ps(most, length - c >= 16 ? 0xffff : 0xffff >> (16 - (length - c)), most, _mm512_loadu_ps(scores + c));
        float top = _mm512_reduce_max_ps(most) * factor, sum = exponentials(scores, length, factor, top);
        logsums[q * ldl] = top + log2f(sum);
        for (long c = 0; c < padded; c += 16) store(weights + c, _mm512_mul_ps(_mm512_loadu_ps(scores + c), _mm512_set1_ps(1.0f / sum)));
    }
}

/* softmax(Q Kᵀ · scale) V of every head (Vaswani et al. 2017). qkv: (tokens, 3 heads · size), Q, K and V side by side; text i's tokens are
 * starts[i] to starts[i + 1]. first: how many queries of each text are asked for, 0 for all. context: (queries, heads · size), text after
 * text; logsums: (queries, heads) fp32, for the way back. size: a multiple of 16. */
int attention(const bf16 *qkv, const int *starts, long texts, long heads, long size, float scale, long first, bf16 *context, float *logsums) {
    long width = heads * size, ldx = 3 * width, most = UP(longest(starts, texts), 16);
    float *scores = aligned_alloc(64, UP(sizeof(float) * QUERIES * (most + size) + sizeof(bf16) * QUERIES * most + sizeof(pair) * most * size, 64));
    if (!scores) return 1;
    float *found = scores + QUERIES * most;
    pair *keys = (pair *)(found + QUERIES * size), *values = keys + size / 2 * most;
    bf16 *weights = (bf16 *)(values + most / 2 * size);
    for (long i = 0; i < texts; i++) {
        long length = starts[i + 1] - starts[i], padded = UP(length, 16), queries = first && first < length ? first : length;
        for (long h = 0; h < heads; h++) {
            const bf16 *query = qkv + starts[i] * ldx + h * size;
            pair_columns(query + width, ldx, length, size, keys, padded);
            pair_rows(query + 2 * width, ldx, length, size, values, size);
            for (long q = 0; q < queries; q += QUERIES) {
                long some = queries - q < QUERIES ? queries - q : QUERIES;
                product(some, (const pair *)(query + q * ldx), ldx / 2, 1, keys, padded, size / 2, scores, padded, padded, 0);
                softmax(scores, some, length, padded, scale, weights, logsums + q * heads + h, heads);
                product(some, (const pair *)weights, padded / 2, 1, values, size, (length + 1) / 2, found, size, size, 0);
                for (long m = 0; m < some; m++)
                    for (long c = 0; c < size; c += 16) store(context + (q + m) * width + h * size + c, _mm512_loadu_ps(found + m * size + c));
            }
        }
        context += queries * width, logsums += queries * heads;
    }
    free(scores);
    return 0;
}

/* From two queries' scores and their gradients through V: weights, and the gradients of the scores, both paired one query below the other,
 * and the latter as rows as well. `below`: there is a second query. */
INLINE void softmax_backward(float *scores, float *slopes, int below, long length, long padded, float scale, const float *logsums, long ldl,
                             pair *weights, pair *moves, bf16 *rows) {
    float along[2] = {0, 0};
    for (int k = 0; k < 1 + below; k++) {
        __m512 sum = _mm512_setzero_ps();
        exponentials(scores + k * padded, length, scale * 1.44269504f, logsums[k * ldl]);
        for (long c = 0; c < padded; c += 16)
            sum = _mm512_fmadd_ps(_mm512_loadu_ps(scores + k * padded + c), _mm512_loadu_ps(slopes + k * padded + c), sum);
        along[k] = _mm512_reduce_add_ps(sum);
    }
    for (long c = 0; c < padded; c += 16) {
        __m256i weight[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()}, move[2] = {weight[0], weight[0]};
        for (int k = 0; k < 1 + below; k++) {
            __m512 w = _mm512_loadu_ps(scores + k * padded + c), s = _mm512_sub_ps(_mm512_loadu_ps(slopes + k * padded + c), _mm512_set1_ps(along[k]));
            weight[k] = (__m256i)_mm512_cvtneps_pbh(w);
            move[k] = (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_mul_ps(w, s), _mm512_set1_ps(scale)));
            _mm256_storeu_si256((void *)(rows + k * padded + c), move[k]);
        }
        _mm512_storeu_si512(weights + c, stacked(weight[0], weight[1]));
        _mm512_storeu_si512(moves + c, stacked(move[0], move[1]));
    }
}

/* The gradient of `attention` to qkv, from dc to context; of queries that were not asked for it is zero. */
int attention_backward(const bf16 *qkv, const int *starts, long texts, long heads, long size, float scale, long first, const float *logsums,
                       const bf16 *dc, bf16 *back) {
    long width = heads * size, ldx = 3 * width, most = UP(longest(starts, texts), 16), half = QUERIES / 2;
    long floats = 2 * QUERIES * most + QUERIES * size + 2 * most * size, pairs = 3 * (most / 2 * size) + 2 * half * size + 3 * half * most;
    float *scores = aligned_alloc(64, UP(sizeof(float) * floats + sizeof(pair) * pairs, 64));
    if (!scores) return 1;
    float *slopes = scores + QUERIES * most, *dq = slopes + QUERIES * most, *dk = dq + QUERIES * size, *dv = dk + most * size;
    pair *keys = (pair *)(dv + most * size), *values = keys + size / 2 * most, *keys_below = values + size / 2 * most;
    pair *queries_below = keys_below + most / 2 * size, *dc_below = queries_below + half * size;
    pair *weights = dc_below + half * size, *moves = weights + half * most;
    bf16 *rows = (bf16 *)(moves + half * most);
    for (long i = 0; i < texts; i++) {
        long length = starts[i + 1] - starts[i], padded = UP(length, 16), queries = first && first < length ? first : length;
        for (long h = 0; h < heads; h++) {
            const bf16 *query = qkv + starts[i] * ldx + h * size;
            bf16 *to = back + starts[i] * ldx + h * size;
            pair_columns(query + width, ldx, length, size, keys, padded);
            pair_columns(query + 2 * width, ldx, length, size, values, padded);
            pair_rows(query + width, ldx, length, size, keys_below, size);
            for (long q = 0; q < queries; q += QUERIES) {
                long some = queries - q < QUERIES ? queries - q : QUERIES;
                const bf16 *given = dc + q * width + h * size;
                product(some, (const pair *)(query + q * ldx), ldx / 2, 1, keys, padded, size / 2, scores, padded, padded, 0);
                product(some, (const pair *)given, width / 2, 1, values, padded, size / 2, slopes, padded, padded, 0);
                for (long m = 0; m < some; m += 2)
                    softmax_backward(scores + m * padded, slopes + m * padded, m + 1 < some, length, padded, scale,
                                     logsums + (q + m) * heads + h, heads, weights + m / 2 * padded, moves + m / 2 * padded, rows + m * padded);
                pair_rows(query + q * ldx, ldx, some, size, queries_below, size);
                pair_rows(given, width, some, size, dc_below, size);
                product(some, (const pair *)rows, padded / 2, 1, keys_below, size, (length + 1) / 2, dq, size, size, 0);
                product(length, moves, 1, padded, queries_below, size, (some + 1) / 2, dk, size, size, q > 0);
                product(length, weights, 1, padded, dc_below, size, (some + 1) / 2, dv, size, size, q > 0);
                for (long m = 0; m < some; m++)
                    for (long c = 0; c < size; c += 16) store(to + (q + m) * ldx + c, _mm512_loadu_ps(dq + m * size + c));
            }
            for (long m = queries; m < length; m++) memset(to + m * ldx, 0, sizeof(bf16) * size);
            for (long m = 0; m < length; m++)
                for (long c = 0; c < size; c += 16) {
                    store(to + m * ldx + width + c, _mm512_loadu_ps(dk + m * size + c));
                    store(to + m * ldx + 2 * width + c, _mm512_loadu_ps(dv + m * size + c));
                }
        }
        dc += queries * width, logsums += queries * heads;
    }
    free(scores);
    return 0;
}
