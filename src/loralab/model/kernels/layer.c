/* One encoder layer, forward and backward. fused_layers.py calls these functions. */

#include "kernels.h"

/* The adapter of one role, in fp32: a (rank, inputs), b (outputs of the role, rank), and their gradients da and db, null if they
 * are not trained. */
typedef struct {
    const float *a, *b;
    float *da, *db;
    long rank;
    float scale;
} Adapter;

/* A linear map of `roles` of equal size, with the total rank of its adapters (a multiple of 16, 0 for none) and its buffers.
 * weight: (outputs, inputs); panels: the same, packed for `linear`; keep: dropout's scale; mask, places: see `Adapters`.
 * pairs: space for (inputs + outputs) · rank; low: for (rows, rank); x: the map's input, for the backward pass. */
typedef struct {
    const bf16 *weight;
    const pair *panels;
    const bf16 *bias;
    long inputs, outputs, roles, rank;
    Adapter adapters[3];
    float keep;
    const bf16 *mask;
    const int *places;
    pair *pairs;
    bf16 *low;
    const bf16 *x;
} Map;

/* A layer and its buffers. texts: their number; starts: see `attention`; first_only: 1 if the layer returns only the first token of
 * each text. Rows are tokens, or with first_only texts after attention. Buffers for the backward pass: qkv (tokens, 3 width),
 * logsums (rows, heads), normal and normal_out (rows, width), deviations (rows,), slope (rows, ffn) or null. Temporary buffers,
 * unless they are the x of a map: context, attended (rows, width), inner (rows, ffn). */
typedef struct {
    Map qkv, output, ffn_in, ffn_out;
    const float *weight, *bias, *weight_out, *bias_out;
    float eps, eps_out;
    long heads, texts, tokens, first_only;
    const int *starts;
    bf16 *qkv_states;
    float *logsums;
    bf16 *normal, *normal_out, *slope;
    float *deviations, *deviations_out;
    bf16 *context, *attended, *inner;
} Layer;

/* The adapters in the layout of `linear`; with `fill` they are packed from their weights first. */
static int adapters_of(const Map *map, Adapters *to, int fill) {
    long rank = map->rank, inputs = map->inputs, outputs = map->outputs, size = outputs / map->roles;
    pair *thin = map->pairs, *up = thin + inputs / 2 * rank, *wide = up + outputs / 2 * rank, *down = wide + outputs / 2 * rank;
    *to = (Adapters){rank, map->roles, {0}, thin, up, wide, down, map->mask, map->places};
    for (long r = 0; r < map->roles; r++) to->first[r + 1] = to->first[r] + UP(map->adapters[r].rank, 2);
    if (!fill) return 0;
    float *a = calloc(rank * (inputs + outputs), sizeof(float)), *b = a + rank * inputs;
    if (!a) return 1;
    for (long r = 0; r < map->roles; r++) {
        const Adapter *adapter = map->adapters + r;
        for (long i = 0; i < adapter->rank * inputs; i++) a[to->first[r] * inputs + i] = adapter->a[i] * map->keep;
        for (long o = 0; o < size && adapter->rank; o++)
            for (long i = 0; i < adapter->rank; i++)
                b[(r * size + o) * rank + to->first[r] + i] = adapter->b[o * adapter->rank + i] * adapter->scale;
    }
    int failed = adapter_pairs(a, b, rank, inputs, outputs, thin, up, wide, down);
    free(a);
    return failed;
}

/* `linear` of a map. */
static int forward(const Map *map, const bf16 *x, long rows, bf16 *y, bf16 *slope, int gelu) {
    Adapters adapters;
    if (map->rank && adapters_of(map, &adapters, 1)) return 1;
    return linear(x, rows, map->inputs, map->panels, map->bias, map->rank ? &adapters : NULL, map->low, y, slope, map->outputs,
                  gelu);
}

/* `linear_backward` of a map, with the gradients of its trained adapters. */
static int backward(const Map *map, const bf16 *dy, long rows, const bf16 *slope, const bf16 *more, bf16 *dx) {
    long rank = map->rank, inputs = map->inputs, size = map->outputs / map->roles;
    if (!rank)
        return linear_backward(dy, rows, map->outputs, map->weight, NULL, NULL, NULL, NULL, NULL, NULL, slope, more, dx, inputs);
    Adapters adapters;
    adapters_of(map, &adapters, 0);
    float *da = malloc(sizeof(float) * rank * (inputs + size) + sizeof(bf16) * rows * rank), *db = da + rank * inputs;
    if (!da) return 1;
    int failed = linear_backward(dy, rows, map->outputs, map->weight, &adapters, map->x, map->low, (bf16 *)(db + rank * size), da,
                                 db, slope, more, dx, inputs);
    for (long r = 0; r < map->roles && !failed; r++) {
        const Adapter *adapter = map->adapters + r;
        long first = adapters.first[r];
        if (!adapter->rank || !adapter->da) continue;
        for (long i = 0; i < adapter->rank * inputs; i++) adapter->da[i] = da[first * inputs + i] * map->keep;
        for (long o = 0; o < size; o++)
            for (long i = 0; i < adapter->rank; i++)
                adapter->db[o * adapter->rank + i] = db[(first + i) * size + o] * adapter->scale;
    }
    free(da);
    return failed;
}

/* x (tokens, width) → y (rows, width). */
int layer(const Layer *l, const bf16 *x, bf16 *y) {
    long width = l->qkv.inputs, rows = l->first_only ? l->texts : l->tokens, size = width / l->heads;
    if (forward(&l->qkv, x, l->tokens, l->qkv_states, NULL, 0) ||
        attention(l->qkv_states, l->starts, l->texts, l->heads, size, 1 / sqrtf(size), l->first_only, l->context, l->logsums) ||
        forward(&l->output, l->context, rows, l->normal, NULL, 0))
        return 1;
    const bf16 *residual = x;
    if (l->first_only) { /* y is free until the end */
        for (long i = 0; i < rows; i++) memcpy(y + i * width, x + l->starts[i] * width, sizeof(bf16) * width);
        residual = y;
    }
    add_norm(l->normal, residual, l->weight, l->bias, l->eps, rows, width, l->attended, l->deviations);
    if (forward(&l->ffn_in, l->attended, rows, l->inner, l->slope, 1) ||
        forward(&l->ffn_out, l->inner, rows, l->normal_out, NULL, 0))
        return 1;
    add_norm(l->normal_out, l->attended, l->weight_out, l->bias_out, l->eps_out, rows, width, y, l->deviations_out);
    return 0;
}

/* The gradients of `layer`, from d_y: those of the adapters, and d_x of x (tokens, width) unless it is null. workspace: for
 * (tokens, 5 width + ffn) values. normal and normal_out are overwritten. */
int layer_backward(const Layer *l, const bf16 *d_y, bf16 *d_x, bf16 *workspace) {
    long width = l->qkv.inputs, rows = l->first_only ? l->texts : l->tokens, size = width / l->heads;
    bf16 *d_inner = workspace, *d_attended = d_inner + rows * l->ffn_in.outputs, *d_context = d_attended + rows * width;
    bf16 *d_qkv = d_context + rows * width;
    add_norm_backward(d_y, l->normal_out, l->weight_out, l->deviations_out, rows, width);
    if (backward(&l->ffn_out, l->normal_out, rows, l->slope, NULL, d_inner) ||
        backward(&l->ffn_in, d_inner, rows, NULL, l->normal_out, d_attended))
        return 1;
    add_norm_backward(d_attended, l->normal, l->weight, l->deviations, rows, width);
    if (backward(&l->output, l->normal, rows, NULL, NULL, d_context) ||
        attention_backward(l->qkv_states, l->starts, l->texts, l->heads, size, 1 / sqrtf(size), l->first_only, l->logsums,
                           d_context, d_qkv) ||
        backward(&l->qkv, d_qkv, l->tokens, NULL, l->first_only ? NULL : l->normal, d_x))
        return 1;
    for (long i = 0; l->first_only && d_x && i < rows; i++)
        for (long c = 0; c < width; c += 16) {
            bf16 *to = d_x + l->starts[i] * width + c;
            store(to, _mm512_add_ps(load(to), load(l->normal + i * width + c)));
        }
    return 0;
}
