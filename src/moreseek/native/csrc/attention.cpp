// Causal attention of whole sequences, rotary embedding included, forward and backward; twin: scores.attend.
//
// Tokens lie in flat rows. A group is a stem (a run of rows) and branches that continue it (other runs of rows): a
// branch sees its whole stem and itself, causally. A plain batch is one stem a row of the batch and no branches.
// Scores exist for one block of queries at a time; the backward pass computes them again from log Σ exp.
#include "common.h"

struct Attention {
    // head h of token t starts at q + t·q_row + h·q_head; its last `rope` numbers are turned
    const float *q;
    i64 q_row, q_head;
    // key head g: `plain` numbers as they are, then `rope` turned ones, which all heads share when k_rope_head is 0
    const float *k;
    i64 k_row, k_head;
    const float *k_rope;
    i64 k_rope_row, k_rope_head;
    const float *v;
    i64 v_row, v_head;
    const float *phases; // (·, rope / 2) pairs cos, sin
    const i64 *position; // of each flat row, into phases
    const i64 *first;    // first key that each row of a stem sees, counted inside its stem; null: all
    i64 heads, kv_heads, plain, rope, value;
    float scale;
    // groups and branches
    const i64 *stem_start, *stem_length, *branch_offset, *branch_start, *branch_length;
    i64 groups;
    float *out; // (rows, heads, value)
    float *lse; // (rows, heads)
    // backward: the gradients, whose heads lie as those of their tensors, with rows of their own
    const float *grad;
    float *dq, *dk, *dk_rope, *dv;
    i64 dq_row, dk_row, dk_rope_row, dv_row;
};

static constexpr i64 BLOCK = 48; // queries at a time: whole tiles of six rows

static inline void turn(const float *in, const float *phase, float *out, i64 rope, float sign, float factor) {
    for (i64 i = 0; i < rope; i += 2) {
        float c = phase[i], s = sign * phase[i + 1], a = in[i], b = in[i + 1];
        out[i] = (a * c - b * s) * factor;
        out[i + 1] = (a * s + b * c) * factor;
    }
}

// What one task (a group's key head) keeps in its thread's memory; rows of all of these are padded to whole vectors.
struct Keys {
    i64 width, value_width, room; // padded key width, value width and number of keys
    float *k, *kt, *v, *vt, *dk, *dv;
};

static inline Keys make_keys(const Attention &a, i64 most, bool backward) {
    Keys s;
    s.width = padded(a.plain + a.rope);
    s.value_width = padded(a.value);
    s.room = padded(most) + LANES;
    s.kt = scratch(1, s.width * s.room);
    s.v = scratch(2, s.room * s.value_width);
    memset(s.kt, 0, s.width * s.room * 4);
    memset(s.v, 0, s.room * s.value_width * 4);
    s.k = s.vt = s.dk = s.dv = nullptr;
    if (backward) {
        s.k = scratch(3, s.room * s.width);
        s.vt = scratch(4, s.value_width * s.room);
        s.dk = scratch(5, s.room * s.width);
        s.dv = scratch(6, s.room * s.value_width);
        memset(s.k, 0, s.room * s.width * 4);
        memset(s.vt, 0, s.value_width * s.room * 4);
    }
    return s;
}

// Pack keys and values of `count` rows from flat row `start` on as keys at, at + 1, …
static void pack(const Attention &a, const Keys &s, i64 head, i64 start, i64 count, i64 at, bool backward) {
    float *row = scratch(7, s.width);
    i64 width = a.plain + a.rope;
    for (i64 t = 0; t < count; t++) {
        i64 token = start + t;
        for (i64 i = 0; i < a.plain; i++) row[i] = a.k[token * a.k_row + head * a.k_head + i];
        turn(a.k_rope + token * a.k_rope_row + head * a.k_rope_head, a.phases + a.position[token] * a.rope,
             row + a.plain, a.rope, 1.0f, 1.0f);
        for (i64 i = 0; i < width; i++) s.kt[i * s.room + at + t] = row[i];
        const float *value = a.v + token * a.v_row + head * a.v_head;
        memcpy(s.v + (at + t) * s.value_width, value, a.value * 4);
        if (backward) {
            memcpy(s.k + (at + t) * s.width, row, width * 4);
            for (i64 i = 0; i < a.value; i++) s.vt[i * s.room + at + t] = value[i];
        }
    }
}

static void pack_queries(const Attention &a, const Keys &s, i64 head, i64 start, i64 count, float *q) {
    for (i64 t = 0; t < count; t++) {
        i64 token = start + t;
        const float *in = a.q + token * a.q_row + head * a.q_head;
        float *row = q + t * s.width;
        for (i64 i = 0; i < a.plain; i++) row[i] = in[i] * a.scale;
        turn(in + a.plain, a.phases + a.position[token] * a.rope, row + a.plain, a.rope, 1.0f, a.scale);
    }
}

// Query rows [low, high) of a run whose first row is key number `before`; they see keys from `from` on.
struct Span {
    i64 low, high, from, until; // keys, `from` rounded down to a whole vector
};

static inline Span span_of(const Attention &a, bool stem, i64 start, i64 low, i64 high, i64 before) {
    i64 from = 0;
    if (stem && a.first) {
        from = a.first[start + low];
        for (i64 t = low + 1; t < high; t++) from = a.first[start + t] < from ? a.first[start + t] : from;
    }
    return {low, high, from / LANES * LANES, before + high};
}

// One row of scores sees the keys from..last. Whole vectors around them are r.from..r.until: what is hidden there
// becomes −inf, what lies outside 0.
struct Row {
    i64 from, until;
};

static inline Row hide(float *p, i64 from, i64 last, i64 keys) {
    Row r = {from / LANES * LANES, padded(last + 1)};
    for (i64 j = 0; j < r.from; j++) p[j] = 0.0f;
    for (i64 j = r.from; j < from; j++) p[j] = -INFINITY;
    for (i64 j = last + 1; j < r.until; j++) p[j] = -INFINITY;
    for (i64 j = r.until; j < keys; j++) p[j] = 0.0f;
    return r;
}

static void forward_run(const Attention &a, const Keys &s, i64 kv_head, bool stem, i64 start, i64 count, i64 before) {
    i64 group = a.heads / a.kv_heads;
    float *q = scratch(8, BLOCK * s.width), *scores = scratch(9, BLOCK * s.room);
    float *mixed = scratch(10, BLOCK * s.value_width), factor[BLOCK];
    for (i64 low = 0; low < count; low += BLOCK) {
        Span w = span_of(a, stem, start, low, low + BLOCK < count ? low + BLOCK : count, before);
        i64 rows = w.high - w.low, keys = padded(w.until - w.from);
        for (i64 head = kv_head * group; head < (kv_head + 1) * group; head++) {
            pack_queries(a, s, head, start + low, rows, q);
            product(rows, keys, a.plain + a.rope, q, s.width, 1, s.kt + w.from, s.room, scores, keys, false);
            for (i64 t = 0; t < rows; t++) {
                i64 token = start + low + t, last = before + low + t - w.from;
                i64 from = stem && a.first ? a.first[token] - w.from : 0;
                float *p = scores + t * keys;
                Row r = hide(p, from, last, keys);
                Vec most = *(Vec *)(p + r.from);
                for (i64 j = r.from + LANES; j < r.until; j += LANES) {
                    Vec x = *(Vec *)(p + j);
                    most = x > most ? x : most;
                }
                float highest = most[0];
                for (int i = 1; i < LANES; i++) highest = most[i] > highest ? most[i] : highest;
                Vec sums{};
                for (i64 j = r.from; j < r.until; j += LANES) {
                    Vec e = fast_exp(*(Vec *)(p + j) - highest);
                    *(Vec *)(p + j) = e;
                    sums += e;
                }
                float sum = sum_of(sums);
                a.lse[token * a.heads + head] = highest + std::log(sum);
                factor[t] = 1.0f / sum;
            }
            product(rows, s.value_width, w.until - w.from, scores, keys, 1, s.v + w.from * s.value_width,
                    s.value_width, mixed, s.value_width, false);
            for (i64 t = 0; t < rows; t++) {
                float *to = a.out + ((start + low + t) * a.heads + head) * a.value;
                for (i64 i = 0; i < a.value; i++) to[i] = mixed[t * s.value_width + i] * factor[t];
            }
        }
    }
}

static void backward_run(const Attention &a, const Keys &s, i64 kv_head, bool stem, i64 start, i64 count, i64 before) {
    i64 group = a.heads / a.kv_heads, width = a.plain + a.rope;
    float *q = scratch(8, BLOCK * s.width), *p = scratch(9, BLOCK * s.room), *ds = scratch(10, BLOCK * s.room);
    float *room = scratch(11, BLOCK * (s.width + s.value_width)), *dq = room, *grad = room + BLOCK * s.width;
    for (i64 low = 0; low < count; low += BLOCK) {
        Span w = span_of(a, stem, start, low, low + BLOCK < count ? low + BLOCK : count, before);
        i64 rows = w.high - w.low, keys = padded(w.until - w.from);
        for (i64 head = kv_head * group; head < (kv_head + 1) * group; head++) {
            pack_queries(a, s, head, start + low, rows, q);
            for (i64 t = 0; t < rows; t++)
                memcpy(grad + t * s.value_width, a.grad + ((start + low + t) * a.heads + head) * a.value, a.value * 4);
            product(rows, keys, width, q, s.width, 1, s.kt + w.from, s.room, p, keys, false);
            product(rows, keys, a.value, grad, s.value_width, 1, s.vt + w.from, s.room, ds, keys, false);
            for (i64 t = 0; t < rows; t++) {
                i64 token = start + low + t, last = before + low + t - w.from;
                i64 from = stem && a.first ? a.first[token] - w.from : 0;
                float *pr = p + t * keys, *dr = ds + t * keys, lse = a.lse[token * a.heads + head];
                Row r = hide(pr, from, last, keys);
                Vec deltas{};
                for (i64 j = r.from; j < r.until; j += LANES) {
                    Vec e = fast_exp(*(Vec *)(pr + j) - lse);
                    *(Vec *)(pr + j) = e;
                    deltas += e * *(Vec *)(dr + j);
                }
                float delta = sum_of(deltas);
                for (i64 j = 0; j < r.from; j++) dr[j] = 0.0f;
                for (i64 j = r.from; j < r.until; j += LANES)
                    *(Vec *)(dr + j) = *(Vec *)(pr + j) * (*(Vec *)(dr + j) - delta);
                for (i64 j = r.until; j < keys; j++) dr[j] = 0.0f;
            }
            i64 seen = w.until - w.from;
            product(seen, s.value_width, rows, p, 1, keys, grad, s.value_width, s.dv + w.from * s.value_width,
                    s.value_width, true);
            product(seen, s.width, rows, ds, 1, keys, q, s.width, s.dk + w.from * s.width, s.width, true);
            product(rows, s.width, seen, ds, keys, 1, s.k + w.from * s.width, s.width, dq, s.width, false);
            for (i64 t = 0; t < rows; t++) {
                i64 token = start + low + t;
                float *to = a.dq + token * a.dq_row + head * a.q_head;
                const float *from = dq + t * s.width;
                for (i64 i = 0; i < a.plain; i++) to[i] = from[i] * a.scale;
                turn(from + a.plain, a.phases + a.position[token] * a.rope, to + a.plain, a.rope, -1.0f, a.scale);
            }
        }
    }
}

// Write the gradients of `count` keys from number `at` on to the flat rows they came from. q was scaled, so dk is right.
static void unpack(const Attention &a, const Keys &s, i64 head, i64 start, i64 count, i64 at, float *shared_rope) {
    for (i64 t = 0; t < count; t++) {
        i64 token = start + t;
        const float *dk = s.dk + (at + t) * s.width;
        for (i64 i = 0; i < a.plain; i++) a.dk[token * a.dk_row + head * a.k_head + i] = dk[i];
        if (shared_rope)
            memcpy(shared_rope + (token * a.kv_heads + head) * a.rope, dk + a.plain, a.rope * 4);
        else
            turn(dk + a.plain, a.phases + a.position[token] * a.rope,
                 a.dk_rope + token * a.dk_rope_row + head * a.k_rope_head, a.rope, -1.0f, 1.0f);
        memcpy(a.dv + token * a.dv_row + head * a.v_head, s.dv + (at + t) * s.value_width, a.value * 4);
    }
}

static i64 most_keys(const Attention &a, i64 group) {
    i64 longest = 0;
    for (i64 b = a.branch_offset[group]; b < a.branch_offset[group + 1]; b++)
        longest = a.branch_length[b] > longest ? a.branch_length[b] : longest;
    return a.stem_length[group] + longest;
}

extern "C" void native_attention(const Attention *args, int threads) {
    const Attention &a = *args;
    parallel(a.groups * a.kv_heads, threads, [&](i64 task) {
        i64 group = task / a.kv_heads, head = task % a.kv_heads, stem = a.stem_length[group];
        Keys s = make_keys(a, most_keys(a, group), false);
        pack(a, s, head, a.stem_start[group], stem, 0, false);
        forward_run(a, s, head, true, a.stem_start[group], stem, 0);
        for (i64 b = a.branch_offset[group]; b < a.branch_offset[group + 1]; b++) {
            pack(a, s, head, a.branch_start[b], a.branch_length[b], stem, false);
            forward_run(a, s, head, false, a.branch_start[b], a.branch_length[b], stem);
        }
    });
}

// `shared_rope` (rows, kv_heads, rope) is room for each head's gradient of a shared rotary key; null when each has its own.
extern "C" void native_attention_backward(const Attention *args, float *shared_rope, i64 rows, int threads) {
    const Attention &a = *args;
    parallel(a.groups * a.kv_heads, threads, [&](i64 task) {
        i64 group = task / a.kv_heads, head = task % a.kv_heads, stem = a.stem_length[group];
        Keys s = make_keys(a, most_keys(a, group), true);
        memset(s.dk, 0, stem * s.width * 4);
        memset(s.dv, 0, stem * s.value_width * 4);
        pack(a, s, head, a.stem_start[group], stem, 0, true);
        backward_run(a, s, head, true, a.stem_start[group], stem, 0);
        for (i64 b = a.branch_offset[group]; b < a.branch_offset[group + 1]; b++) {
            i64 count = a.branch_length[b];
            memset(s.dk + stem * s.width, 0, count * s.width * 4);
            memset(s.dv + stem * s.value_width, 0, count * s.value_width * 4);
            pack(a, s, head, a.branch_start[b], count, stem, true);
            backward_run(a, s, head, false, a.branch_start[b], count, stem);
            unpack(a, s, head, a.branch_start[b], count, stem, shared_rope);
        }
        unpack(a, s, head, a.stem_start[group], stem, 0, shared_rope);
    });
    if (!shared_rope) return;
    parallel_parts(rows, worth(rows, a.kv_heads * a.rope, threads), [&](int, i64 low, i64 high) {
        for (i64 token = low; token < high; token++) {
            float *sum = shared_rope + token * a.kv_heads * a.rope;
            for (i64 head = 1; head < a.kv_heads; head++)
                for (i64 i = 0; i < a.rope; i++) sum[i] += sum[head * a.rope + i];
            turn(sum, a.phases + a.position[token] * a.rope, a.dk_rope + token * a.dk_rope_row, a.rope, -1.0f, 1.0f);
        }
    });
}
