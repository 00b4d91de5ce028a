// Cross-entropy and token log-probabilities from hidden states, a chunk of logits at a time; twins: losses.py.
#include "gemm.h"

// Rows of a chunk: many enough that adding to the head's gradient is worth reading it (4 MB of logits).
static inline i64 chunk_of(i64 vocab) {
    i64 rows = (1 << 20) / vocab;
    return rows < 16 ? 16 : rows > 1024 ? 1024 : rows;
}

// Rows whose logits are made and normalised while they lie in the cache.
static inline i64 block_of(i64 vocab) {
    i64 rows = (1 << 18) / vocab;
    return rows < 16 ? 16 : rows;
}

// logits (rows, vocab) = hidden · headᵀ, block by block, each row handed to f while it is in the cache.
template <class F>
static void logits_rows(const float *hidden, const Right &head, float *logits, i64 rows, i64 vocab, i64 size, F f) {
    i64 block = block_of(vocab);
    for (i64 low = 0; low < rows; low += block) {
        i64 count = low + block < rows ? block : rows - low;
        head.product(count, hidden + low * size, logits + low * vocab);
        for (i64 i = low; i < low + count; i++) f(i, logits + i * vocab);
    }
}

// Turns logits·inverse_temperature into probabilities in place; returns log Σ exp, and the entropy if asked for.
static inline float softmax_row(float *z, i64 vocab, float inverse_temperature, float *entropy) {
    float highest = z[0], sum = 0.0f, weighted = 0.0f;
#pragma omp simd reduction(max : highest)
    for (i64 i = 0; i < vocab; i++) {
        z[i] *= inverse_temperature;
        highest = z[i] > highest ? z[i] : highest;
    }
    if (entropy) {
#pragma omp simd reduction(+ : sum, weighted)
        for (i64 i = 0; i < vocab; i++) {
            float shifted = z[i] - highest, e = fast_exp(shifted);
            weighted += e * (shifted < -1e4f ? -1e4f : shifted);
            sum += e;
            z[i] = e;
        }
        *entropy = std::log(sum) - weighted / sum;
    } else {
#pragma omp simd reduction(+ : sum)
        for (i64 i = 0; i < vocab; i++) {
            float e = fast_exp(z[i] - highest);
            sum += e;
            z[i] = e;
        }
    }
    float scale = 1.0f / sum;
    for (i64 i = 0; i < vocab; i++) z[i] *= scale;
    return highest + std::log(sum);
}

// hidden (n, size), head (vocab, size), targets (n) → the sum of −log p, and the gradients of that sum.
extern "C" double native_cross_entropy(const float *hidden, const float *head, const i64 *targets, float *dhidden,
                                       float *dhead, i64 n, i64 vocab, i64 size, int threads) {
    i64 chunk = chunk_of(vocab), matrix = vocab * size;
    int parts = worth(n, 6 * vocab * size, threads);
    float *partial = scratch(3, (parts - 1) * matrix);
    std::vector<double> losses(parts, 0.0);
    if (n == 0) memset(dhead, 0, matrix * 4);
    Right head_t(head, true, size, vocab, n, 4), right(head, false, vocab, size, n, 5);
    parallel_parts(n, parts, [&](int part, i64 low, i64 high) {
        float *logits = scratch(1, chunk * vocab), *dh = part ? partial + (part - 1) * matrix : dhead;
        double loss = 0.0;
        for (i64 r = low; r < high; r += chunk) {
            i64 rows = r + chunk < high ? chunk : high - r;
            logits_rows(hidden + r * size, head_t, logits, rows, vocab, size, [&](i64 i, float *z) {
                float wanted = z[targets[r + i]];
                loss += softmax_row(z, vocab, 1.0f, nullptr) - wanted;
                z[targets[r + i]] -= 1.0f;
            });
            right.product(rows, logits, dhidden + r * size);
            add_turned(vocab, size, rows, logits, hidden + r * size, r > low, dh);
        }
        losses[part] = loss;
    });
    add_partials(dhead, partial, matrix, parts, threads);
    double total = 0.0;
    for (double loss : losses) total += loss;
    return total;
}

// → logprobs (n), entropy (n), and every probability (n, vocab) when `probabilities` is not null.
extern "C" void native_token_logprobs(const float *hidden, const float *head, const i64 *targets,
                                      float *probabilities, float *logprobs, float *entropy, i64 n, i64 vocab,
                                      i64 size, float temperature, int threads) {
    i64 chunk = chunk_of(vocab);
    Right head_t(head, true, size, vocab, n, 4);
    parallel_parts(n, worth(n, 2 * vocab * size, threads), [&](int, i64 low, i64 high) {
        float *room = probabilities ? nullptr : scratch(1, chunk * vocab);
        for (i64 r = low; r < high; r += chunk) {
            i64 rows = r + chunk < high ? chunk : high - r;
            float *logits = probabilities ? probabilities + r * vocab : room;
            logits_rows(hidden + r * size, head_t, logits, rows, vocab, size, [&](i64 i, float *z) {
                float wanted = z[targets[r + i]] / temperature;
                logprobs[r + i] = wanted - softmax_row(z, vocab, 1.0f / temperature, entropy + r + i);
            });
        }
    });
}

// probabilities are used up. grad: (n), the gradient of the loss with respect to each log-probability.
extern "C" void native_token_logprobs_backward(const float *grad, float *probabilities, const float *hidden,
                                               const float *head, const i64 *targets, float *dhidden, float *dhead,
                                               i64 n, i64 vocab, i64 size, float temperature, int threads) {
    i64 chunk = chunk_of(vocab), matrix = vocab * size;
    int parts = worth(n, 4 * vocab * size, threads);
    float *partial = scratch(3, (parts - 1) * matrix);
    if (n == 0) memset(dhead, 0, matrix * 4);
    Right right(head, false, vocab, size, n, 5);
    parallel_parts(n, parts, [&](int part, i64 low, i64 high) {
        float *dh = part ? partial + (part - 1) * matrix : dhead;
        for (i64 r = low; r < high; r += chunk) {
            i64 rows = r + chunk < high ? chunk : high - r;
            for (i64 i = 0; i < rows; i++) {
                float *z = probabilities + (r + i) * vocab, g = grad[r + i] / temperature;
                for (i64 j = 0; j < vocab; j++) z[j] *= -g;
                z[targets[r + i]] += g;
            }
            const float *z = probabilities + r * vocab;
            right.product(rows, z, dhidden + r * size);
            add_turned(vocab, size, rows, z, hidden + r * size, r > low, dh);
        }
    });
    add_partials(dhead, partial, matrix, parts, threads);
}
