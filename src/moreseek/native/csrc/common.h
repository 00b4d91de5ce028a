// Shared by all kernels: vectors, exp, a small matrix product, threads and scratch memory.
// Plain C++17 with GCC/Clang vector extensions: no intrinsics, so that it builds on any CPU.
#pragma once
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

using i64 = int64_t;

#if defined(__AVX512F__)
constexpr int LANES = 16, MAX_VECTORS = 4;
#elif defined(__AVX__)
constexpr int LANES = 8, MAX_VECTORS = 2;
#else
constexpr int LANES = 4, MAX_VECTORS = 4;
#endif
typedef float Vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

static inline i64 padded(i64 n) { return (n + LANES - 1) / LANES * LANES; }

// exp to about 1 ulp, branch-free so that loops over it vectorise; 0 below -87, NaN stays NaN.
static inline float fast_exp(float x) {
    float clamped = x > 88.3f ? 88.3f : x;
    clamped = clamped < -87.3f ? -87.3f : clamped;
    float n = __builtin_rintf(clamped * 1.44269504088896341f);
    float r = clamped - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return x < -87.3f ? 0.0f : p * scale;
}

// The same for a whole vector, for rows whose length is a multiple of LANES: no slow last elements.
static inline Vec fast_exp(Vec x) {
    typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
    Vec clamped = x > 88.3f ? Vec{} + 88.3f : x;
    clamped = clamped < -87.3f ? Vec{} - 87.3f : clamped;
    Vec n = (clamped * 1.44269504088896341f + 12582912.0f) - 12582912.0f; // to the nearest integer
    Vec r = clamped - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    Vec p = Vec{} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    Ints bits = (__builtin_convertvector(n, Ints) + 127) << 23;
    Vec scale;
    memcpy(&scale, &bits, sizeof scale);
    return x < -87.3f ? Vec{} : p * scale;
}

static inline float sum_of(Vec x) {
    float total = 0.0f;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define MORESEEK_SHUFFLES
#endif
#endif

#ifdef MORESEEK_SHUFFLES
// x's and y's neighbours added, within each 16 bytes of the two: that takes one instruction for each shuffle.
static inline Vec neighbours(Vec x, Vec y) {
#if defined(__AVX512F__)
    return __builtin_shufflevector(x, y, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) +
           __builtin_shufflevector(x, y, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
#elif defined(__AVX__)
    return __builtin_shufflevector(x, y, 0, 2, 8, 10, 4, 6, 12, 14) +
           __builtin_shufflevector(x, y, 1, 3, 9, 11, 5, 7, 13, 15);
#else
    return __builtin_shufflevector(x, y, 0, 2, 4, 6) + __builtin_shufflevector(x, y, 1, 3, 5, 7);
#endif
}

// And neighbouring 16 bytes of x, then of y.
static inline Vec quarters(Vec x, Vec y) {
#if defined(__AVX512F__)
    return __builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           __builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
#elif defined(__AVX__)
    return __builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11) +
           __builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15);
#else
    return x + y; // of 16 bytes there are no neighbours, and nobody asks
#endif
}
#endif

// Lane i of the result is the sum of a[i]'s lanes.
static inline Vec sums_of(Vec *a) {
#ifdef MORESEEK_SHUFFLES
#pragma GCC unroll 4 // else GCC keeps the vectors in memory
    for (int count = LANES / 2; count; count /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < count; i++)
            a[i] = 4 * count >= LANES ? neighbours(a[2 * i], a[2 * i + 1]) : quarters(a[2 * i], a[2 * i + 1]);
    return a[0];
#else
    Vec out{};
    for (int i = 0; i < LANES; i++) out[i] = sum_of(a[i]);
    return out;
#endif
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

// A thread's own buffer number `slot`, at least n floats, kept between calls: no page faults after the first.
static inline float *scratch(int slot, i64 n) {
    static thread_local std::vector<float> buffers[24];
    if ((i64)buffers[slot].size() < n) buffers[slot].resize(n);
    return buffers[slot].data();
}

// A thread's own room as scratch() gives it, where vectors do not cross the lines of the cache.
static inline float *aligned_scratch(int slot, i64 n) {
    return (float *)(((uintptr_t)scratch(slot, n + 16) + 63) / 64 * 64);
}

// GOMP_parallel of the OpenMP runtime that torch brought along, so that both share one pool of threads, whatever
// compiler built this; null where there is none. Set once by native_start.
typedef void (*RunTeam)(void (*)(void *), void *, unsigned, unsigned);
extern RunTeam run_team;

// f(task) for every task, in parallel. Which thread runs a task may change, so f must not share sums between tasks.
template <class F> static void parallel(i64 tasks, int threads, F f) {
    if (threads <= 1 || tasks <= 1 || !run_team) {
        for (i64 task = 0; task < tasks; task++) f(task);
        return;
    }
    struct Work {
        F *f;
        i64 tasks;
        std::atomic<i64> next;
    } work{&f, tasks, {0}};
    run_team(
        [](void *data) {
            Work &work = *(Work *)data;
            for (i64 task; (task = work.next++) < work.tasks;) (*work.f)(task);
        },
        &work, (unsigned)(threads < tasks ? threads : tasks), 0);
}

// f(part, low, high): the same `parts` contiguous pieces of 0..n whatever thread runs them, so sums are repeatable.
template <class F> static void parallel_parts(i64 n, int parts, F f) {
    parallel(parts, parts, [&](i64 part) {
        i64 low = n * part / parts, high = n * (part + 1) / parts;
        f((int)part, low, high);
    });
}

// How many parts are worth a thread each when every unit of work is `cost` floating-point operations.
static inline int worth(i64 n, i64 cost, int threads) {
    i64 parts = n * cost / 20000;
    parts = parts > threads ? threads : parts;
    parts = parts > n ? n : parts;
    return (int)(parts < 1 ? 1 : parts);
}

template <int R, int V>
static inline void product_tile(i64 k, const float *a, i64 a_row, i64 a_col, const float *b, i64 ldb, float *c, i64 ldc,
                                bool add) {
    Vec sum[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = add ? *(const Vec *)(c + r * ldc + v * LANES) : Vec{};
    for (i64 i = 0; i < k; i++) {
        Vec row[V];
        for (int v = 0; v < V; v++) row[v] = *(const Vec *)(b + i * ldb + v * LANES);
        for (int r = 0; r < R; r++) {
            float x = a[r * a_row + i * a_col];
            for (int v = 0; v < V; v++) sum[r][v] += x * row[v];
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) *(Vec *)(c + r * ldc + v * LANES) = sum[r][v];
}

template <int V>
static void product_columns(i64 m, i64 k, const float *a, i64 a_row, i64 a_col, const float *b, i64 ldb, float *c,
                            i64 ldc, bool add) {
    i64 r = 0;
    for (; r + 6 <= m; r += 6) product_tile<6, V>(k, a + r * a_row, a_row, a_col, b, ldb, c + r * ldc, ldc, add);
    for (; r + 2 <= m; r += 2) product_tile<2, V>(k, a + r * a_row, a_row, a_col, b, ldb, c + r * ldc, ldc, add);
    for (; r < m; r++) product_tile<1, V>(k, a + r * a_row, a_row, a_col, b, ldb, c + r * ldc, ldc, add);
}

// C (m, n) = or += A (m, k) · B (k, n). n is a multiple of LANES; A has any strides, so its transpose is free.
static inline void product(i64 m, i64 n, i64 k, const float *a, i64 a_row, i64 a_col, const float *b, i64 ldb, float *c,
                    i64 ldc, bool add) {
    i64 j = 0;
    for (; j + MAX_VECTORS * LANES <= n; j += MAX_VECTORS * LANES)
        product_columns<MAX_VECTORS>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, add);
    if constexpr (MAX_VECTORS > 2)
        for (; j + 2 * LANES <= n; j += 2 * LANES)
            product_columns<2>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, add);
    for (; j < n; j += LANES) product_columns<1>(m, k, a, a_row, a_col, b + j, ldb, c + j, ldc, add);
}

// target += the partial sums of parts 1.., which stand one after another behind `partial`.
static inline void add_partials(float *target, const float *partial, i64 n, int parts, int threads) {
    parallel_parts(n, worth(n, parts, threads), [&](int, i64 low, i64 high) {
        for (int part = 1; part < parts; part++) {
            const float *from = partial + (part - 1) * n;
            for (i64 i = low; i < high; i++) target[i] += from[i];
        }
    });
}

extern "C" void native_choose(const float *logits, const float *inverse, const double *uniforms, i64 *tokens,
                              float *logprobs, i64 n, i64 vocab, int threads); // choose.cpp
