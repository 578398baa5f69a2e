#include "vectors.h"

#include <math.h>
#include <string.h>

/* One loop, compiled for several processors; which one runs is chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && !defined(FEDPRESS_PLAIN)
#define WIDE __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define WIDE
#endif

enum { LANES = 16, GATHER = 1 << 16, LIMIT = 32767 };

WIDE double vector_sum_squares(const float *x, int64_t n) {
    double lanes[LANES] = {0};
    for (int64_t from = 0; from < n; from += GATHER) {
        double part[LANES] = {0};
        int64_t to = from + GATHER < n ? from + GATHER : n, i = from;
        for (; i + LANES <= to; i += LANES)
            for (int j = 0; j < LANES; j++) part[j] += (double)x[i + j] * (double)x[i + j];
        for (int j = 0; i + j < to; j++) part[j] += (double)x[i + j] * (double)x[i + j];
        for (int j = 0; j < LANES; j++) lanes[j] += part[j];
    }
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int j = 0; j < width; j++) lanes[j] += lanes[j + width];
    return lanes[0];
}

WIDE int vector_finite(const float *x, int64_t n) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, x + i, sizeof word);
        bad |= (word & 0x7F800000u) == 0x7F800000u;
    }
    return !bad;
}

void vector_histogram(const float *x, int64_t n, int64_t counts[VECTOR_BINS]) {
    memset(counts, 0, VECTOR_BINS * sizeof *counts);
    for (int64_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, x + i, sizeof word);
        counts[(word & 0x7FFFFFFFu) >> 19]++;
    }
}

WIDE void vector_quantise(const float *x, int64_t n, float inverse, int16_t *levels, int64_t about[4]) {
    const float third = 1.0f / 3.0f;
    int64_t ones = 0, one_sum = 0, more = 0, more_sum = 0;
    for (int64_t from = 0; from < n; from += 4096) {
        int64_t to = from + 4096 < n ? from + 4096 : n;
        int32_t some = 0;
        for (int64_t i = from; i < to; i++) {
            float scaled = fabsf(x[i]) * inverse;
            scaled = scaled < LIMIT ? scaled : LIMIT;
            int32_t level = (int32_t)(scaled + third);
            some |= level;
            levels[i] = (int16_t)(x[i] < 0 ? -level : level);
        }
        for (int64_t i = from; some && i < to; i++) {
            int32_t level = levels[i] < 0 ? -levels[i] : levels[i];
            if (!level) continue;
            float scaled = fabsf(x[i]) * inverse;
            scaled = scaled < LIMIT ? scaled : LIMIT;
            int32_t off = (int32_t)((scaled - (float)level) * 65536.0f);
            if (level == 1) {
                ones++;
                one_sum += off;
            } else {
                more++;
                more_sum += off;
            }
        }
    }
    about[0] = ones, about[1] = one_sum, about[2] = more, about[3] = more_sum;
}

WIDE void vector_values(const int16_t *levels, int64_t n, float step, float one, float more, float *x) {
    for (int64_t i = 0; i < n; i++) {
        int32_t level = levels[i], size = level < 0 ? -level : level;
        float shift = size > 1 ? more : size ? one : 0.0f, value = ((float)size + shift) * step;
        x[i] = level < 0 ? -value : value;
    }
}

WIDE void vector_plus(const float *x, float share, const float *y, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = x[i] + share * y[i];
}

WIDE void vector_fold(double *total, const float *x, int64_t n, double weight) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        uint64_t words[LANES / 2], any = 0;
        memcpy(words, x + i, sizeof words);
        for (int j = 0; j < LANES / 2; j++) any |= words[j];
        if (!any) continue; /* sparse updates are mostly zeros */
        for (int j = 0; j < LANES; j++) total[i + j] += (double)x[i + j] * weight;
    }
    for (; i < n; i++) total[i] += (double)x[i] * weight;
}

static inline uint64_t mixed(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

WIDE void vector_numbers(uint64_t key, uint64_t at, uint64_t *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = mixed(key + (at + 1 + (uint64_t)i) * 0x9E3779B97F4A7C15u);
}

WIDE void vector_uniform(uint64_t key, uint64_t at, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)(int32_t)(mixed(key + (at + 1 + (uint64_t)i) * 0x9E3779B97F4A7C15u) >> 40) * 0x1p-24f;
}

void vector_pack(const uint8_t *values, int64_t n, int width, uint8_t *out) {
    uint32_t held = 0;
    int bits = 0;
    for (int64_t i = 0; i < n; i++) {
        held |= (uint32_t)(values[i] & ((1 << width) - 1)) << bits;
        for (bits += width; bits >= 8; bits -= 8, held >>= 8) *out++ = (uint8_t)held;
    }
    if (bits) *out = (uint8_t)held;
}

void vector_unpack(const uint8_t *data, int64_t n, int width, uint8_t *out) {
    uint32_t held = 0;
    int bits = 0;
    for (int64_t i = 0; i < n; i++, bits -= width, held >>= width) {
        if (bits < width) {
            held |= (uint32_t)*data++ << bits;
            bits += 8;
        }
        out[i] = (uint8_t)(held & ((1u << width) - 1));
    }
}
