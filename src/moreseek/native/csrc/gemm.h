// The large products of training: by the BLAS that torch brought along, or by our own tiles. Ours are for CPUs that this
// BLAS does not know well (MKL takes a general path on other makers' CPUs than Intel's); twin: plain matmul.
#pragma once
#include "common.h"

// Fortran's sgemm, and whether products are ours; see start.cpp.
typedef void (*Sgemm)(const char *, const char *, const int *, const int *, const int *, const float *, const float *,
                      const int *, const float *, const int *, const float *, float *, const int *);
extern Sgemm blas_sgemm;
extern bool own_products;

static inline void sgemm(char ta, char tb, i64 m, i64 n, i64 k, const float *a, i64 lda, const float *b, i64 ldb,
                         float beta, float *c, i64 ldc) {
    int mi = (int)m, ni = (int)n, ki = (int)k, la = (int)lda, lb = (int)ldb, lc = (int)ldc;
    float one = 1.0f;
    if (m == 0 || n == 0) return;
    blas_sgemm(&ta, &tb, &mi, &ni, &ki, &one, a, &la, b, &lb, &beta, c, &lc);
}

// to (columns, rows) = from (rows, columns) transposed, tile by tile.
static inline void transpose(const float *from, i64 rows, i64 columns, float *to) {
    constexpr i64 TILE = 16;
    for (i64 r = 0; r < rows; r += TILE)
        for (i64 c = 0; c < columns; c += TILE) {
            i64 r_end = r + TILE < rows ? r + TILE : rows, c_end = c + TILE < columns ? c + TILE : columns;
            for (i64 j = c; j < c_end; j++)
                for (i64 i = r; i < r_end; i++) to[j * rows + i] = from[i * columns + j];
        }
}

// ------------------------------------------------------------------------------------------------- products of ours
// B lies in panels of WIDE columns, so that a tile's part of it stays in the first cache for all rows of A; blocks of
// DEEP rows of B and TALL rows of A keep the rest in the second.

constexpr i64 WIDE = MAX_VECTORS * LANES, HIGH = 6, DEEP = 512, TALL = 32 * HIGH;
constexpr i64 FEWEST = 64; // rows of A that are worth laying B out for

static inline i64 at_most(i64 most, i64 n) { return n < most ? n : most; }

// k in parts of the same size, at most DEEP
static inline i64 depth_of(i64 k) {
    i64 parts = (k + DEEP - 1) / DEEP;
    return parts ? (k + parts - 1) / parts : 1;
}

static inline i64 panel_floats(i64 k, i64 n) { return k * ((n + WIDE - 1) / WIDE * WIDE); }

// One block of B (k, n), any steps, into panels; columns that are missing in the last one are zero.
static inline void pack_panels(const float *b, i64 row_step, i64 column_step, i64 k, i64 n, float *to) {
    for (i64 low = 0; low < n; low += WIDE, to += k * WIDE) {
        i64 width = at_most(WIDE, n - low);
        const float *from = b + low * column_step;
        if (width < WIDE) memset(to, 0, k * WIDE * 4);
        if (column_step == 1 && width == WIDE)
            for (i64 i = 0; i < k; i++) memcpy(to + i * WIDE, from + i * row_step, WIDE * 4);
        else
            for (i64 first = 0; first < k; first += 16) // tile by tile: reads and writes stay in the cache
                for (i64 j = 0; j < width; j++)
                    for (i64 i = first; i < at_most(first + 16, k); i++)
                        to[i * WIDE + j] = from[i * row_step + j * column_step];
    }
}

// Columns `low` and following of C (m, n) = or += A (m, k), any steps, · B, as far as its panel reaches.
static inline void panel_product(i64 m, i64 n, i64 k, const float *a, i64 a_row, i64 a_col, const float *panel, i64 low,
                                 float *c, bool add) {
    if (low + WIDE <= n) return product_columns<MAX_VECTORS>(m, k, a, a_row, a_col, panel, WIDE, c + low, n, add);
    for (; low < n; low += LANES, panel += LANES) {
        if (low + LANES <= n) {
            product_columns<1>(m, k, a, a_row, a_col, panel, WIDE, c + low, n, add);
            continue;
        }
        for (i64 r = 0; r < m; r += HIGH) { // less than a vector
            float room[HIGH * LANES];
            i64 rows = at_most(HIGH, m - r);
            product_columns<1>(rows, k, a + r * a_row, a_row, a_col, panel, WIDE, room, LANES, false);
            for (i64 i = 0; i < rows; i++)
                for (i64 j = low; j < n; j++) {
                    float *to = c + (r + i) * n + j;
                    *to = room[i * LANES + j - low] + (add ? *to : 0.0f);
                }
        }
    }
}

// C (m, n) = or += A (k, m)ᵀ · B (k, n), of at most DEEP rows k; A's tiles are laid out as they are read.
static inline void turned_product(i64 m, i64 n, i64 k, const float *a, const float *b, bool add, float *c) {
    float *panels = aligned_scratch(20, panel_floats(k, n)), *tiles = aligned_scratch(21, TALL * k);
    pack_panels(b, n, 1, k, n, panels);
    for (i64 top = 0; top < m; top += TALL) {
        i64 rows = at_most(TALL, m - top), whole = rows / HIGH * HIGH;
        for (i64 i = 0; i < k; i++)
            for (i64 r = 0; r < whole; r += HIGH) memcpy(tiles + r * k + i * HIGH, a + i * m + top + r, HIGH * 4);
        for (i64 low = 0; low < n; low += WIDE) {
            const float *panel = panels + low * k;
            for (i64 r = 0; r < whole; r += HIGH)
                panel_product(HIGH, n, k, tiles + r * k, 1, HIGH, panel, low, c + (top + r) * n, add);
            if (whole < rows)
                panel_product(rows - whole, n, k, a + top + whole, 1, m, panel, low, c + (top + whole) * n, add);
        }
    }
}

// -------------------------------------------------------------------------------------------------------- operands

// MKL multiplies up to about this many rows without copying its operands first: 10 % faster than all at once.
constexpr i64 PIECE = 128;

// C (m, n) = or += A (k, m)ᵀ · B (k, n): the gradient of a weight.
static inline void add_turned(i64 m, i64 n, i64 k, const float *a, const float *b, bool add, float *c) {
    if (own_products && m >= FEWEST) {
        i64 deep = depth_of(k);
        for (i64 low = 0; low < k; low += deep)
            turned_product(m, n, at_most(deep, k - low), a + low * m, b + low * n, add || low, c);
        return;
    }
    for (i64 r = 0; r < m; r += PIECE)
        sgemm('N', 'T', n, at_most(PIECE, m - r), k, b, n, a + r, m, add ? 1.0f : 0.0f, c + r * n, n);
}

// The right-hand side B (k, n) of products with altogether so many rows: W itself, or Wᵀ. Laid out anew where that pays,
// in the scratch of the thread that makes it.
struct Right {
    i64 k, n;
    const float *b, *panels = nullptr;
    bool transposed; // b is Bᵀ (n, k)

    Right(const float *weight, bool transposed, i64 k, i64 n, i64 rows, int slot)
        : k(k), n(n), b(weight), transposed(transposed) {
        if (own_products && rows >= FEWEST) {
            float *to = aligned_scratch(slot, panel_floats(k, n));
            panels = to;
            for (i64 low = 0, deep = depth_of(k), count; low < k; low += deep, to += panel_floats(count, n)) {
                count = at_most(deep, k - low);
                pack_panels(weight + low * (transposed ? 1 : n), transposed ? 1 : n, transposed ? k : 1, count, n, to);
            }
        } else if (transposed && rows >= 512) {
            float *to = scratch(slot, n * k);
            transpose(weight, n, k, to);
            b = to;
            this->transposed = false;
        }
    }

    // C (m, n) = A (m, k) · B
    void product(i64 m, const float *a, float *c) const {
        if (panels)
            for (i64 top = 0; top < m; top += TALL) own(at_most(TALL, m - top), a + top * k, c + top * n);
        else if (transposed)
            sgemm('T', 'N', n, m, k, b, k, a, k, 0.0f, c, n);
        else
            for (i64 r = 0; r < m; r += PIECE)
                sgemm('N', 'N', n, at_most(PIECE, m - r), k, b, n, a + r * k, k, 0.0f, c + r * n, n);
    }

    void own(i64 m, const float *a, float *c) const {
        const float *block = panels;
        for (i64 low = 0, deep = depth_of(k), count; low < k; low += deep, block += panel_floats(count, n)) {
            count = at_most(deep, k - low);
            for (i64 j = 0; j < n; j += WIDE) panel_product(m, n, count, a + low, k, 1, block + j * count, j, c, low > 0);
        }
    }
};
