// The tile instructions of AMX in plain C++, for tests on CPUs without them: eight registers of 16 rows of 64 bytes, whose
// shapes ldtilecfg sets. What a program may not do (rows or bytes of the wrong shape) ends it.
#include <cstdlib>

static thread_local struct Registers {
    uint8_t rows[8];
    uint16_t bytes[8];
    unsigned char data[8][16][64];
} registers;

bool has_tiles() { return true; }

static void must(bool holds) {
    if (!holds) abort();
}

static void _tile_loadconfig(const void *from) {
    const unsigned char *config = (const unsigned char *)from;
    must(config[0] == 1 && config[1] == 0);
    for (int i = 2; i < 64; i++) must(config[i] == 0 || (i >= 16 && i < 32) || (i >= 48 && i < 56));
    memcpy(registers.bytes, config + 16, sizeof registers.bytes);
    memcpy(registers.rows, config + 48, sizeof registers.rows);
    for (int t = 0; t < 8; t++) must(registers.rows[t] >= 1 && registers.rows[t] <= 16 && registers.bytes[t] == 64);
}

static void _tile_release() { memset(&registers, 0, sizeof registers); }

static void _tile_zero(int t) { memset(registers.data[t], 0, sizeof registers.data[t]); }

static void _tile_loadd(int t, const void *from, i64 stride) {
    must(registers.rows[t] > 0);
    for (int r = 0; r < registers.rows[t]; r++) memcpy(registers.data[t][r], (const char *)from + r * stride, 64);
}

static void _tile_stored(int t, void *to, i64 stride) {
    must(registers.rows[t] > 0);
    for (int r = 0; r < registers.rows[t]; r++) memcpy((char *)to + r * stride, registers.data[t][r], 64);
}

static float widened(const unsigned char *from) {
    uint32_t bits = (uint32_t)(from[0] | from[1] << 8) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// Sums of the pairs' first and second products apart, then both (Intel's manual, TDPBF16PS).
static void _tile_dpbf16ps(int to, int a, int b) {
    must(registers.rows[to] == registers.rows[a] && registers.rows[b] == 16);
    for (int m = 0; m < registers.rows[to]; m++)
        for (int n = 0; n < 16; n++) {
            float sums[2] = {0.0f, 0.0f}, sum;
            for (int k = 0; k < 16; k++)
                for (int half = 0; half < 2; half++)
                    sums[half] += widened(registers.data[a][m] + 4 * k + 2 * half) *
                                  widened(registers.data[b][k] + 4 * n + 2 * half);
            memcpy(&sum, registers.data[to][m] + 4 * n, 4);
            sum += sums[0] + sums[1];
            memcpy(registers.data[to][m] + 4 * n, &sum, 4);
        }
}
