// y = x·Wᵀ with its gradients; twin: torch's linear. Few kernels, but products in pieces that need no copying.
#include "gemm.h"

// x (n, size), weight (out, size) → y (n, out).
extern "C" void native_linear(const float *x, const float *weight, float *y, i64 n, i64 size, i64 out, int threads) {
    Right weight_t(weight, true, size, out, n, 7);
    parallel_parts(n, worth(n, 2 * size * out, threads), [&](int, i64 low, i64 high) {
        weight_t.product(high - low, x + low * size, y + low * out);
    });
}

// dx may be null.
extern "C" void native_linear_backward(const float *grad, const float *x, const float *weight, float *dx, float *dweight,
                                       i64 n, i64 size, i64 out, int threads) {
    i64 chunk = 512, matrix = out * size;
    int parts = worth(n, 4 * matrix, threads);
    if (n == 0) memset(dweight, 0, matrix * 4);
    float *partial = scratch(3, (parts - 1) * matrix);
    Right right(weight, false, out, size, dx ? n : 0, 7);
    parallel_parts(n, parts, [&](int part, i64 low, i64 high) {
        float *dw = part ? partial + (part - 1) * matrix : dweight;
        for (i64 r = low; r < high; r += chunk) {
            i64 rows = r + chunk < high ? chunk : high - r;
            add_turned(out, size, rows, grad + r * out, x + r * size, r > low, dw);
            if (dx) right.product(rows, grad + r * out, dx + r * size);
        }
    });
    add_partials(dweight, partial, matrix, parts, threads);
}
