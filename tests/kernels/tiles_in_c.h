/* What AMX's tile instructions do (Intel SDM, volume 2), in plain C, for CPUs without them. */
#include <stdlib.h>
#include <string.h>

typedef struct tile_state {
    int is_configured;
    sparsec_tile_config config;
    uint8_t tile[8][16][64];
} tile_state;

static _Thread_local tile_state tiles;

static inline void check_tile(int tile) {
    if (!tiles.is_configured || tile < 0 || tile > 7 || !tiles.config.rows[tile]) abort(); /* #UD */
}

static inline void tile_load_config(const void *config) {
    memset(&tiles, 0, sizeof tiles);
    memcpy(&tiles.config, config, sizeof tiles.config);
    if (tiles.config.palette != 1 || tiles.config.start_row) abort();
    for (int t = 0; t < 16; ++t) {
        const int unused = !tiles.config.rows[t] && !tiles.config.row_bytes[t];
        if (!unused && (t > 7 || tiles.config.rows[t] > 16 || tiles.config.row_bytes[t] > 64)) abort(); /* #GP */
    }
    tiles.is_configured = 1;
}

static inline void tile_release(void) { memset(&tiles, 0, sizeof tiles); }

static inline void tile_zero(int tile) {
    check_tile(tile);
    memset(tiles.tile[tile], 0, sizeof tiles.tile[tile]);
}

static inline void tile_load(int tile, const void *from, int64_t stride) {
    tile_zero(tile);
    for (int r = 0; r < tiles.config.rows[tile]; ++r) {
        memcpy(tiles.tile[tile][r], (const char *)from + r * stride, tiles.config.row_bytes[tile]);
    }
}

static inline void tile_store(int tile, void *to, int64_t stride) {
    check_tile(tile);
    for (int r = 0; r < tiles.config.rows[tile]; ++r) {
        memcpy((char *)to + r * stride, tiles.tile[tile][r], tiles.config.row_bytes[tile]);
    }
}

/* TDPBSUD: dword n of row m of `sums` += over the dwords k of row m of `a`: four signed bytes of that dword times the
 * four unsigned bytes of dword n of row k of `b`. */
static inline void tile_dot_signed_unsigned(int sums, int a, int b) {
    check_tile(sums), check_tile(a), check_tile(b);
    if (tiles.config.rows[a] != tiles.config.rows[sums] || tiles.config.row_bytes[b] != tiles.config.row_bytes[sums] ||
        tiles.config.row_bytes[a] / 4 != tiles.config.rows[b] || sums == a || sums == b || a == b) {
        abort(); /* #UD */
    }
    for (int m = 0; m < tiles.config.rows[sums]; ++m) {
        for (int n = 0; n < tiles.config.row_bytes[sums] / 4; ++n) {
            uint32_t sum;
            memcpy(&sum, &tiles.tile[sums][m][4 * n], 4);
            for (int k = 0; k < tiles.config.rows[b]; ++k) {
                for (int i = 0; i < 4; ++i) {
                    sum += (uint32_t)((int8_t)tiles.tile[a][m][4 * k + i] * (int32_t)tiles.tile[b][k][4 * n + i]);
                }
            }
            memcpy(&tiles.tile[sums][m][4 * n], &sum, 4);
        }
    }
}
