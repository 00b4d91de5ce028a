// y = x · Wᵀ with weights of one byte: groups of GROUP inputs share a scale an output, and x is brought to bytes a row
// and group at a time. Sums within a group are whole numbers, those over groups run in order: a row's result depends on
// nothing but the row. Twin: tests/twins/test_quantised.py, in torch.
#include "step.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

constexpr i64 GROUP = 32; // inputs that share a scale

typedef int32_t Ints __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

// Weights of LANES outputs and as many of their inputs as one instruction takes, ready to be multiplied. Value: what an
// input is multiplied as; OFFSET: what is added to weights so that they fit the instruction.
#if defined(__AVX512VNNI__) || (defined(__AVXVNNI__) && !defined(__AVX512F__))
struct Weights { // unsigned by signed bytes
    typedef int8_t Value;
    static constexpr int OFFSET = 128;
    Ints bytes;
    void load(const uint8_t *from) { bytes = *(const Ints *)from; }
    Ints dot(Ints sum, int32_t x) const {
#if defined(__AVX512VNNI__)
        return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)bytes, _mm512_set1_epi32(x));
#else
        return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)bytes, _mm256_set1_epi32(x));
#endif
    }
};
#elif defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
struct Weights { // widened to 16 bits: byte products need signs and a second sum, which costs Zen cores 1.9 times as much
    typedef int16_t Value;
    static constexpr int OFFSET = 0;
#if defined(__AVX512BW__)
    __m512i wide;
    void load(const uint8_t *from) { wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)from)); }
    Ints dot(Ints sum, int32_t x) const { return sum + (Ints)_mm512_madd_epi16(wide, _mm512_set1_epi32(x)); }
#else
    __m256i wide;
    void load(const uint8_t *from) { wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from)); }
    Ints dot(Ints sum, int32_t x) const { return sum + (Ints)_mm256_madd_epi16(wide, _mm256_set1_epi32(x)); }
#endif
};
#else
struct Weights {
    typedef int8_t Value;
    static constexpr int OFFSET = 128;
    const uint8_t *bytes;
    void load(const uint8_t *from) { bytes = from; }
    Ints dot(Ints sum, int32_t x) const {
        int8_t a[4];
        memcpy(a, &x, 4);
        for (int l = 0; l < LANES; l++)
            for (int i = 0; i < 4; i++) sum[l] += bytes[4 * l + i] * a[i];
        return sum;
    }
};
#endif
typedef Weights::Value Value;
constexpr i64 TAKEN = 4 / sizeof(Value); // inputs that one instruction takes

struct Bytes { // rows of x: bytes (rows, groups · GROUP), and a group's scale and what its sums of products begin with
    const Value *values;
    const float *scales;
    const int32_t *starts;
    i64 groups;
};

// A group as bytes, the largest of which is 127 → their scale, NaN where something in it is not finite.
template <class T> static inline float to_bytes(const float *group, T *values) {
    float most = 0.0f, nothing = 0.0f; // stays 0 unless something is not finite
#pragma omp simd reduction(max : most) reduction(+ : nothing)
    for (i64 i = 0; i < GROUP; i++) {
        float size = std::fabs(group[i]);
        most = size > most ? size : most;
        nothing += group[i] - group[i];
    }
    float factor = most > 0.0f ? 127.0f / most : 0.0f;
    for (i64 i = 0; i < GROUP; i++) values[i] = (T)(int32_t)__builtin_rintf(group[i] * factor);
    return most / 127.0f + nothing;
}

static void row_to_bytes(const float *x, i64 inputs, Value *values, float *scales, int32_t *starts) {
    for (i64 low = 0, g = 0; low < inputs; low += GROUP, g++) {
        alignas(64) float group[GROUP] = {};
        memcpy(group, x + low, (inputs - low < GROUP ? inputs - low : GROUP) * 4);
        scales[g] = to_bytes(group, values + low);
        int32_t sum = 0;
        for (i64 i = 0; i < GROUP; i++) sum += values[low + i];
        starts[g] = -Weights::OFFSET * sum;
    }
}

template <int R, int V>
static inline void tile(const Bytes &x, i64 row, const uint8_t *slice, const float *scales, i64 c, Ahead &ahead,
                        Vec (&sum)[R][V]) {
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = Vec{};
    for (i64 g = 0; g < x.groups; g++) {
        ahead.ask();
        Ints whole[R][V];
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) whole[r][v] = Ints{} + x.starts[(row + r) * x.groups + g];
        const uint8_t *weights = slice + (g * GROUP * SLICE + c * TAKEN);
        for (i64 i = 0; i < GROUP; i += TAKEN, weights += SLICE * TAKEN) {
            Weights taken[V];
            for (int v = 0; v < V; v++) taken[v].load(weights + v * LANES * TAKEN);
            for (int r = 0; r < R; r++) {
                int32_t inputs;
                memcpy(&inputs, x.values + ((row + r) * x.groups + g) * GROUP + i, sizeof inputs);
                for (int v = 0; v < V; v++) whole[r][v] = taken[v].dot(whole[r][v], inputs);
            }
        }
        for (int v = 0; v < V; v++) {
            Vec scale = *(const Vec *)(scales + g * SLICE + c + v * LANES);
            for (int r = 0; r < R; r++)
                sum[r][v] += __builtin_convertvector(whole[r][v], Vec) * (scale * x.scales[(row + r) * x.groups + g]);
        }
    }
}

// Vectors of a tile of R rows: on AVX-512 a whole slice for few rows, else two, and rows' sums fill the registers.
template <int R> constexpr int width() { return R <= 3 ? MAX_VECTORS : 2; }

// Not inlined: as a part of its caller one row takes 8 % longer (GCC 12).
template <int R, int V = width<R>()>
__attribute__((noinline)) static void rows_of(const Matrix &w, const Bytes &x, i64 row, const uint8_t *slice,
                                              const float *scales, i64 column, float *y, i64 y_row, bool add,
                                              Ahead &ahead) {
    for (i64 c = 0; c < SLICE && column + c < w.outputs; c += V * LANES) {
        Vec sum[R][V];
        tile<R, V>(x, row, slice, scales, c, ahead, sum);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) store(w, sum[r][v], column + c + v * LANES, y + (row + r) * y_row, add);
    }
}

static void panel_rows(const Matrix &w, const Bytes &x, i64 rows, i64 panel, float *y, i64 y_row, bool add) {
    i64 inputs = x.groups * GROUP, first = panel * PANEL, end = first + PANEL;
    const uint8_t *weights = (const uint8_t *)w.panels;
    i64 passes = PANEL / LANES / (rows <= 3 ? width<3>() : width<4>());
    Ahead ahead(weights + end * inputs, end >= w.outputs ? 0 : GROUP * PANEL, rows, passes, 1);
    for (i64 c = first; c < end && c < w.outputs; c += SLICE) { // a slice stays in the first cache for all rows
        const uint8_t *slice = weights + c * inputs;
        const float *scales = w.scales + c * x.groups;
        for_tiles(rows, [&](auto height, i64 r) {
            rows_of<decltype(height)::value>(w, x, r, slice, scales, c, y, y_row, add, ahead);
        });
    }
}

void multiply_quantised(const Matrix &w, const float *x, i64 x_row, i64 rows, float *y, i64 y_row, bool add,
                        int threads) {
    i64 groups = (w.inputs + GROUP - 1) / GROUP, panels = (w.outputs + PANEL - 1) / PANEL;
    Value *values = (Value *)scratch(6, rows * groups * GROUP / TAKEN);
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

// W (outputs, inputs), any strides → panels (ceil(outputs / PANEL), PANEL / SLICE, groups · GROUP / TAKEN, SLICE, TAKEN) of
// bytes + OFFSET and scales (ceil(outputs / PANEL), PANEL / SLICE, groups, SLICE); 0 beyond the last input and output.
extern "C" void native_pack_bytes(const float *weight, i64 output_step, i64 input_step, i64 outputs, i64 inputs,
                                  uint8_t *panels, float *scales, int threads) {
    i64 count = (outputs + PANEL - 1) / PANEL * PANEL / SLICE, groups = (inputs + GROUP - 1) / GROUP;
    parallel(count, worth(count, 8 * inputs * SLICE, threads), [&](i64 slice) {
        for (i64 j = 0; j < SLICE; j++) // a row of W from end to end, as memory likes to be read
            for (i64 g = 0; g < groups; g++) {
                i64 output = slice * SLICE + j, first = g * GROUP;
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
                i64 place = slice * groups + g;
                scales[place * SLICE + j] = to_bytes(group, values);
                for (i64 i = 0; i < GROUP; i++) values[i] = (int8_t)(values[i] + Weights::OFFSET); // the same bits unsigned
                uint8_t *to = panels + (place * GROUP * SLICE + j * TAKEN);
                for (i64 i = 0; i < GROUP; i += TAKEN) memcpy(to + i * SLICE, values + i, TAKEN);
            }
    });
}
