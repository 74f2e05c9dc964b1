/* The tile instructions of AMX. The tests define SPARSEC_TILES_IN_C, a header that has the same in plain C. */
#ifndef SPARSEC_AMX_TILES_H
#define SPARSEC_AMX_TILES_H

#include <immintrin.h>
#include <stdint.h>

/* Palette 1: eight tiles of at most 16 rows of 64 bytes. */
typedef struct sparsec_tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} sparsec_tile_config;

#ifdef SPARSEC_TILES_IN_C
#include SPARSEC_TILES_IN_C
#else
#define tile_load_config(config) _tile_loadconfig(config)
#define tile_release() _tile_release()
#define tile_zero(tile) _tile_zero(tile)
#define tile_load(tile, from, stride) _tile_loadd(tile, from, stride)
#define tile_store(tile, to, stride) _tile_stored(tile, to, stride)
/* sums += signed bytes of `a` times unsigned bytes of `b`, four at a time */
#define tile_dot_signed_unsigned(sums, a, b) _tile_dpbsud(sums, a, b)
#endif

/* Tiles 0 to 2, all of them whole. */
static inline void sparsec_configure_tiles(void) {
    _Alignas(64) sparsec_tile_config config = {.palette = 1};
    for (int i = 0; i < 3; ++i) config.row_bytes[i] = 64, config.rows[i] = 16;
    tile_load_config(&config);
}

#endif
