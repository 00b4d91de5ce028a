// y = x · Wᵀ with packed weights. Every sum runs over the inputs in order, so that a row's result does not depend on
// how many rows there are, on the tile it falls into or on the threads; twin: plain linear.
#include "step.h"

constexpr i64 SPAN = 16; // inputs after which the next panel is asked for

// slices: those that hold the tile's outputs, one behind another
template <int R, int V>
static inline void tile(i64 inputs, const float *x, i64 x_row, const float *slices, Ahead &ahead, Vec (&sum)[R][V]) {
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = Vec{};
    for (i64 low = 0; low < inputs; low += SPAN) {
        ahead.ask();
        i64 end = low + SPAN < inputs ? low + SPAN : inputs;
        for (i64 i = low; i < end; i++) {
            Vec w[V];
            for (int v = 0; v < V; v++)
                w[v] = *(const Vec *)(slices + (v / MAX_VECTORS * inputs + i) * SLICE + v % MAX_VECTORS * LANES);
            for (int r = 0; r < R; r++) {
                float a = x[r * x_row + i];
                for (int v = 0; v < V; v++) sum[r][v] += a * w[v];
            }
        }
    }
}

// Vectors of a tile of R rows: as many as registers hold, in whole slices. One row waits for memory, and reads one slice
// after the other as a single stream.
template <int R> constexpr int width() {
    constexpr int ALL = PANEL / LANES, FIT = R == 2 || R == 3 ? 4 : MAX_VECTORS;
    return LANES == 16 ? MAX_VECTORS : FIT < ALL ? FIT : ALL;
}

template <int R, int V = width<R>()>
static void rows_of(const Matrix &w, const float *x, i64 x_row, const float *panel, i64 column, float *y, i64 y_row,
                    bool add, Ahead &ahead) {
    for (i64 c = 0; c < PANEL && column + c < w.outputs; c += V * LANES) {
        Vec sum[R][V];
        tile<R, V>(w.inputs, x, x_row, panel + c * w.inputs, ahead, sum);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) store(w, sum[r][v], column + c + v * LANES, y + r * y_row, add);
    }
}

static void panel_rows(const Matrix &w, const float *x, i64 x_row, i64 rows, i64 panel, float *y, i64 y_row, bool add) {
    const float *weights = (const float *)w.panels + panel * w.inputs * PANEL;
    i64 column = panel * PANEL;
    bool last = column + PANEL >= w.outputs;
    i64 passes = PANEL / LANES / (rows <= 3 ? width<2>() : MAX_VECTORS);
    Ahead ahead(weights + w.inputs * PANEL, last ? 0 : SPAN * PANEL * 4, rows, passes, 2);
    for_tiles(rows, [&](auto height, i64 r) {
        rows_of<decltype(height)::value>(w, x + r * x_row, x_row, weights, column, y + r * y_row, y_row, add, ahead);
    });
}

// y (rows, outputs) = or += x (rows, inputs) · Wᵀ + bias
void multiply(const Matrix &w, const float *x, i64 x_row, i64 rows, float *y, i64 y_row, bool add, int threads) {
    if (w.format == BYTES) return multiply_quantised(w, x, x_row, rows, y, y_row, add, threads);
    if (w.format == HALVES) return multiply_bf16(w, x, x_row, rows, y, y_row, add, threads);
    i64 panels = (w.outputs + PANEL - 1) / PANEL;
    parallel(panels, worth(panels, 2 * rows * w.inputs * PANEL, threads),
             [&](i64 panel) { panel_rows(w, x, x_row, rows, panel, y, y_row, add); });
}

// One product alone, for the tests: x (rows, inputs) → y (rows, outputs).
extern "C" void native_multiply(const Matrix *w, const float *x, i64 rows, float *y, int threads) {
    multiply(*w, x, w->inputs, rows, y, w->outputs, false, threads);
}

// panels of W (outputs, inputs), any strides.
extern "C" void native_pack(const float *weight, i64 output_step, i64 input_step, i64 outputs, i64 inputs,
                            float *panels, int threads) {
    i64 count = (outputs + PANEL - 1) / PANEL * PANEL / SLICE;
    parallel(count, worth(count, 8 * inputs * SLICE, threads), [&](i64 slice) {
        float *to = panels + slice * inputs * SLICE;
        i64 low = slice * SLICE, left = outputs > low ? outputs - low : 0, width = left < SLICE ? left : SLICE;
        for (i64 first = 0; first < inputs; first += 16) { // tile by tile: reads and writes stay in the cache
            i64 end = first + 16 < inputs ? first + 16 : inputs;
            for (i64 j = 0; j < width; j++)
                for (i64 i = first; i < end; i++)
                    to[i * SLICE + j] = weight[(low + j) * output_step + i * input_step];
            for (i64 i = first; i < end; i++)
                for (i64 j = width; j < SLICE; j++) to[i * SLICE + j] = 0.0f;
        }
    });
}

// Read n floats, a multiple of 8 vectors apart from a rest that is left out: what memory gives at most.
extern "C" double native_read(const float *numbers, i64 n, int threads) {
    constexpr i64 WIDE = 8 * LANES, PARTS = 64;
    static thread_local double sums[PARTS];
    double *to = sums;
    parallel(PARTS, threads, [&](i64 part) {
        Vec sum[8] = {};
        for (i64 i = n / WIDE * part / PARTS * WIDE, end = n / WIDE * (part + 1) / PARTS * WIDE; i < end; i += WIDE)
            for (i64 v = 0; v < 8; v++) sum[v] += *(const Vec *)(numbers + i + v * LANES);
        to[part] = sum_of(((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])));
    });
    double total = 0.0;
    for (double sum : sums) total += sum;
    return total;
}
