// The model as the engine's step reads it: packed weights, and a cache cut into blocks. Filled by native/step.py.
#pragma once
#include "common.h"
#include <type_traits>

constexpr i64 PANEL = 64;                  // outputs of a packed matrix that stand together,
constexpr i64 SLICE = MAX_VECTORS * LANES; // and those of them whose weights a tile reads in one go
constexpr i64 BLOCK = 16; // tokens of a cache block

enum Format : i64 { FLOATS, HALVES, BYTES };

struct Matrix { // y = x · Wᵀ + bias
    const void *panels; // FLOATS: (ceil(outputs / PANEL), PANEL / SLICE, inputs, SLICE), zero beyond the last output;
    const float *scales; // HALVES: see bf16.cpp; BYTES, which have scales: see quantised.cpp
    const float *bias;
    i64 inputs, outputs, format;
};

// One vector of a row's outputs, from `column` on, into the row y.
static inline void store(const Matrix &w, Vec sum, i64 column, float *y, bool add) {
    i64 left = w.outputs - column;
    float *to = y + column;
    if (left >= LANES) {
        if (w.bias) sum += *(const Vec *)(w.bias + column);
        *(Vec *)to = add ? sum + *(Vec *)to : sum;
    } else
        for (i64 l = 0; l < left; l++) {
            float s = sum[l];
            if (w.bias) s += w.bias[column + l];
            to[l] = add ? s + to[l] : s;
        }
}

// How many of `left` rows the next tile takes: six at most, and no lone one behind six. Fours, whose few sums wait for
// one another, as seldom as can be.
static inline i64 tile_rows(i64 left) {
    return left >= 12 || left == 8 ? 6 : left > 6 ? (left + 1) / 2 : left;
}

// f(height, first row) for each tile of some rows; height's ::value is known to the compiler.
template <class F> static inline void for_tiles(i64 rows, F f) {
    for (i64 r = 0, take; r < rows; r += take) {
        take = tile_rows(rows - r);
        switch (take) {
        case 1: f(std::integral_constant<int, 1>(), r); break;
        case 2: f(std::integral_constant<int, 2>(), r); break;
        case 3: f(std::integral_constant<int, 3>(), r); break;
        case 4: f(std::integral_constant<int, 4>(), r); break;
        case 5: f(std::integral_constant<int, 5>(), r); break;
        default: f(std::integral_constant<int, 6>(), r);
        }
    }
}

// Have these bytes brought near while others are being worked on.
constexpr i64 LINE = 64; // bytes of a cache line
static inline void ask_for(const void *from, i64 bytes) {
    for (const char *line = (const char *)from, *end = line + bytes; line < end; line += LINE) __builtin_prefetch(line, 0, 2);
}

// Asks for the next panel while this one is multiplied: every so often in each pass over it, so much that all of it has
// been asked for in the end. AVX-512 Xeons read ahead of up to 12 rows by themselves as well; on a Zen core with AVX2 two
// to eight rows take 0.4 to 0.8 of the time with it, and one row, which reads a panel in one go, 1.5 times.
struct Ahead {
    const char *next;
    i64 share; // bytes a time

    // bytes: of the panel for each time of asking; passes: over a panel, a tile; fewest: rows that it pays for
    Ahead(const void *next, i64 bytes, i64 rows, i64 passes, i64 fewest) : next((const char *)next) {
        i64 all = (rows + 5) / 6 * passes;
        share = rows < (LANES == 16 ? 13 : fewest) ? 0 : (bytes / LINE + all - 1) / all * LINE;
    }
    void ask() {
        ask_for(next, share);
        next += share;
    }
};

struct FeedForward { // down(silu(gate(x)) · up(x)); gate rows first in gate_up
    Matrix gate_up, down;
};

struct Layer {
    const float *input_norm, *post_norm;
    Matrix qkv, out;              // MLA: qkv holds q (or its latent), the latent and the shared key
    const float *q_norm, *k_norm; // Qwen3, or null
    Matrix q_up;                  // MLA with a q latent, else without panels
    const float *q_latent_norm, *latent_norm;
    const Matrix *up_k, *up_v;    // MLA: one matrix a head, nope -> rank and rank -> value
    FeedForward dense;            // the whole feed-forward, or the shared experts; without panels: none
    const Matrix *router;         // null: no routed experts
    const float *router_bias;
    const FeedForward *experts;
    float *k_cache, *v_cache;     // (blocks, kv_heads, BLOCK, width) each; MLA: (blocks, BLOCK, width) in k_cache
};

struct Model {
    i64 layers, hidden, heads, kv_heads, head, nope, rope, value, rank, q_rank;
    i64 width, cache_block; // of a cached vector, and from a block to the next one of its layer, in floats
    i64 experts, top_k, groups, top_groups, normalise, latent; // latent: whether this is MLA
    float eps, latent_eps, scale, scaling;
    const Layer *layer;
    const void *embedding; // (vocabulary, hidden), FLOATS or HALVES
    i64 embedding_format;
    const float *norm;
    Matrix head_matrix;
    const float *embedding_norm, *state_norm; // of an MTP module,
    Matrix joint;                             // which takes norm(embedding), norm(state) in; without panels: none
};

struct Step {
    i64 tokens, rows, outputs, table_stride;
    const i64 *ids;                   // (tokens)
    const i64 *first, *count, *start; // (rows): its tokens are ids[first .. first + count), at positions start ..
    const int32_t *table;             // (rows, table_stride): its cache blocks
    const float *phases;              // (positions, rope): cos and sin, interleaved
    const i64 *output;                // (outputs): tokens whose logits are wanted
    float *hidden, *logits;           // (outputs, hidden) after the final norm, and (outputs, vocabulary)
    float *all_hidden;                // (tokens, hidden) after the final norm, or null where nobody wants them
    const float *states;              // (tokens, hidden) for an MTP module: of the token before each
};

void multiply(const Matrix &w, const float *x, i64 x_row, i64 rows, float *y, i64 y_row, bool add, int threads);
bool has_tiles(); // whether bf16 is multiplied by AMX
void multiply_bf16(const Matrix &w, const float *x, i64 x_row, i64 rows, float *y, i64 y_row, bool add, int threads);
void multiply_quantised(const Matrix &w, const float *x, i64 x_row, i64 rows, float *y, i64 y_row, bool add, int threads);
void grouped_attention(const Model &model, const Layer &layer, const Step &step, float *qkv, i64 qkv_row, float *out,
                       int threads);
void latent_attention(const Model &model, const Layer &layer, const Step &step, const float *q, i64 q_row,
                      const float *latent, i64 latent_row, float *out, int threads);
extern "C" void native_step(const Model *model, const Step *given, int threads);
