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

// scores[t] = query · key t for a block of keys of `width` numbers, a multiple of LANES. A whole vector of sums at a time,
// so that the query is read once for all of them and none waits for the last one's.
static inline void block_dots(const float *query, const float *keys, i64 width, float *scores) {
    for (i64 t = 0; t < BLOCK; t += LANES) {
        Vec sums[LANES], q = *(const Vec *)query;
        const float *key = keys + t * width;
        for (i64 l = 0; l < LANES; l++) sums[l] = q * *(const Vec *)(key + l * width);
        for (i64 i = LANES; i < width; i += LANES) {
            q = *(const Vec *)(query + i);
            for (i64 l = 0; l < LANES; l++) sums[l] += q * *(const Vec *)(key + l * width + i);
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

// Keys [low, high) of a query, low a multiple of BLOCK, and whether they are its first and its last ones.
struct Stretch {
    i64 low, high;
    bool first, last;
};

// out (V vectors) = factor · Σ weights[t] · value t, in four running sums by t mod 4, so that no sum waits for the last.
// Between stretches the sums are kept in `sums` (4, width).
template <int V>
static inline void mix(const float *weights, Stretch s, const float *cache, const int32_t *blocks, i64 block_step,
                       i64 width, float factor, float *sums, float *out) {
    Vec sum[4][V];
    for (int k = 0; k < 4; k++)
        for (int v = 0; v < V; v++) sum[k][v] = s.first ? Vec{} : *(const Vec *)(sums + k * width + v * LANES);
    for (i64 low = s.low; low < s.high; low += BLOCK) {
        const float *values = cache + blocks[low / BLOCK] * block_step, *w = weights + low;
        i64 here = s.high - low < BLOCK ? s.high - low : BLOCK, t = 0;
        for (; t + 4 <= here; t += 4)
            for (int k = 0; k < 4; k++)
                for (int v = 0; v < V; v++) sum[k][v] += w[t + k] * *(const Vec *)(values + (t + k) * width + v * LANES);
        for (int k = 0; t < here; t++, k++)
            for (int v = 0; v < V; v++) sum[k][v] += w[t] * *(const Vec *)(values + t * width + v * LANES);
    }
    for (int v = 0; v < V; v++)
        if (s.last)
            *(Vec *)(out + v * LANES) = ((sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v])) * factor;
        else
            for (int k = 0; k < 4; k++) *(Vec *)(sums + k * width + v * LANES) = sum[k][v];
}

static void mix_columns(const float *weights, Stretch s, const float *cache, const int32_t *blocks, i64 block_step,
                        i64 width, float factor, float *sums, float *out) {
    i64 c = 0;
    for (; c + 4 * LANES <= width; c += 4 * LANES)
        mix<4>(weights, s, cache + c, blocks, block_step, width, factor, sums + c, out + c);
    for (; c + 2 * LANES <= width; c += 2 * LANES)
        mix<2>(weights, s, cache + c, blocks, block_step, width, factor, sums + c, out + c);
    for (; c < width; c += LANES) mix<1>(weights, s, cache + c, blocks, block_step, width, factor, sums + c, out + c);
}

// Tokens [first, last) of a step's row that attend together, so that a block of the cache is brought near once for all.
struct Tile {
    i64 row, first, last;
};

static std::vector<Tile> tiles_of(const Step &step, i64 tokens) {
    std::vector<Tile> tiles;
    for (i64 row = 0; row < step.rows; row++)
        for (i64 t = 0; t < step.count[row]; t += tokens)
            tiles.push_back({row, t, t + tokens < step.count[row] ? t + tokens : step.count[row]});
    return tiles;
}

static inline void normed(const float *x, const float *weight, float eps, i64 size, float *out) {
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (i64 i = 0; i < size; i++) squares += x[i] * x[i];
    float r = 1.0f / std::sqrt(squares / size + eps);
    for (i64 i = 0; i < size; i++) out[i] = x[i] * r * weight[i];
}

constexpr i64 TOGETHER = 24;         // queries of a key head, of one or several tokens,
constexpr i64 STRETCH = 4 * BLOCK; // and keys whose values they are mixed from at a time: in the first cache

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
    std::vector<Tile> tiles = tiles_of(step, group < TOGETHER ? TOGETHER / group : 1);
    i64 tasks = (i64)tiles.size() * m.kv_heads, room = padded(most) + BLOCK;
    parallel(tasks, worth(tasks, 4 * work / tasks * group * m.kv_heads * m.width, threads), [&](i64 task) {
        Tile tile = tiles[task / m.kv_heads];
        i64 row = tile.row, kv = task % m.kv_heads, start = step.start[row], queries = (tile.last - tile.first) * group;
        float *query = scratch(1, queries * m.width), *scores = scratch(2, queries * room), *mixed = scratch(3, m.width);
        float *sums = scratch(4, queries * 4 * m.width), *factor = scratch(5, queries);
        const int32_t *blocks = step.table + row * step.table_stride;
        const float *keys = layer.k_cache + kv * BLOCK * m.width, *values = layer.v_cache + kv * BLOCK * m.width;
        auto token = [&](i64 q) { return step.first[row] + tile.first + q / group; };
        auto seen = [&](i64 q) { return start + tile.first + q / group + 1; }; // keys
        for (i64 q = 0; q < queries; q++) {
            memcpy(query + q * m.width, qkv + token(q) * qkv_row + (kv * group + q % group) * head, head * 4);
            for (i64 i = head; i < m.width; i++) query[q * m.width + i] = 0.0f;
        }
        i64 all = start + tile.last;
        for (i64 low = 0, b = 0; low < all; low += BLOCK, b++) {
            ask_for(values + blocks[b] * block_step, BLOCK * m.width * 4);
            if (low + BLOCK < all) ask_for(keys + blocks[b + 1] * block_step, BLOCK * m.width * 4);
            for (i64 q = 0; q < queries; q++)
                if (low < seen(q))
                    block_dots(query + q * m.width, keys + blocks[b] * block_step, m.width, scores + q * room + low);
        }
        for (i64 q = 0; q < queries; q++) factor[q] = softmax_row(scores + q * room, seen(q));
        i64 stretch = tile.last - tile.first > 1 ? STRETCH : all;
        for (i64 low = 0; low < all; low += stretch)
            for (i64 q = 0; q < queries; q++) {
                i64 count = seen(q), high = low + stretch < count ? low + stretch : count;
                if (low >= count) continue;
                mix_columns(scores + q * room, {low, high, low == 0, high == count}, values, blocks, block_step, m.width,
                            factor[q], sums + q * 4 * m.width, mixed);
                if (high == count) memcpy(out + (token(q) * m.heads + kv * group + q % group) * head, mixed, head * 4);
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
