// Guesses by an MTP module behind the newest tokens of a step's rows, all in one call: with a model of a few layers the
// calls would cost more than the sums. Twin: engine/drafts.py.
#include "step.h"

struct Draft { // rows as the scheduler has them (engine/rows.py), once it has taken in what a step chose
    i64 rows, most, draws, vocabulary, hidden, table_stride, token_stride;
    const i64 *first, *start;                     // (rows): of that step
    const i64 *computed, *known, *prompt, *limit, *owned; // (rows); owned: blocks
    const bool *going, *single;                   // (rows): those that are to be read; those that take no guesses
    const int32_t *table;                         // (rows, table_stride)
    const float *states, *phases;                 // (the step's tokens, hidden), (positions, rope)
    i64 *tokens;                                  // (rows, token_stride): guesses are written behind those known,
    i64 *drafted;                                 // (rows): and counted
};

// How many tokens may be guessed: one more is always chosen, draws come in pieces, and the look for guess g writes to the
// cache at place known + g - 3, which must be the row's own.
static i64 room(const Draft &d, i64 row) {
    if (d.single[row]) return 0;
    i64 left = d.limit[row] - d.known[row] - 1, drawn = d.draws - 1 - (d.known[row] - d.prompt[row]) % d.draws;
    i64 own = d.owned[row] * BLOCK - d.known[row] + 2;
    left = left < drawn ? left : drawn;
    left = left < own ? left : own;
    return left < 0 ? 0 : left < d.most ? left : d.most;
}

static i64 likeliest(const float *logits, i64 vocabulary) {
    i64 best = 0;
    for (i64 i = 1; i < vocabulary; i++) best = logits[i] > logits[best] ? i : best;
    return best;
}

// What the module is given: tokens, each with the state of the token before it.
struct Look {
    std::vector<i64> ids, first, count, start, output;
    std::vector<int32_t> table;
    std::vector<float> states;

    void begin(const Draft &d, i64 row, i64 position) {
        first.push_back((i64)ids.size());
        count.push_back(0);
        start.push_back(position);
        table.insert(table.end(), d.table + row * d.table_stride, d.table + (row + 1) * d.table_stride);
    }
    void add(const Draft &d, i64 id, const float *state) {
        ids.push_back(id);
        count.back()++;
        states.insert(states.end(), state, state + d.hidden);
    }
    void run(const Model &module, const Draft &d, std::vector<float> &hidden, std::vector<float> &logits, int threads) {
        i64 outputs = (i64)output.size();
        hidden.resize(outputs * d.hidden);
        logits.resize(outputs * d.vocabulary);
        Step step{(i64)ids.size(), (i64)first.size(), outputs,       d.table_stride, ids.data(),    first.data(),
                  count.data(),    start.data(),      table.data(),  d.phases,       output.data(), hidden.data(),
                  logits.data(),   nullptr,           states.data()};
        native_step(&module, &step, threads);
    }
};

extern "C" void native_draft(const Model *module, const Draft *given, int threads) {
    const Draft &d = *given;
    Look look;
    std::vector<i64> rows; // those behind which a token stands that the model has just chosen
    for (i64 row = 0; row < d.rows; row++) {
        i64 count = d.computed[row] - d.start[row];
        if (!d.going[row] || count <= 0) continue;
        look.begin(d, row, d.start[row]);
        for (i64 t = 0; t < count; t++)
            look.add(d, d.tokens[row * d.token_stride + d.start[row] + t + 1], d.states + (d.first[row] + t) * d.hidden);
        if (d.known[row] != d.start[row] + count + 1) continue;
        look.output.push_back((i64)look.ids.size() - 1);
        rows.push_back(row);
    }
    if (look.ids.empty()) return;
    std::vector<float> hidden, logits;
    look.run(*module, d, hidden, logits, threads);
    for (i64 turn = 0;; turn++) {
        Look next;
        std::vector<i64> further;
        for (size_t r = 0; r < rows.size(); r++) {
            i64 row = rows[r], at = d.known[row] + turn, left = room(d, row) - turn;
            if (left <= 0) continue;
            i64 guess = likeliest(logits.data() + r * d.vocabulary, d.vocabulary);
            d.tokens[row * d.token_stride + at] = guess;
            d.drafted[row] = turn + 1;
            if (left == 1) continue;
            next.begin(d, row, at - 1);
            next.add(d, guess, hidden.data() + r * d.hidden);
            next.output.push_back((i64)next.ids.size() - 1);
            further.push_back(row);
        }
        if (further.empty()) return;
        next.run(*module, d, hidden, logits, threads);
        rows = further;
    }
}
