// Attention of a step's new tokens to the cached blocks of their sequences. Sums run in an order that only a token's
// position decides; twins: the torch path of model/attention.py.
#include "step.h"

static inline void turned(const float *in, const float *phase, float *out, i64 rope) {
    for (i64 i = 0; i < rope; i += 2) {
        float c = phase[i], s = phase[i + 1], a = in[i], b = in[i + 1];
        out[i] = a * c - b * s;
        out[i + 1] = a * s + b * c;
    }
}

// scores[t] = query · key t for a block of keys of `width` numbers, a multiple of LANES.
static inline void block_dots(const float *query, const float *keys, i64 width, float *scores) {
    for (i64 t = 0; t < BLOCK; t += LANES) {
        Vec sums[LANES];
        for (i64 l = 0; l < LANES; l++) {
            const float *key = keys + (t + l) * width;
            Vec sum = *(const Vec *)query * *(const Vec *)key;
            for (i64 i = LANES; i < width; i += LANES) sum += *(const Vec *)(query + i) * *(const Vec *)(key + i);
            sums[l] = sum;
        }
        *(Vec *)(scores + t) = sums_of(sums);
    }
}

// Softmax in place without its division: returns 1 / Σ exp. There is room for whole vectors.
static float softmax_row(float *p, i64 count) {
    i64 until = padded(count);
    for (i64 t = count; t < until; t++) p[t] = -INFINITY;
    Vec most = *(Vec *)p, sum{};
    for (i64 t = LANES; t < until; t += LANES) {
        Vec x = *(Vec *)(p + t);
        most = x > most ? x : most;
    }
    float highest = most[0];
    for (int i = 1; i < LANES; i++) highest = most[i] > highest ? most[i] : highest;
    for (i64 t = 0; t < until; t += LANES) {
        Vec e = fast_exp(*(Vec *)(p + t) - highest);
        *(Vec *)(p + t) = e;
        sum += e;
    }
    return 1.0f / sum_of(sum);
}

// out (V vectors) = factor · Σ weights[t] · value t, in four running sums by t mod 4, so that no sum waits for the last.
template <int V>
static inline void mix(const float *weights, i64 count, const float *cache, const int32_t *blocks, i64 block_step,
                       i64 width, float factor, float *out) {
    Vec sum[4][V];
    for (int s = 0; s < 4; s++)
        for (int v = 0; v < V; v++) sum[s][v] = Vec{};
    for (i64 low = 0; low < count; low += BLOCK) {
        const float *values = cache + blocks[low / BLOCK] * block_step, *w = weights + low;
        i64 here = count - low < BLOCK ? count - low : BLOCK, t = 0;
        for (; t + 4 <= here; t += 4)
            for (int s = 0; s < 4; s++)
                for (int v = 0; v < V; v++) sum[s][v] += w[t + s] * *(const Vec *)(values + (t + s) * width + v * LANES);
        for (int s = 0; t < here; t++, s++)
            for (int v = 0; v < V; v++) sum[s][v] += w[t] * *(const Vec *)(values + t * width + v * LANES);
    }
    for (int v = 0; v < V; v++) *(Vec *)(out + v * LANES) = ((sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v])) * factor;
}

static void mix_columns(const float *weights, i64 count, const float *cache, const int32_t *blocks, i64 block_step,
                        i64 width, float factor, float *out) {
    i64 c = 0;
    for (; c + 4 * LANES <= width; c += 4 * LANES)
        mix<4>(weights, count, cache + c, blocks, block_step, width, factor, out + c);
    for (; c + 2 * LANES <= width; c += 2 * LANES)
        mix<2>(weights, count, cache + c, blocks, block_step, width, factor, out + c);
    for (; c < width; c += LANES) mix<1>(weights, count, cache + c, blocks, block_step, width, factor, out + c);
}

static inline void normed(const float *x, const float *weight, float eps, i64 size, float *out) {
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (i64 i = 0; i < size; i++) squares += x[i] * x[i];
    float r = 1.0f / std::sqrt(squares / size + eps);
    for (i64 i = 0; i < size; i++) out[i] = x[i] * r * weight[i];
}

// Write the new keys and values, then attend. qkv (tokens, H + 2·Hkv, D), before norms and rope → out (tokens, H·D).
void grouped_attention(const Model &m, const Layer &layer, const Step &step, float *qkv, i64 qkv_row, float *out,
                       int threads) {
    i64 group = m.heads / m.kv_heads, block_step = m.cache_block, head = m.head;
    parallel_parts(step.rows, worth(step.rows, 20 * step.tokens / step.rows * qkv_row, threads), [&](int, i64 low, i64 high) {
        for (i64 row = low; row < high; row++)
            for (i64 t = 0; t < step.count[row]; t++) {
                i64 position = step.start[row] + t, place = position % BLOCK;
                i64 block = step.table[row * step.table_stride + position / BLOCK];
                float *from = qkv + (step.first[row] + t) * qkv_row;
                const float *phase = step.phases + position * m.rope;
                for (i64 h = 0; h < m.heads + m.kv_heads; h++) {
                    float *x = from + h * head;
                    const float *norm = h < m.heads ? layer.q_norm : layer.k_norm;
                    if (norm) normed(x, norm, m.eps, head, x);
                    turned(x, phase, x, m.rope);
                    if (h < m.heads)
                        for (i64 i = 0; i < head; i++) x[i] *= m.scale;
                }
                for (i64 h = 0; h < m.kv_heads; h++) {
                    i64 to = block * block_step + (h * BLOCK + place) * m.width;
                    memcpy(layer.k_cache + to, from + (m.heads + h) * head, head * 4);
                    memcpy(layer.v_cache + to, from + (m.heads + m.kv_heads + h) * head, head * 4);
                }
            }
    });
    i64 most = 0, work = 0;
    for (i64 row = 0; row < step.rows; row++) {
        i64 length = step.start[row] + step.count[row];
        most = length > most ? length : most;
        work += length * step.count[row];
    }
    i64 tasks = step.rows * m.kv_heads;
    parallel(tasks, worth(tasks, 4 * work / step.rows * group * m.width, threads), [&](i64 task) {
        i64 row = task / m.kv_heads, kv = task % m.kv_heads;
        float *query = scratch(1, m.width), *scores = scratch(2, padded(most) + BLOCK), *mixed = scratch(3, m.width);
        const int32_t *blocks = step.table + row * step.table_stride;
        const float *keys = layer.k_cache + kv * BLOCK * m.width, *values = layer.v_cache + kv * BLOCK * m.width;
        for (i64 i = head; i < m.width; i++) query[i] = 0.0f;
        for (i64 t = 0; t < step.count[row]; t++) {
            i64 count = step.start[row] + t + 1, token = step.first[row] + t;
            for (i64 g = 0; g < group; g++) {
                i64 h = kv * group + g;
                memcpy(query, qkv + token * qkv_row + h * head, head * 4);
                for (i64 low = 0, b = 0; low < count; low += BLOCK, b++) {
                    if (g == 0) {
                        ask_for(values + blocks[b] * block_step, BLOCK * m.width * 4);
                        if (low + BLOCK < count) ask_for(keys + blocks[b + 1] * block_step, BLOCK * m.width * 4);
                    }
                    block_dots(query, keys + blocks[b] * block_step, m.width, scores + low);
                }
                float factor = softmax_row(scores, count);
                mix_columns(scores, count, values, blocks, block_step, m.width, factor, mixed);
                memcpy(out + (token * m.heads + h) * head, mixed, head * 4);
            }
        }
    });
}

// Softmax down the columns of scores (count, LANES): a column is a head. Leaves exp and gives 1 / Σ exp a column.
static inline Vec softmax_columns(float *scores, i64 count) {
    Vec most = *(Vec *)scores, sum{};
    for (i64 t = 1; t < count; t++) {
        Vec x = *(Vec *)(scores + t * LANES);
        most = x > most ? x : most;
    }
    for (i64 t = 0; t < count; t++) {
        Vec e = fast_exp(*(Vec *)(scores + t * LANES) - most);
        *(Vec *)(scores + t * LANES) = e;
        sum += e;
    }
    return 1.0f / sum;
}

// Absorbed latent attention: the cache is one shared head of width rank + rope, whose first part is the value too.
// q (tokens, H, nope + rope) and latent (tokens, rank + rope; its norm already taken), before rope → out (tokens, H·value).
void latent_attention(const Model &m, const Layer &layer, const Step &step, const float *q, i64 q_row,
                      const float *latent, i64 latent_row, float *out, int threads) {
    i64 part = m.nope + m.rope, heads = m.heads, block_step = m.cache_block, wide = padded(m.rank);
    std::vector<i64> row_of(step.tokens), position_of(step.tokens);
    i64 most = 0, work = 0;
    for (i64 row = 0; row < step.rows; row++)
        for (i64 t = 0; t < step.count[row]; t++) {
            i64 token = step.first[row] + t, position = step.start[row] + t;
            row_of[token] = row;
            position_of[token] = position;
            most = position + 1 > most ? position + 1 : most;
            work += position + 1;
            float *to = layer.k_cache + step.table[row * step.table_stride + position / BLOCK] * block_step + position % BLOCK * m.width;
            memcpy(to, latent + token * latent_row, m.rank * 4);
            turned(latent + token * latent_row + m.rank, step.phases + position * m.rope, to + m.rank, m.rope);
        }
    static thread_local std::vector<float> absorbed_room, mixed_room;
    if ((i64)absorbed_room.size() < step.tokens * heads * m.rank) absorbed_room.resize(step.tokens * heads * m.rank);
    if ((i64)mixed_room.size() < step.tokens * heads * m.rank) mixed_room.resize(step.tokens * heads * m.rank);
    float *absorbed = absorbed_room.data(), *mixed = mixed_room.data();
    parallel(heads, worth(heads, 2 * step.tokens * m.nope * m.rank, threads), [&](i64 h) {
        multiply(layer.up_k[h], q + h * part, q_row, step.tokens, absorbed + h * m.rank, heads * m.rank, false, 1);
    });
    parallel(step.tokens, worth(step.tokens, 4 * work / step.tokens * heads * m.width, threads), [&](i64 token) {
        float *query = scratch(1, m.width * LANES), *scores = scratch(2, (most + BLOCK) * LANES), *room = scratch(3, LANES * wide);
        float *spun = scratch(4, m.rope + LANES);
        i64 row = row_of[token], count = position_of[token] + 1;
        const int32_t *blocks = step.table + row * step.table_stride;
        const float *phase = step.phases + position_of[token] * m.rope;
        for (i64 first = 0; first < heads; first += LANES) {
            i64 many = heads - first < LANES ? heads - first : LANES;
            memset(query, 0, m.width * LANES * 4);
            for (i64 g = 0; g < many; g++) {
                const float *from = absorbed + (token * heads + first + g) * m.rank;
                for (i64 i = 0; i < m.rank; i++) query[i * LANES + g] = from[i] * m.scale;
                turned(q + token * q_row + (first + g) * part + m.nope, phase, spun, m.rope);
                for (i64 i = 0; i < m.rope; i++) query[(m.rank + i) * LANES + g] = spun[i] * m.scale;
            }
            for (i64 low = 0, b = 0; low < count; low += BLOCK, b++) {
                if (low + BLOCK < count) ask_for(layer.k_cache + blocks[b + 1] * block_step, BLOCK * m.width * 4);
                product(count - low < BLOCK ? count - low : BLOCK, LANES, m.width,
                        layer.k_cache + blocks[b] * block_step, m.width, 1, query, LANES, scores + low * LANES, LANES,
                        false);
            }
            Vec factor = softmax_columns(scores, count);
            for (i64 low = 0; low < count; low += BLOCK)
                product(many, wide, count - low < BLOCK ? count - low : BLOCK, scores + low * LANES, 1, LANES,
                        layer.k_cache + blocks[low / BLOCK] * block_step, m.width, room, wide, low > 0);
            for (i64 g = 0; g < many; g++) {
                float *to = mixed + (token * heads + first + g) * m.rank;
                for (i64 i = 0; i < m.rank; i++) to[i] = room[g * wide + i] * factor[g];
            }
        }
    });
    parallel(heads, worth(heads, 2 * step.tokens * m.value * m.rank, threads), [&](i64 h) {
        multiply(layer.up_v[h], mixed + h * m.rank, heads * m.rank, step.tokens, out + h * m.value, heads * m.value, false, 1);
    });
}
