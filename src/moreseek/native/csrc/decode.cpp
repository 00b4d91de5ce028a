// One new token a row against a cache: attention, feed-forward and choosing the token; twins: attention.py, moe.py
// and sampler.py.
#include "common.h"

static inline void turned(const float *in, const float *phase, float *out, i64 rope) {
    for (i64 i = 0; i < rope; i += 2) {
        float c = phase[i], s = phase[i + 1], a = in[i], b = in[i + 1];
        out[i] = a * c - b * s;
        out[i + 1] = a * s + b * c;
    }
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

// scores[t] = q · key t for `count` keys of V whole vectors each, written a vector of keys at a time.
template <int V> static void dots(const float *q, const float *keys, i64 width, i64 count, float *scores) {
    Vec query[V];
    for (int v = 0; v < V; v++) query[v] = *(const Vec *)(q + v * LANES);
    for (i64 t = 0; t < count; t += LANES) {
        Vec sums[LANES];
        for (i64 i = 0; i < LANES; i++) {
            const float *key = keys + (t + i < count ? t + i : count - 1) * width;
            Vec sum = query[0] * *(const Vec *)key;
            for (int v = 1; v < V; v++) sum += query[v] * *(const Vec *)(key + v * LANES);
            sums[i] = sum;
        }
        *(Vec *)(scores + t) = sums_of(sums);
    }
}

static void all_dots(const float *q, const float *keys, i64 width, i64 count, float *scores) {
    switch (width % LANES == 0 ? width / LANES : 0) {
    case 1: return dots<1>(q, keys, width, count, scores);
    case 2: return dots<2>(q, keys, width, count, scores);
    case 4: return dots<4>(q, keys, width, count, scores);
    case 8: return dots<8>(q, keys, width, count, scores);
    }
    for (i64 t = 0; t < count; t++) {
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (i64 i = 0; i < width; i++) dot += q[i] * keys[t * width + i];
        scores[t] = dot;
    }
}

// Softmax of one row in place, without the division: returns 1 / Σ exp. The row has room for whole vectors.
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

// out (m, width) = or += weights (m, count) · values (count, width).
static void mix(i64 m, i64 count, i64 width, const float *weights, i64 step, const float *values, float *out, bool add) {
    if (width % LANES == 0) return product(m, width, count, weights, step, 1, values, width, out, width, add);
    for (i64 g = 0; g < m; g++) {
        float *to = out + g * width;
        if (!add) memset(to, 0, width * 4);
        for (i64 t = 0; t < count; t++)
            for (i64 i = 0; i < width; i++) to[i] += weights[g * step + t] * values[t * width + i];
    }
}

// Grouped-query attention. q (n, H, D), k and v (n, Hkv, D) with their own row strides, before the rotary embedding;
// caches (rows, Hkv, length, D) from the first of the n rows on; start (n): tokens cached so far; phases (n, D).
// leader and shared (n), or null: the first `shared` tokens of a row equal those of row `leader`, and are read there, so
// that a group of rollouts reads its prompt from memory once.
extern "C" void native_decode_grouped(const float *q, i64 q_row, const float *k, i64 k_row, const float *v, i64 v_row,
                                      float *k_cache, float *v_cache, const i64 *start, const float *phases,
                                      const i64 *leader, const i64 *shared, float *out, i64 n, i64 heads, i64 kv_heads, i64 width, i64 length, float scale,
                                      int threads) {
    i64 group = heads / kv_heads, step = padded(length) + LANES; // a vector may begin at any token
    parallel_parts(n * kv_heads, worth(n * kv_heads, 4 * group * width * length, threads), [&](int, i64 low, i64 high) {
        float *query = scratch(1, width), *scores = scratch(2, group * step);
        for (i64 task = low; task < high; task++) {
            i64 row = task / kv_heads, head = task % kv_heads, count = start[row] + 1;
            const float *phase = phases + row * width;
            float *keys = k_cache + task * length * width, *values = v_cache + task * length * width;
            i64 before = leader ? shared[row] : 0, first_task = leader ? leader[row] * kv_heads + head : task;
            const float *first_keys = k_cache + first_task * length * width;
            const float *first_values = v_cache + first_task * length * width;
            turned(k + row * k_row + head * width, phase, keys + start[row] * width, width);
            memcpy(values + start[row] * width, v + row * v_row + head * width, width * 4);
            float *to = out + (row * heads + head * group) * width, factor[64];
            for (i64 first = 0; first < group; first += 64) {
                i64 many = group - first < 64 ? group - first : 64;
                for (i64 g = 0; g < many; g++) {
                    turned(q + row * q_row + (head * group + first + g) * width, phase, query, width);
                    for (i64 i = 0; i < width; i++) query[i] *= scale;
                    if (before) all_dots(query, first_keys, width, before, scores + g * step);
                    all_dots(query, keys + before * width, width, count - before, scores + g * step + before);
                    factor[g] = softmax_row(scores + g * step, count);
                }
                if (before) mix(many, before, width, scores, step, first_values, to + first * width, false);
                mix(many, count - before, width, scores + before, step, values + before * width, to + first * width,
                    before > 0);
                for (i64 g = 0; g < many; g++)
                    for (i64 i = 0; i < width; i++) to[(first + g) * width + i] *= factor[g];
            }
        }
    });
}

// Absorbed latent attention. q (n, H, nope + rope), latent (n, rank) already normalised, k_rope (n, rope); cache
// (rows, length, rank + rope); up_k: kv_b_proj's weight (H, nope + value, rank); up_v (H, rank, value), its transposed
// lower part. rank and value are multiples of LANES.
extern "C" void native_decode_latent(const float *q, i64 q_row, const float *latent, const float *k_rope,
                                     i64 k_rope_row, float *cache, const i64 *start, const float *phases,
                                     const float *up_k, const float *up_v, float *out, i64 n, i64 heads, i64 nope,
                                     i64 rope, i64 value, i64 rank, i64 length, float scale, int threads) {
    i64 width = rank + rope, most = padded(heads);
    parallel_parts(n, worth(n, 4 * heads * width * length, threads), [&](int, i64 low, i64 high) {
        i64 rows = high - low;
        float *absorbed = scratch(1, heads * rows * rank), *query = scratch(2, width * LANES);
        float *scores = scratch(3, length * LANES), *mixed = scratch(4, heads * rows * rank);
        float *turned_query = scratch(5, rope + LANES);
        for (i64 h = 0; h < heads; h++)
            product(rows, rank, nope, q + low * q_row + h * (nope + rope), q_row, 1, up_k + h * (nope + value) * rank,
                    rank, absorbed + h * rows * rank, rank, false);
        for (i64 row = low; row < high; row++) {
            const float *phase = phases + row * rope;
            float *keys = cache + row * length * width, *mine = keys + start[row] * width;
            memcpy(mine, latent + row * rank, rank * 4);
            turned(k_rope + row * k_rope_row, phase, mine + rank, rope);
            i64 count = start[row] + 1;
            for (i64 first = 0; first < most; first += LANES) {
                i64 many = heads - first < LANES ? heads - first : LANES;
                memset(query, 0, width * LANES * 4);
                for (i64 g = 0; g < many; g++) {
                    const float *from = absorbed + ((first + g) * rows + row - low) * rank;
                    for (i64 i = 0; i < rank; i++) query[i * LANES + g] = from[i] * scale;
                    turned(q + row * q_row + (first + g) * (nope + rope) + nope, phase, turned_query, rope);
                    for (i64 i = 0; i < rope; i++) query[(rank + i) * LANES + g] = turned_query[i] * scale;
                }
                product(count, LANES, width, keys, width, 1, query, LANES, scores, LANES, false);
                Vec factor = softmax_columns(scores, count);
                float *room = query; // many × rank fits: the query is no longer needed
                product(many, rank, count, scores, 1, LANES, keys, width, room, rank, false);
                for (i64 g = 0; g < many; g++) {
                    float *to = mixed + ((first + g) * rows + row - low) * rank;
                    for (i64 i = 0; i < rank; i++) to[i] = room[g * rank + i] * factor[g];
                }
            }
        }
        for (i64 h = 0; h < heads; h++)
            product(rows, value, rank, mixed + h * rows * rank, rank, 1, up_v + h * rank * value, value,
                    out + low * heads * value + h * value, heads * value, false);
    });
}

static inline void activate_rows(const float *hidden, float *act, i64 rows, i64 inner, int threads) {
    parallel_parts(rows, worth(rows, 20 * inner, threads), [&](int, i64 low, i64 high) {
        for (i64 r = low; r < high; r++) {
            const float *gate = hidden + r * 2 * inner, *up = gate + inner;
            float *to = act + r * inner;
            for (i64 i = 0; i < inner; i++) to[i] = gate[i] * sigmoid(gate[i]) * up[i];
        }
    });
}

// gate_up_t (size, 2·inner) and down_t (inner, size): transposed weights, which few rows read faster.
extern "C" void native_decode_swiglu(const float *x, const float *gate_up_t, const float *down_t, float *y, i64 n,
                                     i64 size, i64 inner, int threads) {
    float *hidden = scratch(7, n * 2 * inner), *act = scratch(8, n * inner);
    gemm_nn(n, 2 * inner, size, x, size, gate_up_t, 2 * inner, 0.0f, hidden, 2 * inner);
    activate_rows(hidden, act, n, inner, threads);
    gemm_nn(n, size, inner, act, inner, down_t, size, 0.0f, y, size);
}

// Routed experts of few rows; gate_up_t (E, size, 2·inner), down_t (E, inner, size). `out` is overwritten.
extern "C" void native_decode_experts(const float *x, const float *weights, const i64 *chosen, const float *gate_up_t,
                                      const float *down_t, float *out, i64 n, i64 top_k, i64 experts, i64 size,
                                      i64 inner, int threads) {
    i64 slots = n * top_k, matrix = size * inner;
    std::vector<i64> bounds(experts + 1, 0), order(slots), place(slots);
    for (i64 s = 0; s < slots; s++) bounds[chosen[s] + 1]++;
    for (i64 e = 0; e < experts; e++) bounds[e + 1] += bounds[e];
    std::vector<i64> next(bounds.begin(), bounds.end() - 1);
    for (i64 s = 0; s < slots; s++) order[place[s] = next[chosen[s]]++] = s;
    float *y = scratch(6, slots * size);
    parallel(experts, worth(slots, 6 * matrix, threads), [&](i64 e) {
        i64 rows = bounds[e + 1] - bounds[e];
        if (rows == 0) return;
        float *gathered = scratch(7, rows * size), *hidden = scratch(8, rows * 2 * inner), *act = scratch(9, rows * inner);
        for (i64 i = 0; i < rows; i++) memcpy(gathered + i * size, x + order[bounds[e] + i] / top_k * size, size * 4);
        gemm_nn(rows, 2 * inner, size, gathered, size, gate_up_t + e * 2 * matrix, 2 * inner, 0.0f, hidden, 2 * inner);
        activate_rows(hidden, act, rows, inner, 1);
        gemm_nn(rows, size, inner, act, inner, down_t + e * matrix, size, 0.0f, y + bounds[e] * size, size);
    });
    for (i64 t = 0; t < n; t++) {
        float *to = out + t * size;
        for (i64 i = 0; i < size; i++) to[i] = 0.0f;
        for (i64 k = 0; k < top_k; k++) {
            const float *from = y + place[t * top_k + k] * size;
            float w = weights[t * top_k + k];
            for (i64 i = 0; i < size; i++) to[i] += w * from[i];
        }
    }
}

// Sigmoid router without groups: scores (n, E) of x·Wᵀ; choose K by s + bias, weigh by s. The first of equals wins.
extern "C" void native_decode_router(const float *x, const float *weight, const float *bias, float *weights,
                                     i64 *chosen, i64 n, i64 size, i64 experts, i64 top_k, int normalise,
                                     float scaling) {
    float *scores = scratch(1, n * experts), *biased = scratch(2, experts);
    gemm_nt(n, experts, size, x, size, weight, size, 0.0f, scores, experts);
    for (i64 row = 0; row < n; row++) {
        float *s = scores + row * experts, *w = weights + row * top_k, sum = 0.0f;
        i64 *c = chosen + row * top_k;
        for (i64 e = 0; e < experts; e++) {
            s[e] = sigmoid(s[e]);
            biased[e] = s[e] + bias[e];
        }
        for (i64 k = 0; k < top_k; k++) {
            i64 best = 0;
            for (i64 e = 1; e < experts; e++) best = biased[e] > biased[best] ? e : best;
            biased[best] = -INFINITY;
            c[k] = best;
            w[k] = s[best];
            sum += s[best];
        }
        float factor = normalise ? scaling / (sum + 1e-20f) : scaling;
        for (i64 k = 0; k < top_k; k++) w[k] *= factor;
    }
}

// One token a row by inverting the cumulative distribution of softmax(logits·inverse_temperature) at the row's own
// uniform in [0, 1); without uniforms the most likely one. A token of probability 0 is never chosen.
extern "C" void native_choose(const float *logits, const double *uniforms, i64 *tokens, float *logprobs, i64 n,
                              i64 vocab, float inverse_temperature, int threads) {
    constexpr i64 BLOCK = 64;
    parallel_parts(n, worth(n, 20 * vocab, threads), [&](int, i64 low, i64 high) {
        i64 blocks = (vocab + BLOCK - 1) / BLOCK;
        float *weights = scratch(1, blocks * BLOCK);
        std::vector<double> sums(blocks);
        for (i64 row = low; row < high; row++) {
            const float *z = logits + row * vocab;
            memcpy(weights, z, vocab * 4); // a copy in whole vectors, and in the cache
            for (i64 i = vocab; i < blocks * BLOCK; i++) weights[i] = -INFINITY;
            Vec most = *(Vec *)weights;
            for (i64 i = LANES; i < blocks * BLOCK; i += LANES) {
                Vec x = *(Vec *)(weights + i);
                most = x > most ? x : most;
            }
            float highest = most[0];
            for (int i = 1; i < LANES; i++) highest = most[i] > highest ? most[i] : highest;
            double total = 0.0;
            for (i64 b = 0; b < blocks; b++) {
                Vec sum{};
                for (i64 i = b * BLOCK; i < (b + 1) * BLOCK; i += LANES) {
                    Vec e = fast_exp((*(Vec *)(weights + i) - highest) * inverse_temperature);
                    *(Vec *)(weights + i) = e;
                    sum += e;
                }
                total += sums[b] = sum_of(sum);
            }
            i64 token = vocab - 1;
            if (!uniforms) {
                for (token = 0; token < vocab - 1 && !(z[token] == highest);) token++;
            } else {
                double uniform = uniforms[row] < 1 - 0x1p-50 ? uniforms[row] : 1 - 0x1p-50;
                double left = uniform * total;
                i64 b = 0;
                while (b < blocks - 1 && left >= sums[b]) left -= sums[b++];
                i64 end = b * BLOCK + BLOCK < vocab ? b * BLOCK + BLOCK : vocab, last = end;
                for (i64 i = b * BLOCK; i < end; i++) {
                    if (weights[i] > 0.0f) last = i;
                    if (left < weights[i]) break;
                    left -= weights[i];
                }
                token = last < end ? last : vocab - 1;
            }
            tokens[row] = token;
            logprobs[row] = (z[token] - highest) * inverse_temperature - (float)std::log(total);
        }
    });
}
