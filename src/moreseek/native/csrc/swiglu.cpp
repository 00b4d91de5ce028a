// SwiGLU, y = (silu(x·Gᵀ) · x·Uᵀ)·Dᵀ, for one dense layer and for routed experts; twins: swiglu.py and moe.py.
#include "gemm.h"

static constexpr i64 CHUNK_VALUES = 1 << 18; // gate and up of one chunk: 1 MB

static inline i64 chunk_of(i64 inner) {
    i64 rows = CHUNK_VALUES / (2 * inner);
    return rows < 64 ? 64 : rows;
}

static inline void activate_row(const float *gate, const float *up, float *out, i64 inner) {
    for (i64 i = 0; i < inner; i++) out[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

// In: the activation's gradient in `act`. Out: the activation itself in `act`, gate's and up's gradients in `dgu`.
static inline void activate_row_backward(const float *gate, const float *up, float *act, float *dgu, i64 inner) {
    for (i64 i = 0; i < inner; i++) {
        float s = sigmoid(gate[i]), silu = gate[i] * s, d = act[i];
        act[i] = silu * up[i];
        dgu[i] = d * up[i] * (s + silu * (1.0f - s));
        dgu[inner + i] = d * silu;
    }
}

static void forward_rows(const float *x, const Right &gate_up, const Right &down, float *hidden, float *y,
                         i64 rows, i64 inner) {
    float *act = scratch(1, rows * inner);
    gate_up.product(rows, x, hidden);
    for (i64 r = 0; r < rows; r++) {
        const float *gate = hidden + r * 2 * inner;
        activate_row(gate, gate + inner, act + r * inner, inner);
    }
    down.product(rows, act, y);
}

static void backward_rows(const float *grad, const float *x, const Right &gate_up, const Right &down,
                          const float *hidden, float *dx, float *dgate_up, float *ddown, bool add, i64 rows, i64 size,
                          i64 inner) {
    float *act = scratch(1, rows * inner), *dgu = scratch(2, rows * 2 * inner);
    down.product(rows, grad, act);
    for (i64 r = 0; r < rows; r++) {
        const float *gate = hidden + r * 2 * inner;
        activate_row_backward(gate, gate + inner, act + r * inner, dgu + r * 2 * inner, inner);
    }
    add_turned(size, inner, rows, grad, act, add, ddown);
    add_turned(2 * inner, size, rows, dgu, x, add, dgate_up);
    gate_up.product(rows, dgu, dx);
}

// x (n, size), gate_up (2·inner, size) gate rows first, down (size, inner) → hidden (n, 2·inner), y (n, size).
extern "C" void native_swiglu(const float *x, const float *gate_up, const float *down, float *hidden, float *y, i64 n,
                              i64 size, i64 inner, int threads) {
    i64 chunk = chunk_of(inner);
    Right gate_up_t(gate_up, true, size, 2 * inner, n, 7), down_t(down, true, inner, size, n, 8);
    parallel_parts(n, worth(n, 6 * size * inner, threads), [&](int, i64 low, i64 high) {
        for (i64 r = low; r < high; r += chunk) {
            i64 rows = r + chunk < high ? chunk : high - r;
            forward_rows(x + r * size, gate_up_t, down_t, hidden + r * 2 * inner, y + r * size, rows, inner);
        }
    });
}

extern "C" void native_swiglu_backward(const float *grad, const float *x, const float *gate_up, const float *down,
                                       const float *hidden, float *dx, float *dgate_up, float *ddown, i64 n, i64 size,
                                       i64 inner, int threads) {
    i64 chunk = chunk_of(inner), matrix = inner * size;
    int parts = worth(n, 12 * size * inner, threads);
    if (n == 0) {
        memset(dgate_up, 0, 8 * matrix);
        memset(ddown, 0, 4 * matrix);
    }
    float *partial_gate_up = scratch(3, (parts - 1) * 2 * matrix), *partial_down = scratch(4, (parts - 1) * matrix);
    Right right_gate_up(gate_up, false, 2 * inner, size, n, 7), right_down(down, false, size, inner, n, 8);
    parallel_parts(n, parts, [&](int part, i64 low, i64 high) {
        float *dg = part ? partial_gate_up + (part - 1) * 2 * matrix : dgate_up;
        float *dd = part ? partial_down + (part - 1) * matrix : ddown;
        for (i64 r = low; r < high; r += chunk) {
            i64 rows = r + chunk < high ? chunk : high - r;
            backward_rows(grad + r * size, x + r * size, right_gate_up, right_down, hidden + r * 2 * inner,
                          dx + r * size, dg, dd, r > low, rows, size, inner);
        }
    });
    add_partials(dgate_up, partial_gate_up, 2 * matrix, parts, threads);
    add_partials(ddown, partial_down, matrix, parts, threads);
}

// Slots: a token's k-th choice is slot token·K + k; `order` lists the slots expert by expert, bounds (E + 1) where
// each expert begins, and `place` is the inverse. hidden and y lie in that order.
extern "C" void native_sort_slots(const i64 *chosen, i64 slots, i64 experts, i64 *order, i64 *place, i64 *bounds) {
    for (i64 e = 0; e <= experts; e++) bounds[e] = 0;
    for (i64 s = 0; s < slots; s++) bounds[chosen[s] + 1]++;
    for (i64 e = 0; e < experts; e++) bounds[e + 1] += bounds[e];
    std::vector<i64> next(bounds, bounds + experts);
    for (i64 s = 0; s < slots; s++) {
        i64 at = next[chosen[s]]++;
        order[at] = s;
        place[s] = at;
    }
}

static inline void combine(const float *rows, const i64 *place, const float *weights, float *out, i64 n, i64 top_k,
                           i64 size, int threads) {
    parallel_parts(n, worth(n, 4 * top_k * size, threads), [&](int, i64 low, i64 high) {
        for (i64 t = low; t < high; t++) {
            float *o = out + t * size;
            for (i64 k = 0; k < top_k; k++) {
                const float *row = rows + place[t * top_k + k] * size;
                float w = weights ? weights[t * top_k + k] : 1.0f;
                if (k == 0)
                    for (i64 i = 0; i < size; i++) o[i] = w * row[i];
                else
                    for (i64 i = 0; i < size; i++) o[i] += w * row[i];
            }
        }
    });
}

// x (n, size), weights (n, K) → hidden (n·K, 2·inner), y (n·K, size), out (n, size).
extern "C" void native_experts(const float *x, const float *weights, const i64 *order, const i64 *place,
                               const i64 *bounds, const float *gate_up, const float *down, float *hidden, float *y,
                               float *out, i64 n, i64 top_k, i64 experts, i64 size, i64 inner, int threads) {
    i64 chunk = chunk_of(inner), matrix = inner * size;
    parallel(experts, worth(n * top_k, 6 * matrix, threads), [&](i64 e) {
        float *gathered = scratch(5, chunk * size);
        i64 load = bounds[e + 1] - bounds[e];
        Right gate_up_t(gate_up + e * 2 * matrix, true, size, 2 * inner, load, 7);
        Right down_t(down + e * matrix, true, inner, size, load, 8);
        for (i64 r = bounds[e]; r < bounds[e + 1]; r += chunk) {
            i64 rows = r + chunk < bounds[e + 1] ? chunk : bounds[e + 1] - r;
            for (i64 i = 0; i < rows; i++) memcpy(gathered + i * size, x + order[r + i] / top_k * size, size * 4);
            forward_rows(gathered, gate_up_t, down_t, hidden + r * 2 * inner, y + r * size, rows, inner);
        }
    });
    combine(y, place, weights, out, n, top_k, size, threads);
}

// dslots (n·K, size) is room for each slot's share of dx.
extern "C" void native_experts_backward(const float *grad, const float *x, const float *weights, const i64 *order,
                                        const i64 *place, const i64 *bounds, const float *gate_up, const float *down,
                                        const float *hidden, const float *y, float *dx, float *dweights,
                                        float *dgate_up, float *ddown, float *dslots, i64 n, i64 top_k, i64 experts,
                                        i64 size, i64 inner, int threads) {
    i64 chunk = chunk_of(inner), matrix = inner * size;
    parallel(experts, worth(n * top_k, 12 * matrix, threads), [&](i64 e) {
        float *gathered = scratch(5, chunk * size), *weighted = scratch(6, chunk * size);
        i64 load = bounds[e + 1] - bounds[e];
        if (load == 0) {
            memset(dgate_up + e * 2 * matrix, 0, 8 * matrix);
            memset(ddown + e * matrix, 0, 4 * matrix);
        }
        Right right_gate_up(gate_up + e * 2 * matrix, false, 2 * inner, size, load, 7);
        Right right_down(down + e * matrix, false, size, inner, load, 8);
        for (i64 r = bounds[e]; r < bounds[e + 1]; r += chunk) {
            i64 rows = r + chunk < bounds[e + 1] ? chunk : bounds[e + 1] - r;
            for (i64 i = 0; i < rows; i++) {
                i64 slot = order[r + i], token = slot / top_k;
                const float *g = grad + token * size, *out = y + (r + i) * size;
                float *to = weighted + i * size, w = weights[slot], dot = 0.0f;
#pragma omp simd reduction(+ : dot)
                for (i64 j = 0; j < size; j++) {
                    to[j] = w * g[j];
                    dot += g[j] * out[j];
                }
                dweights[slot] = dot;
                memcpy(gathered + i * size, x + token * size, size * 4);
            }
            backward_rows(weighted, gathered, right_gate_up, right_down, hidden + r * 2 * inner,
                          dslots + r * size, dgate_up + e * 2 * matrix, ddown + e * matrix, r > bounds[e], rows, size,
                          inner);
        }
    });
    combine(dslots, place, nullptr, dx, n, top_k, size, threads);
}
