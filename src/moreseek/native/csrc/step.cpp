// One step of the engine: any number of new tokens of any number of sequences through the whole model. What a token
// comes to depends, to the last bit, on its own sequence alone: not on the rest of the step, on how a prompt is cut, or
// on threads. So a batched request equals a lone one, a draft's check equals plain decoding, and a reused prefix a new one.
#include "step.h"

enum Room { X = 12, NORMED, QKV, Q, ATTENDED, INNER, ACTIVE, SCORES, GATHERED, EXPERT_OUT, WEIGHTS, JOINED };

static void rms_norm(const float *x, i64 x_row, const float *w, float eps, float *y, i64 y_row, i64 rows, i64 size,
                     int threads) {
    parallel_parts(rows, worth(rows, 4 * size, threads), [&](int, i64 low, i64 high) {
        for (i64 row = low; row < high; row++) {
            const float *in = x + row * x_row;
            float *to = y + row * y_row, squares = 0.0f;
#pragma omp simd reduction(+ : squares)
            for (i64 i = 0; i < size; i++) squares += in[i] * in[i];
            float r = 1.0f / std::sqrt(squares / size + eps);
            for (i64 i = 0; i < size; i++) to[i] = in[i] * r * w[i];
        }
    });
}

static void activate(const float *hidden, float *active, i64 rows, i64 inner, int threads) {
    parallel_parts(rows, worth(rows, 20 * inner, threads), [&](int, i64 low, i64 high) {
        for (i64 r = low; r < high; r++) {
            const float *gate = hidden + r * 2 * inner, *up = gate + inner;
            float *to = active + r * inner;
            for (i64 i = 0; i < inner; i++) to[i] = gate[i] * sigmoid(gate[i]) * up[i];
        }
    });
}

static void feed_forward(const FeedForward &f, const float *x, i64 rows, i64 hidden, float *y, bool add, int threads) {
    i64 inner = f.down.inputs;
    float *between = scratch(INNER, rows * 2 * inner), *active = scratch(ACTIVE, rows * inner);
    multiply(f.gate_up, x, hidden, rows, between, 2 * inner, false, threads);
    activate(between, active, rows, inner, threads);
    multiply(f.down, active, inner, rows, y, hidden, add, threads);
}

// V3 eq. 12 to 16: choose by s + bias, within the best groups, weigh by s. The first of equals wins.
static void route(const Model &m, const Layer &layer, const float *logits, float *weights, i64 *chosen) {
    i64 experts = m.experts, size = experts / m.groups;
    std::vector<float> s(experts), biased(experts);
    for (i64 e = 0; e < experts; e++) {
        s[e] = sigmoid(logits[e]);
        biased[e] = s[e] + layer.router_bias[e];
    }
    if (m.groups > 1) {
        std::vector<float> best(m.groups);
        for (i64 g = 0; g < m.groups; g++) {
            float first = -INFINITY, second = -INFINITY;
            for (i64 e = g * size; e < (g + 1) * size; e++) {
                if (biased[e] > first) second = first, first = biased[e];
                else if (biased[e] > second) second = biased[e];
            }
            best[g] = first + second;
        }
        std::vector<bool> open(m.groups, false);
        for (i64 k = 0; k < m.top_groups; k++) {
            i64 top = -1;
            for (i64 g = 0; g < m.groups; g++)
                if (!open[g] && (top < 0 || best[g] > best[top])) top = g;
            open[top] = true;
        }
        for (i64 e = 0; e < experts; e++)
            if (!open[e / size]) biased[e] = -INFINITY;
    }
    float sum = 0.0f;
    for (i64 k = 0; k < m.top_k; k++) {
        i64 best = 0;
        for (i64 e = 1; e < experts; e++) best = biased[e] > biased[best] ? e : best;
        biased[best] = -INFINITY;
        chosen[k] = best;
        sum += weights[k] = s[best];
    }
    float factor = m.normalise ? m.scaling / (sum + 1e-20f) : m.scaling;
    for (i64 k = 0; k < m.top_k; k++) weights[k] *= factor;
}

// y += the routed experts' weighted sum, each token's in the order in which it chose them.
static void routed_experts(const Model &m, const Layer &layer, const float *x, i64 rows, float *y, int threads) {
    i64 slots = rows * m.top_k, hidden = m.hidden;
    float *logits = scratch(SCORES, rows * m.experts), *weights = scratch(WEIGHTS, slots);
    std::vector<i64> chosen(slots), bounds(m.experts + 1, 0), place(slots), order(slots);
    multiply(*layer.router, x, hidden, rows, logits, m.experts, false, threads);
    for (i64 t = 0; t < rows; t++) route(m, layer, logits + t * m.experts, weights + t * m.top_k, &chosen[t * m.top_k]);
    for (i64 s = 0; s < slots; s++) bounds[chosen[s] + 1]++;
    for (i64 e = 0; e < m.experts; e++) bounds[e + 1] += bounds[e];
    std::vector<i64> next(bounds.begin(), bounds.end() - 1);
    for (i64 s = 0; s < slots; s++) order[place[s] = next[chosen[s]]++] = s;
    float *gathered = scratch(GATHERED, slots * hidden), *result = scratch(EXPERT_OUT, slots * hidden);
    for (i64 i = 0; i < slots; i++) memcpy(gathered + i * hidden, x + order[i] / m.top_k * hidden, hidden * 4);
    i64 inner = layer.experts[0].down.inputs;
    parallel(m.experts, worth(slots, 6 * hidden * inner, threads), [&](i64 e) {
        i64 low = bounds[e], many = bounds[e + 1] - low;
        if (many) feed_forward(layer.experts[e], gathered + low * hidden, many, hidden, result + low * hidden, false, 1);
    });
    for (i64 t = 0; t < rows; t++)
        for (i64 k = 0; k < m.top_k; k++) {
            const float *from = result + place[t * m.top_k + k] * hidden;
            float w = weights[t * m.top_k + k], *to = y + t * hidden;
            for (i64 i = 0; i < hidden; i++) to[i] += w * from[i];
        }
}

// x += attention(norm(x)); x += feed-forward(norm(x))
static void block(const Model &m, const Layer &layer, const Step &step, float *x, int threads) {
    i64 n = step.tokens, qkv_row = layer.qkv.outputs;
    float *h = scratch(NORMED, n * m.hidden), *qkv = scratch(QKV, n * qkv_row);
    float *attended = scratch(ATTENDED, n * layer.out.inputs);
    rms_norm(x, m.hidden, layer.input_norm, m.eps, h, m.hidden, n, m.hidden, threads);
    multiply(layer.qkv, h, m.hidden, n, qkv, qkv_row, false, threads);
    if (m.latent) {
        i64 first = qkv_row - m.rank - m.rope, q_row = m.heads * (m.nope + m.rope);
        const float *q = qkv;
        float *latent = qkv + first;
        rms_norm(latent, qkv_row, layer.latent_norm, m.latent_eps, latent, qkv_row, n, m.rank, threads);
        if (layer.q_up.panels) {
            float *room = scratch(Q, n * q_row);
            rms_norm(qkv, qkv_row, layer.q_latent_norm, m.latent_eps, qkv, qkv_row, n, first, threads);
            multiply(layer.q_up, qkv, qkv_row, n, room, q_row, false, threads);
            q = room;
        } else
            q_row = qkv_row;
        latent_attention(m, layer, step, q, q_row, latent, qkv_row, attended, threads);
    } else
        grouped_attention(m, layer, step, qkv, qkv_row, attended, threads);
    multiply(layer.out, attended, layer.out.inputs, n, x, m.hidden, true, threads);
    rms_norm(x, m.hidden, layer.post_norm, m.eps, h, m.hidden, n, m.hidden, threads);
    if (layer.dense.down.panels) feed_forward(layer.dense, h, n, m.hidden, x, true, threads);
    if (layer.router) routed_experts(m, layer, h, n, x, threads);
}

static void embed(const Model &m, i64 id, float *to) {
    if (m.embedding_format == FLOATS) {
        memcpy(to, (const float *)m.embedding + id * m.hidden, m.hidden * 4);
        return;
    }
    const uint16_t *from = (const uint16_t *)m.embedding + id * m.hidden;
    for (i64 i = 0; i < m.hidden; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(to + i, &bits, 4);
    }
}

// (tokens, hidden): embeddings, or what an MTP module makes of them and of the states that the model had.
static float *input(const Model &m, const Step &step, int threads) {
    float *x = scratch(X, step.tokens * m.hidden);
    for (i64 t = 0; t < step.tokens; t++) embed(m, step.ids[t], x + t * m.hidden);
    if (!m.joint.panels) return x;
    i64 wide = 2 * m.hidden;
    float *joined = scratch(JOINED, step.tokens * wide);
    rms_norm(x, m.hidden, m.embedding_norm, m.eps, joined, wide, step.tokens, m.hidden, threads);
    rms_norm(step.states, m.hidden, m.state_norm, m.eps, joined + m.hidden, wide, step.tokens, m.hidden, threads);
    multiply(m.joint, joined, wide, step.tokens, x, m.hidden, false, threads);
    return x;
}

extern "C" void native_step(const Model *model, const Step *given, int threads) {
    const Model &m = *model;
    const Step &step = *given;
    float *x = input(m, step, threads);
    for (i64 l = 0; l < m.layers; l++) block(m, m.layer[l], step, x, threads);
    for (i64 o = 0; o < step.outputs; o++)
        rms_norm(x + step.output[o] * m.hidden, m.hidden, m.norm, m.eps, step.hidden + o * m.hidden, m.hidden, 1,
                 m.hidden, 1);
    if (step.all_hidden)
        rms_norm(x, m.hidden, m.norm, m.eps, step.all_hidden, m.hidden, step.tokens, m.hidden, threads);
    if (step.logits)
        multiply(m.head_matrix, step.hidden, m.hidden, step.outputs, step.logits, m.head_matrix.outputs, false, threads);
}
