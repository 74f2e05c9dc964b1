#include <string.h>

/* counts[r][b]: how many of row r's values lie in the b-th of `bins` equal parts of [lowest, highest). */
int32_t histogram(const float *x, const float *lowest, const float *highest, int32_t *counts, int64_t columns,
                  int64_t bins, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
        memset(counts + r * bins, 0, (size_t)bins * sizeof *counts);
        for (int64_t c = 0; c < columns; ++c) {
            const float part = (x[r * columns + c] - *lowest) / (*highest - *lowest) * (float)bins;
            if (part >= 0 && part < (float)bins) ++counts[r * bins + (int64_t)part];
        }
    }
    return 0;
}
