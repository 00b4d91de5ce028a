// Choosing tokens from logits; twin: engine/choice.py.
#include "common.h"

// One token a row by inverting the cumulative distribution of softmax(logits·inverse) at the row's own uniform in [0, 1);
// where inverse (n), one over the temperature, is 0 the most likely one, with its log-probability at temperature 1. A
// token of probability 0 is never chosen. Logits that are NaN or +∞ give the log-probability NaN.
extern "C" void native_choose(const float *logits, const float *inverse, const double *uniforms, i64 *tokens,
                              float *logprobs, i64 n, i64 vocab, int threads) {
    constexpr i64 BLOCK = 64;
    parallel_parts(n, worth(n, 20 * vocab, threads), [&](int, i64 low, i64 high) {
        i64 blocks = (vocab + BLOCK - 1) / BLOCK;
        float *weights = scratch(1, blocks * BLOCK);
        std::vector<double> sums(blocks);
        for (i64 row = low; row < high; row++) {
            const float *z = logits + row * vocab;
            bool greedy = inverse[row] == 0.0f;
            float factor = greedy ? 1.0f : inverse[row];
            memcpy(weights, z, vocab * 4); // a copy in whole vectors, and in the cache
            for (i64 i = vocab; i < blocks * BLOCK; i++) weights[i] = -INFINITY;
            Vec most = *(Vec *)weights;
            auto unordered = most != most;
            for (i64 i = LANES; i < blocks * BLOCK; i += LANES) {
                Vec x = *(Vec *)(weights + i);
                most = x > most ? x : most;
                unordered |= x != x;
            }
            float highest = most[0];
            for (int i = 1; i < LANES; i++) highest = most[i] > highest ? most[i] : highest;
            bool bad = highest == INFINITY || highest == -INFINITY;
            for (int i = 0; i < LANES; i++) bad |= unordered[i] != 0;
            if (bad) {
                tokens[row] = 0;
                logprobs[row] = NAN;
                continue;
            }
            double total = 0.0;
            for (i64 b = 0; b < blocks; b++) {
                Vec sum{};
                for (i64 i = b * BLOCK; i < (b + 1) * BLOCK; i += LANES) {
                    Vec e = fast_exp((*(Vec *)(weights + i) - highest) * factor);
                    *(Vec *)(weights + i) = e;
                    sum += e;
                }
                total += sums[b] = sum_of(sum);
            }
            i64 token = vocab - 1;
            if (greedy) {
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
            logprobs[row] = (z[token] - highest) * factor - (float)std::log(total);
        }
    });
}
