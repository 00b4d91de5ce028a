// Several steps in one call, for rows that all decode and ask for nothing but a temperature: with a small model and few
// rows the Python of a step costs more than its sums. Twin: as many steps of engine/scheduler.py.
#include "step.h"
#include <algorithm>
#include <chrono>

struct MultiStep { // rows as the scheduler has them (engine/rows.py); all known tokens but the newest are in the cache
    i64 rows, most, draw_stride, vocabulary, hidden, table_stride, token_stride, logprob_stride, stop_stride;
    i64 nanoseconds;                           // no step is begun after these
    const i64 *known, *prompt, *limit;         // (rows)
    const i64 *stops;                          // (rows, stop_stride)
    const int32_t *table;                      // (rows, table_stride)
    const float *inverse, *phases;             // (rows); (positions, rope)
    const double *draws;                       // (rows, draw_stride)
    i64 *tokens;                               // (rows, token_stride): chosen ones are written behind those known
    float *logprobs;                           // (rows, logprob_stride)
};

// Whether the token at this place of the row is its last, or none at all.
static bool ends(const MultiStep &d, i64 row, i64 at) {
    const i64 *stops = d.stops + row * d.stop_stride;
    i64 token = d.tokens[row * d.token_stride + at];
    if (std::isnan(d.logprobs[row * d.logprob_stride + at]) || at + 1 >= d.limit[row]) return true;
    return std::find(stops, stops + d.stop_stride, token) != stops + d.stop_stride;
}

// → the steps made: `most`, or as many as it took until a row ended or time was up. Each gave every row one token.
extern "C" i64 native_multi_step(const Model *model, const MultiStep *given, int threads) {
    const MultiStep &d = *given;
    auto until = std::chrono::steady_clock::now() + std::chrono::nanoseconds(d.nanoseconds);
    std::vector<i64> ids(d.rows), each(d.rows), one(d.rows, 1), start(d.rows), tokens(d.rows);
    std::vector<float> hidden(d.rows * d.hidden), logits(d.rows * d.vocabulary), logprobs(d.rows);
    std::vector<double> uniforms(d.rows);
    for (i64 row = 0; row < d.rows; row++) each[row] = row;
    Step step{d.rows,       d.rows,   d.rows,      d.table_stride, ids.data(),    each.data(), one.data(), start.data(),
              d.table,      d.phases, each.data(), hidden.data(),  logits.data(), nullptr,     nullptr};
    for (i64 made = 0;;) {
        for (i64 row = 0; row < d.rows; row++) {
            start[row] = d.known[row] + made - 1;
            ids[row] = d.tokens[row * d.token_stride + start[row]];
            uniforms[row] = d.draws[row * d.draw_stride + (d.known[row] + made - d.prompt[row]) % d.draw_stride];
        }
        native_step(model, &step, threads);
        native_choose(logits.data(), d.inverse, uniforms.data(), tokens.data(), logprobs.data(), d.rows, d.vocabulary,
                      threads);
        bool ended = false;
        for (i64 row = 0; row < d.rows; row++) {
            i64 at = d.known[row] + made;
            d.tokens[row * d.token_stride + at] = tokens[row];
            d.logprobs[row * d.logprob_stride + at] = logprobs[row];
            ended |= ends(d, row, at);
        }
        if (++made == d.most || ended || std::chrono::steady_clock::now() >= until) return made;
    }
}
