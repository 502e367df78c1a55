/* The base of the kernels: one register tile, and matrices as pairs.
 *
 * A tile is up to 6 rows by 64 columns of fp32 sums, computed with the CPU's product of pairs of bf16 values (AVX-512-BF16). Its
 * right operand consists of pairs: two neighbours along the summed dimension share a word. Sums, softmax, norms and activations are
 * fp32. Matrices are row-major. Texts are concatenated without padding, and a token's states are a row.
 */

#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t bf16;
typedef uint32_t pair;

#define INLINE static inline __attribute__((always_inline))
#define UP(n, to) (((n) + (to) - 1) / (to) * (to))
#define ROWS 6     /* of a tile: sums take 24 of the 32 registers */
#define COLUMNS 64 /* of a tile */

INLINE __m512 load(const bf16 *x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)x)), 16));
}

/* Prefetch M rows of 64 values: loading them takes about as long as a product. */
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
INLINE void accumulate(const int M, const int V, __m512 sum[ROWS][4], const pair *a, long by_row, long by_pair, const pair *b,
                       long ldb, long pairs) {
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

INLINE void tile(const int M, const int V, const pair *a, long by_row, long by_pair, const pair *b, long ldb, long pairs, float *c,
                 long ldc, const int add) {
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

INLINE void band(const int M, const pair *a, long by_row, long by_pair, const pair *b, long ldb, long pairs, float *c, long ldc,
                 long columns, const int add) {
    long n = 0;
    for (; n + 64 <= columns; n += 64) tile(M, 4, a, by_row, by_pair, b + n, ldb, pairs, c + n, ldc, add);
    if (n + 32 <= columns) tile(M, 2, a, by_row, by_pair, b + n, ldb, pairs, c + n, ldc, add), n += 32;
    if (n < columns) tile(M, 1, a, by_row, by_pair, b + n, ldb, pairs, c + n, ldc, add);
}

/* c (rows, columns) = a b, or += a b. columns: a multiple of 16. */
static inline void product(long rows, const pair *a, long by_row, long by_pair, const pair *b, long ldb, long pairs, float *c,
                           long ldc, long columns, int add) {
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

/* Rows of bf16 → pairs of one row below the other, (rows / 2, columns); an odd last row is paired with zeros. */
static inline void pair_rows(const bf16 *x, long ldx, long rows, long columns, pair *to, long ldt) {
    for (long r = 0; r < rows; r += 2)
        for (long c = 0; c < columns; c += 16) {
            __m256i above = _mm256_loadu_si256((const void *)(x + r * ldx + c)), below = _mm256_setzero_si256();
            if (r + 1 < rows) below = _mm256_loadu_si256((const void *)(x + (r + 1) * ldx + c));
            _mm512_storeu_si512(to + r / 2 * ldt + c, stacked(above, below));
        }
}

/* Rows of bf16 → the transpose of their pairs of neighbours, (columns / 2, rows); zeros from `rows` to a multiple of 16. */
static inline void pair_columns(const bf16 *x, long ldx, long rows, long columns, pair *to, long ldt) {
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
