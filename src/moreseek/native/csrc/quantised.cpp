// y = x · Wᵀ with weights of one byte: groups of GROUP inputs share a scale an output, and x is brought to bytes a row
// and group at a time. Sums within a group are whole numbers, those over groups run in order: a row's result depends on
// nothing but the row. Twin: tests/twins/test_quantised.py, in torch.
#include "step.h"
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__AVX2__)
#include <immintrin.h>
#endif

constexpr i64 GROUP = 32, QUAD = 4; // inputs that share a scale; inputs that one instruction takes
constexpr int OFFSET = 128;         // weights are stored with it, since VNNI takes unsigned by signed bytes

typedef int32_t Ints __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

// QUAD weights for each of LANES outputs, ready to be multiplied, and what a sum of products begins with.
#if defined(__AVX512VNNI__)
struct Quads {
    __m512i bytes;
    explicit Quads(const uint8_t *from) : bytes(_mm512_loadu_si512(from)) {}
    Ints dot(Ints sum, int32_t x) const { return (Ints)_mm512_dpbusd_epi32((__m512i)sum, bytes, _mm512_set1_epi32(x)); }
    static int32_t start(int32_t x_sum) { return -OFFSET * x_sum; }
};
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
struct Quads {
    __m256i bytes;
    explicit Quads(const uint8_t *from) : bytes(_mm256_loadu_si256((const __m256i *)from)) {}
    Ints dot(Ints sum, int32_t x) const { return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, bytes, _mm256_set1_epi32(x)); }
    static int32_t start(int32_t x_sum) { return -OFFSET * x_sum; }
};
#elif defined(__AVX2__) && !defined(__AVX512F__)
// Unsigned by signed into 16 bits would overflow: so sizes by x with the weight's sign, 2 · 127 · 127 at most.
struct Quads {
    __m256i bytes, sizes;
    explicit Quads(const uint8_t *from)
        : bytes(_mm256_xor_si256(_mm256_loadu_si256((const __m256i *)from), _mm256_set1_epi8((char)OFFSET))),
          sizes(_mm256_abs_epi8(bytes)) {}
    Ints dot(Ints sum, int32_t x) const {
        __m256i pairs = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(_mm256_set1_epi32(x), bytes));
        return sum + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    static int32_t start(int32_t) { return 0; }
};
#else
struct Quads {
    const uint8_t *bytes;
    explicit Quads(const uint8_t *from) : bytes(from) {}
    Ints dot(Ints sum, int32_t x) const {
        int8_t a[QUAD];
        memcpy(a, &x, QUAD);
        for (int l = 0; l < LANES; l++)
            for (int i = 0; i < QUAD; i++) sum[l] += bytes[QUAD * l + i] * a[i];
        return sum;
    }
    static int32_t start(int32_t x_sum) { return -OFFSET * x_sum; }
};
#endif

struct Bytes { // rows of x: bytes (rows, groups · GROUP), and a group's scale and what its sums of products begin with
    const int8_t *values;
    const float *scales;
    const int32_t *starts;
    i64 groups;
};

// A group as bytes, the largest of which is 127 → their scale, NaN where something in it is not finite.
static inline float to_bytes(const float *group, int8_t *values) {
    float most = 0.0f, nothing = 0.0f; // stays 0 unless something is not finite
#pragma omp simd reduction(max : most) reduction(+ : nothing)
    for (i64 i = 0; i < GROUP; i++) {
        float size = std::fabs(group[i]);
        most = size > most ? size : most;
        nothing += group[i] - group[i];
    }
    float factor = most > 0.0f ? 127.0f / most : 0.0f;
    for (i64 i = 0; i < GROUP; i++) values[i] = (int8_t)(int32_t)__builtin_rintf(group[i] * factor);
    return most / 127.0f + nothing;
}

static void row_to_bytes(const float *x, i64 inputs, int8_t *values, float *scales, int32_t *starts) {
    for (i64 low = 0, g = 0; low < inputs; low += GROUP, g++) {
        alignas(64) float group[GROUP] = {};
        memcpy(group, x + low, (inputs - low < GROUP ? inputs - low : GROUP) * 4);
        scales[g] = to_bytes(group, values + low);
        int32_t sum = 0;
        for (i64 i = 0; i < GROUP; i++) sum += values[low + i];
        starts[g] = Quads::start(sum);
    }
}

template <int R, int V>
static inline void tile(const Bytes &x, i64 row, const uint8_t *panel, const float *scales, i64 c, Ahead &ahead,
                        Vec (&sum)[R][V]) {
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = Vec{};
    for (i64 g = 0; g < x.groups; g++) {
        ahead.ask();
        Ints whole[R][V];
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) whole[r][v] = Ints{} + x.starts[(row + r) * x.groups + g];
        const uint8_t *weights = panel + (g * GROUP * PANEL + c * QUAD);
        for (i64 i = 0; i < GROUP; i += QUAD, weights += PANEL * QUAD)
            for (int v = 0; v < V; v++) {
                Quads quads(weights + v * LANES * QUAD);
                for (int r = 0; r < R; r++) {
                    int32_t inputs;
                    memcpy(&inputs, x.values + ((row + r) * x.groups + g) * GROUP + i, QUAD);
                    whole[r][v] = quads.dot(whole[r][v], inputs);
                }
            }
        for (int v = 0; v < V; v++) {
            Vec scale = *(const Vec *)(scales + g * PANEL + c + v * LANES);
            for (int r = 0; r < R; r++)
                sum[r][v] += __builtin_convertvector(whole[r][v], Vec) * (scale * x.scales[(row + r) * x.groups + g]);
        }
    }
}

template <int R, int V>
static void rows_of(const Matrix &w, const Bytes &x, i64 row, const uint8_t *panel, const float *scales, i64 column,
                    float *y, i64 y_row, bool add, Ahead &ahead) {
    for (i64 c = 0; c < PANEL && column + c < w.outputs; c += V * LANES) {
        Vec sum[R][V];
        tile<R, V>(x, row, panel, scales, c, ahead, sum);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) store(w, sum[r][v], column + c + v * LANES, y + (row + r) * y_row, add);
    }
}

static void panel_rows(const Matrix &w, const Bytes &x, i64 rows, i64 panel, float *y, i64 y_row, bool add) {
    constexpr int FEW = MAX_VECTORS, MANY = MAX_VECTORS > 2 ? 2 : 1;
    const uint8_t *weights = (const uint8_t *)w.panels + panel * x.groups * GROUP * PANEL;
    const float *scales = w.scales + panel * x.groups * PANEL;
    i64 column = panel * PANEL, group_bytes = GROUP * PANEL;
    bool last = column + PANEL >= w.outputs;
    Ahead ahead(weights + x.groups * group_bytes, last ? 0 : group_bytes, rows, PANEL / (FEW * LANES), 1);
    for (i64 r = 0, take; r < rows; r += take) {
        take = tile_rows(rows - r);
        switch (take) {
        case 1: rows_of<1, FEW>(w, x, r, weights, scales, column, y, y_row, add, ahead); break;
        case 2: rows_of<2, FEW>(w, x, r, weights, scales, column, y, y_row, add, ahead); break;
        case 3: rows_of<3, FEW>(w, x, r, weights, scales, column, y, y_row, add, ahead); break;
        case 4: rows_of<4, MANY>(w, x, r, weights, scales, column, y, y_row, add, ahead); break;
        case 5: rows_of<5, MANY>(w, x, r, weights, scales, column, y, y_row, add, ahead); break;
        default: rows_of<6, MANY>(w, x, r, weights, scales, column, y, y_row, add, ahead);
        }
    }
}

void multiply_quantised(const Matrix &w, const float *x, i64 x_row, i64 rows, float *y, i64 y_row, bool add,
                        int threads) {
    i64 groups = (w.inputs + GROUP - 1) / GROUP, panels = (w.outputs + PANEL - 1) / PANEL;
    int8_t *values = (int8_t *)scratch(6, rows * groups * GROUP / 4);
    float *scales = scratch(7, rows * groups);
    int32_t *starts = (int32_t *)scratch(8, rows * groups);
    parallel_parts(rows, worth(rows, 4 * w.inputs, threads), [&](int, i64 low, i64 high) {
        for (i64 r = low; r < high; r++)
            row_to_bytes(x + r * x_row, w.inputs, values + r * groups * GROUP, scales + r * groups, starts + r * groups);
    });
    Bytes bytes{values, scales, starts, groups};
    parallel(panels, worth(panels, 2 * rows * w.inputs * PANEL / 4, threads),
             [&](i64 panel) { panel_rows(w, bytes, rows, panel, y, y_row, add); });
}

// W (outputs, inputs), any strides → panels (ceil(outputs / PANEL), groups · GROUP / QUAD, PANEL, QUAD) of bytes + OFFSET
// and scales (ceil(outputs / PANEL), groups, PANEL); 0 beyond the last input and output.
extern "C" void native_pack_bytes(const float *weight, i64 output_step, i64 input_step, i64 outputs, i64 inputs,
                                  uint8_t *panels, float *scales, int threads) {
    i64 count = (outputs + PANEL - 1) / PANEL, groups = (inputs + GROUP - 1) / GROUP;
    parallel(count, worth(count, 8 * inputs * PANEL, threads), [&](i64 panel) {
        for (i64 j = 0; j < PANEL; j++) // a row of W from end to end, as memory likes to be read
            for (i64 g = 0; g < groups; g++) {
                i64 output = panel * PANEL + j, first = g * GROUP;
                alignas(64) float group[GROUP] = {};
                alignas(64) int8_t values[GROUP];
                if (output < outputs) {
                    const float *from = weight + output * output_step + first * input_step;
                    i64 taken = inputs - first < GROUP ? inputs - first : GROUP;
                    if (input_step == 1)
                        memcpy(group, from, taken * 4);
                    else
                        for (i64 i = 0; i < taken; i++) group[i] = from[i * input_step];
                }
                scales[(panel * groups + g) * PANEL + j] = to_bytes(group, values);
                for (i64 i = 0; i < GROUP; i++) values[i] = (int8_t)(values[i] + OFFSET); // the same bits unsigned
                uint8_t *to = panels + ((panel * groups + g) * GROUP * PANEL + j * QUAD);
                for (i64 i = 0; i < GROUP; i += QUAD) memcpy(to + i * PANEL, values + i, QUAD);
            }
    });
}
