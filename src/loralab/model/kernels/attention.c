/* Attention, forward and backward, for layer.c. */

#include "kernels.h"

#define QUERIES 60 /* per block of scores */

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
            most = _mm512_mask_max_ps(most, length - c >= 16 ? 0xffff : 0xffff >> (16 - (length - c)), most,
                                      _mm512_loadu_ps(scores + c));
        float top = _mm512_reduce_max_ps(most) * factor, sum = exponentials(scores, length, factor, top);
        logsums[q * ldl] = top + log2f(sum);
        for (long c = 0; c < padded; c += 16)
            store(weights + c, _mm512_mul_ps(_mm512_loadu_ps(scores + c), _mm512_set1_ps(1.0f / sum)));
    }
}

/* softmax(Q Kᵀ · scale) V of every head (Vaswani et al. 2017). qkv: (tokens, 3 heads · size), Q, K and V concatenated; text i has
 * the tokens starts[i] to starts[i + 1]. first: number of queries of each text, 0 for all. context: (queries, heads · size), one
 * text after another; logsums: (queries, heads) fp32, for the backward pass. size: a multiple of 16. */
int attention(const bf16 *qkv, const int *starts, long texts, long heads, long size, float scale, long first, bf16 *context,
              float *logsums) {
    long width = heads * size, ldx = 3 * width, most = UP(longest(starts, texts), 16);
    float *scores = aligned_alloc(
        64, UP(sizeof(float) * QUERIES * (most + size) + sizeof(bf16) * QUERIES * most + sizeof(pair) * most * size, 64));
    if (!scores) return 1;
    float *sums = scores + QUERIES * most;
    pair *keys = (pair *)(sums + QUERIES * size), *values = keys + size / 2 * most;
    bf16 *weights = (bf16 *)(values + most / 2 * size);
    for (long i = 0; i < texts; i++) {
        long length = starts[i + 1] - starts[i], padded = UP(length, 16), queries = first && first < length ? first : length;
        for (long h = 0; h < heads; h++) {
            const bf16 *query = qkv + starts[i] * ldx + h * size;
            pair_columns(query + width, ldx, length, size, keys, padded);
            pair_rows(query + 2 * width, ldx, length, size, values, size);
            for (long q = 0; q < queries; q += QUERIES) {
                long count = queries - q < QUERIES ? queries - q : QUERIES;
                product(count, (const pair *)(query + q * ldx), ldx / 2, 1, keys, padded, size / 2, scores, padded, padded, 0);
                softmax(scores, count, length, padded, scale, weights, logsums + q * heads + h, heads);
                product(count, (const pair *)weights, padded / 2, 1, values, size, (length + 1) / 2, sums, size, size, 0);
                for (long m = 0; m < count; m++)
                    for (long c = 0; c < size; c += 16)
                        store(context + (q + m) * width + h * size + c, _mm512_loadu_ps(sums + m * size + c));
            }
        }
        context += queries * width, logsums += queries * heads;
    }
    free(scores);
    return 0;
}

/* From two queries' scores and their gradients through V: the weights and the gradients of the scores (moves), both as pairs of one
 * query below the other, and the gradients also as rows. `below`: there is a second query. */
INLINE void softmax_backward(float *scores, float *slopes, int below, long length, long padded, float scale, const float *logsums,
                             long ldl, pair *weights, pair *moves, bf16 *rows) {
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
            __m512 w = _mm512_loadu_ps(scores + k * padded + c),
                   s = _mm512_sub_ps(_mm512_loadu_ps(slopes + k * padded + c), _mm512_set1_ps(along[k]));
            weight[k] = (__m256i)_mm512_cvtneps_pbh(w);
            move[k] = (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_mul_ps(w, s), _mm512_set1_ps(scale)));
            _mm256_storeu_si256((void *)(rows + k * padded + c), move[k]);
        }
        _mm512_storeu_si512(weights + c, stacked(weight[0], weight[1]));
        _mm512_storeu_si512(moves + c, stacked(move[0], move[1]));
    }
}

/* The gradient of `attention` with respect to qkv, from dc of context. That of queries that were left out is zero. */
int attention_backward(const bf16 *qkv, const int *starts, long texts, long heads, long size, float scale, long first,
                       const float *logsums, const bf16 *dc, bf16 *back) {
    long width = heads * size, ldx = 3 * width, most = UP(longest(starts, texts), 16), half = QUERIES / 2;
    long floats = 2 * QUERIES * most + QUERIES * size + 2 * most * size,
         pairs = 3 * (most / 2 * size) + 2 * half * size + 3 * half * most;
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
                long count = queries - q < QUERIES ? queries - q : QUERIES;
                const bf16 *dc_head = dc + q * width + h * size;
                product(count, (const pair *)(query + q * ldx), ldx / 2, 1, keys, padded, size / 2, scores, padded, padded, 0);
                product(count, (const pair *)dc_head, width / 2, 1, values, padded, size / 2, slopes, padded, padded, 0);
                for (long m = 0; m < count; m += 2)
                    softmax_backward(scores + m * padded, slopes + m * padded, m + 1 < count, length, padded, scale,
                                     logsums + (q + m) * heads + h, heads, weights + m / 2 * padded, moves + m / 2 * padded,
                                     rows + m * padded);
                pair_rows(query + q * ldx, ldx, count, size, queries_below, size);
                pair_rows(dc_head, width, count, size, dc_below, size);
                product(count, (const pair *)rows, padded / 2, 1, keys_below, size, (length + 1) / 2, dq, size, size, 0);
                product(length, moves, 1, padded, queries_below, size, (count + 1) / 2, dk, size, size, q > 0);
                product(length, weights, 1, padded, dc_below, size, (count + 1) / 2, dv, size, size, q > 0);
                for (long m = 0; m < count; m++)
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
