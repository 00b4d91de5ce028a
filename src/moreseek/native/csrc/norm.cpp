// RMSNorm, alone or after adding to the residual stream; twins: layers._rms_norm and plain autograd.
#include "gemm.h"

// y = s / sqrt(mean(s²) + eps) · w with s = x, or s = x + delta, which is then written to `sum`.
extern "C" void native_rms_norm(const float *x, i64 x_row, const float *delta, float *sum, const float *w, float *y,
                                float *rstd, i64 rows, i64 size, float eps, int threads) {
    parallel_parts(rows, worth(rows, size, threads), [&](int, i64 low, i64 high) {
        for (i64 row = low; row < high; row++) {
            const float *in = x + row * x_row;
            float *out = y + row * size, squares = 0.0f;
            if (delta) {
                const float *d = delta + row * size;
                float *s = sum + row * size;
#pragma omp simd reduction(+ : squares)
                for (i64 i = 0; i < size; i++) {
                    float value = in[i] + d[i];
                    s[i] = value;
                    squares += value * value;
                }
                in = s;
            } else {
#pragma omp simd reduction(+ : squares)
                for (i64 i = 0; i < size; i++) squares += in[i] * in[i];
            }
            float r = 1.0f / std::sqrt(squares / size + eps);
            if (rstd) rstd[row] = r;
            for (i64 i = 0; i < size; i++) out[i] = in[i] * r * w[i];
        }
    });
}

// dx = r·(g·w − s·r²·mean(g·w·s)) [+ extra], dw = Σ g·s·r. `extra` is the gradient that reached s by another way.
extern "C" void native_rms_norm_backward(const float *grad, const float *extra, const float *x, i64 x_row,
                                         const float *w, const float *rstd, float *dx, float *dw, i64 rows, i64 size,
                                         int threads) {
    int parts = worth(rows, 4 * size, threads);
    float *partial = scratch(0, parts * size);
    parallel_parts(rows, parts, [&](int part, i64 low, i64 high) {
        float *sums = partial + part * size;
        for (i64 i = 0; i < size; i++) sums[i] = 0.0f;
        for (i64 row = low; row < high; row++) {
            const float *g = grad + row * size, *s = x + row * x_row;
            float *out = dx + row * size, r = rstd[row], dot = 0.0f;
#pragma omp simd reduction(+ : dot)
            for (i64 i = 0; i < size; i++) {
                float scaled = g[i] * s[i];
                sums[i] += scaled * r;
                dot += scaled * w[i];
            }
            float c = dot / size * r * r * r;
            if (extra) {
                const float *e = extra + row * size;
                for (i64 i = 0; i < size; i++) out[i] = g[i] * w[i] * r - s[i] * c + e[i];
            } else {
                for (i64 i = 0; i < size; i++) out[i] = g[i] * w[i] * r - s[i] * c;
            }
        }
    });
    for (i64 i = 0; i < size; i++) dw[i] = partial[i];
    add_partials(dw, partial + size, size, parts, 1);
}
