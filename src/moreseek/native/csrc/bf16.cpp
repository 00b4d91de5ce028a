// y = x · Wᵀ with weights and activations rounded to bf16 and sums in fp32: by a Xeon's tiles (AMX), which multiply bf16
// eight times as fast as vectors multiply fp32, else by vectors that widen the weights, which read half of what fp32 does.
// A row's result depends on nothing but the row. Twin: tests/twins/test_bf16.py, in torch.
#include "step.h"
#if defined(MORESEEK_TILES) // tests: what stands for the instructions where there are none
#include MORESEEK_TILES
#elif defined(__AMX_BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
// Linux lends a process the tiles' registers only when asked.
bool has_tiles() {
    constexpr long REQUEST = 0x1023, TILE_DATA = 18; // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static bool allowed = !syscall(SYS_arch_prctl, REQUEST, TILE_DATA);
    return allowed;
}
#else
#define WITHOUT_TILES
bool has_tiles() { return false; }
#endif

constexpr i64 SIDE = 16, PAIRS = 16; // outputs of a tile of weights, and the pairs of inputs that it holds of each
constexpr i64 TILE = SIDE * PAIRS * 2;
typedef uint16_t Half;
typedef uint32_t Bits __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

// To the nearest, ties to even; NaN stays NaN.
static inline uint32_t rounded(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t near = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    return x == x ? near : bits | 0x400000u;
}

static inline Half half(float x) { return (Half)(rounded(x) >> 16); }

static inline i64 padded_inputs(i64 inputs) { return (inputs + 2 * PAIRS - 1) / (2 * PAIRS) * (2 * PAIRS); }

// ---------------------------------------------------------------------------------------------- vectors

constexpr int OF_SIDE = SIDE / LANES; // vectors

// x: rows of rounded floats; sides: SIDE outputs one behind another. The first of a pair of inputs is a weight's low half.
template <int R, int V>
static inline void tile(i64 inputs, const float *x, const Half *sides, Ahead &ahead, Vec (&sum)[R][V]) {
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = Vec{};
    for (i64 low = 0; low < inputs; low += 2 * PAIRS) {
        ahead.ask();
        for (i64 i = low; i < low + 2 * PAIRS; i += 2) {
            const Half *pair = sides + i * SIDE;
            Vec w[V];
            auto bits = [&](int v) {
                return *(const Bits *)(pair + v / OF_SIDE * inputs * SIDE + v % OF_SIDE * LANES * 2);
            };
            for (int v = 0; v < V; v++) w[v] = (Vec)(bits(v) << 16);
            for (int r = 0; r < R; r++)
                for (int v = 0; v < V; v++) sum[r][v] += x[r * inputs + i] * w[v];
            for (int v = 0; v < V; v++) w[v] = (Vec)(bits(v) & 0xffff0000u);
            for (int r = 0; r < R; r++)
                for (int v = 0; v < V; v++) sum[r][v] += x[r * inputs + i + 1] * w[v];
        }
    }
}

// Vectors of a tile of R rows: as many as registers hold beside the weights, and for one row enough sums that none waits
// for itself.
template <int R> constexpr int width() {
    constexpr int ALL = PANEL / LANES, FIT = LANES == 16 || R == 1 ? ALL : R <= 3 ? 4 : 2;
    return FIT < OF_SIDE ? OF_SIDE : FIT < ALL ? FIT : ALL;
}

static void by_vectors(const Matrix &w, const float *x, i64 inputs, i64 rows, i64 panel, float *y, i64 y_row, bool add) {
    const Half *weights = (const Half *)w.panels + panel * PANEL * inputs;
    i64 column = panel * PANEL, passes = PANEL / LANES / (rows == 1 ? width<1>() : rows <= 3 ? width<2>() : width<4>());
    Ahead ahead(weights + PANEL * inputs, column + PANEL >= w.outputs ? 0 : 2 * PAIRS * PANEL * 2, rows, passes, 2);
    for_tiles(rows, [&](auto height, i64 r) {
        constexpr int R = decltype(height)::value, V = width<R>();
        for (i64 c = 0; c < PANEL && column + c < w.outputs; c += V * LANES) {
            Vec sum[R][V];
            tile<R, V>(inputs, x + r * inputs, weights + c * inputs, ahead, sum);
            for (int i = 0; i < R; i++)
                for (int v = 0; v < V; v++) store(w, sum[i][v], column + c + v * LANES, y + (r + i) * y_row, add);
        }
    });
}

// ---------------------------------------------------------------------------------------------- tiles

#ifndef WITHOUT_TILES
struct alignas(64) TileShapes { // what ldtilecfg reads
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Sums of `rows` rows and SIDE outputs, which lie in `sums`, into y.
static void store_tile(const Matrix &w, const float *sums, i64 rows, i64 column, float *y, i64 y_row, bool add) {
    for (i64 r = 0; r < rows; r++)
        for (i64 v = 0; v < SIDE && column + v < w.outputs; v += LANES)
            store(w, *(const Vec *)(sums + r * SIDE + v), column + v, y + r * y_row, add);
}

// Up to 32 rows of x by a panel: as two tiles high of rows, of which the first is the higher by at most one, and two wide,
// so that every tile that is read is used twice. 16 rows and fewer: one tile high.
static void rows_by_tiles(const Matrix &w, const Half *x, i64 inputs, i64 rows, const Half *weights, i64 column, float *y,
                          i64 y_row, bool add) {
    constexpr i64 LINE_BYTES = 2 * PAIRS * 2; // of a tile: pairs of inputs, or as many bytes of SIDE sums
    i64 upper = rows <= 16 ? rows : (rows + 1) / 2, lower = rows - upper, x_bytes = inputs * 2;
    TileShapes shapes;
    for (int t = 0; t < 8; t++) {
        bool below = t == 2 || t == 3 || t == 5; // 0, 1: sums above, 2, 3: below; 4, 5: x; 6, 7: weights
        shapes.row_bytes[t] = LINE_BYTES;
        shapes.rows[t] = (uint8_t)(t >= 6 ? PAIRS : below && lower ? lower : upper);
    }
    __asm__ volatile("" ::"r"(&shapes) : "memory"); // GCC 12 thinks that ldtilecfg reads only the first bytes
    _tile_loadconfig(&shapes);
    alignas(64) float sums[16 * SIDE];
    for (i64 c = 0; c < PANEL && column + c < w.outputs; c += 2 * SIDE) {
        const Half *left = weights + c * inputs, *right = left + SIDE * inputs;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (i64 i = 0; i < inputs; i += 2 * PAIRS) {
            _tile_loadd(4, x + i, x_bytes);
            _tile_loadd(6, left + i * SIDE, LINE_BYTES);
            _tile_loadd(7, right + i * SIDE, LINE_BYTES);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            if (lower) {
                _tile_loadd(5, x + upper * inputs + i, x_bytes);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        i64 next = column + c + SIDE;
        float *below = y + upper * y_row;
        _tile_stored(0, sums, LINE_BYTES);
        store_tile(w, sums, upper, column + c, y, y_row, add);
        _tile_stored(1, sums, LINE_BYTES);
        store_tile(w, sums, upper, next, y, y_row, add);
        if (!lower) continue;
        _tile_stored(2, sums, LINE_BYTES);
        store_tile(w, sums, lower, column + c, below, y_row, add);
        _tile_stored(3, sums, LINE_BYTES);
        store_tile(w, sums, lower, next, below, y_row, add);
    }
    _tile_release();
}

static void by_tiles(const Matrix &w, const Half *x, i64 inputs, i64 rows, i64 panel, float *y, i64 y_row, bool add) {
    const Half *weights = (const Half *)w.panels + panel * PANEL * inputs;
    for (i64 r = 0; r < rows; r += 32)
        rows_by_tiles(w, x + r * inputs, inputs, rows - r < 32 ? rows - r : 32, weights, panel * PANEL, y + r * y_row,
                      y_row, add);
}
#endif

// ---------------------------------------------------------------------------------------------- both

// x (rows, inputs) as `to` (rows, padded inputs), zero behind the last input
template <class T, class F>
static void round_rows(const float *x, i64 x_row, i64 inputs, i64 rows, T *to, i64 wide, int threads, F round) {
    parallel_parts(rows, worth(rows, 4 * inputs, threads), [&](int, i64 low, i64 high) {
        for (i64 r = low; r < high; r++) {
            for (i64 i = 0; i < inputs; i++) to[r * wide + i] = round(x[r * x_row + i]);
            for (i64 i = inputs; i < wide; i++) to[r * wide + i] = T{};
        }
    });
}

void multiply_bf16(const Matrix &w, const float *x, i64 x_row, i64 rows, float *y, i64 y_row, bool add, int threads) {
    i64 inputs = padded_inputs(w.inputs), panels = (w.outputs + PANEL - 1) / PANEL;
    float *room = aligned_scratch(6, rows * inputs);
    int several = worth(panels, 2 * rows * w.inputs * PANEL, threads);
#ifndef WITHOUT_TILES
    if (has_tiles()) {
        Half *halves = (Half *)room;
        round_rows(x, x_row, w.inputs, rows, halves, inputs, threads, half);
        return parallel(panels, several, [&](i64 panel) { by_tiles(w, halves, inputs, rows, panel, y, y_row, add); });
    }
#endif
    round_rows(x, x_row, w.inputs, rows, room, inputs, threads, [](float value) {
        uint32_t bits = rounded(value);
        memcpy(&value, &bits, 4);
        return value;
    });
    parallel(panels, several, [&](i64 panel) { by_vectors(w, room, inputs, rows, panel, y, y_row, add); });
}

// W (outputs, inputs), any strides → panels (ceil(outputs / PANEL), PANEL / SIDE, padded inputs / 2, SIDE, 2) of bf16,
// zero beyond the last input and output: TILEs one behind another.
extern "C" void native_pack_bf16(const float *weight, i64 output_step, i64 input_step, i64 outputs, i64 inputs,
                                 Half *panels, int threads) {
    i64 sides = (outputs + PANEL - 1) / PANEL * PANEL / SIDE, wide = padded_inputs(inputs);
    parallel(sides, worth(sides, 8 * inputs * SIDE, threads), [&](i64 side) {
        Half *to = panels + side * wide * SIDE;
        for (i64 first = 0; first < wide; first += 2 * PAIRS, to += TILE)
            for (i64 j = 0; j < SIDE; j++) {
                i64 output = side * SIDE + j;
                const float *from = weight + output * output_step;
                for (i64 i = 0; i < 2 * PAIRS; i++) {
                    bool real = output < outputs && first + i < inputs;
                    to[(i / 2 * SIDE + j) * 2 + i % 2] = real ? half(from[(first + i) * input_step]) : Half{};
                }
            }
    });
}
