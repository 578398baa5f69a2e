#include "vectors.h"

#include <math.h>
#include <string.h>

/* One loop, compiled for several processors; which one runs is chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && !defined(FEDPRESS_PLAIN)
#define WIDE __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define WIDE
#endif

/* Compiled anew for each of them. */
#if defined(__GNUC__)
#define ALWAYS inline __attribute__((always_inline))
#else
#define ALWAYS inline
#endif

enum { LANES = 16, BLOCK = 1 << 12, GATHER = 1 << 16, LIMIT = 32767 };

static ALWAYS void add_squares(double lanes[LANES], const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += (double)x[i + j] * (double)x[i + j];
    for (int j = 0; i + j < n; j++) lanes[j] += (double)x[i + j] * (double)x[i + j];
}

static ALWAYS double gathered(double lanes[LANES]) {
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int j = 0; j < width; j++) lanes[j] += lanes[j + width];
    return lanes[0];
}

WIDE double vector_sum_squares(const float *x, int64_t n) {
    double lanes[LANES] = {0};
    for (int64_t from = 0; from < n; from += GATHER) {
        double part[LANES] = {0};
        add_squares(part, x + from, from + GATHER < n ? GATHER : n - from);
        for (int j = 0; j < LANES; j++) lanes[j] += part[j];
    }
    return gathered(lanes);
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

/* Choices are made on the bits of floats: with branches, or comparisons of floats, these loops do not become vectors. */
static ALWAYS int32_t bits_of(float x) {
    int32_t word;
    memcpy(&word, &x, sizeof word);
    return word;
}

static ALWAYS float float_of(int32_t word) {
    float x;
    memcpy(&x, &word, sizeof x);
    return x;
}

static ALWAYS float scaled_by(float x, float inverse) {
    int32_t scaled = bits_of(fabsf(x) * inverse), most = bits_of(LIMIT); /* of no sign, their order is that of floats */
    return float_of(scaled < most ? scaled : most);
}

WIDE void vector_quantise(const float *x, int64_t n, float inverse, int16_t *levels, int64_t about[4]) {
    const float third = 1.0f / 3.0f;
    memset(about, 0, 4 * sizeof *about);
    for (int64_t from = 0; from < n; from += BLOCK) {
        int64_t to = from + BLOCK < n ? from + BLOCK : n;
        int32_t some = 0, ones = 0, one_sum = 0, more = 0, more_sum = 0; /* no block's sum is beyond 2^28 */
        for (int64_t i = from; i < to; i++) {
            int32_t level = (int32_t)(scaled_by(x[i], inverse) + third), minus = -(bits_of(x[i]) < 0);
            some |= level;
            levels[i] = (int16_t)((level ^ minus) - minus);
        }
        if (!some) continue;
        for (int64_t i = from; i < to; i++) {
            int32_t level = levels[i] < 0 ? -levels[i] : levels[i];
            int32_t off = (int32_t)((scaled_by(x[i], inverse) - (float)level) * 65536.0f);
            int32_t one = -(level == 1), larger = -(level > 1);
            ones -= one;
            one_sum += off & one;
            more -= larger;
            more_sum += off & larger;
        }
        about[0] += ones, about[1] += one_sum, about[2] += more, about[3] += more_sum;
    }
}

static ALWAYS float value_of(int32_t level, float step, float one, float more) {
    int32_t size = level < 0 ? -level : level, minus = -(level < 0);
    float shift = float_of((bits_of(one) & -(size == 1)) | (bits_of(more) & -(size > 1)));
    return float_of(bits_of(((float)size + shift) * step) ^ (minus & INT32_MIN));
}

WIDE void vector_values(const int16_t *levels, int64_t n, float step, float one, float more, float *x) {
    for (int64_t i = 0; i < n; i++) x[i] = value_of(levels[i], step, one, more);
}

WIDE double vector_lost(const float *x, const int16_t *levels, int64_t n, float step, float one, float more) {
    double lanes[LANES] = {0};
    for (int64_t from = 0; from < n; from += GATHER) {
        double part[LANES] = {0};
        int64_t to = from + GATHER < n ? from + GATHER : n;
        for (int64_t at = from; at < to; at += BLOCK) {
            float off[BLOCK];
            int64_t size = at + BLOCK < to ? BLOCK : to - at;
            for (int64_t i = 0; i < size; i++) off[i] = x[at + i] - value_of(levels[at + i], step, one, more);
            add_squares(part, off, size);
        }
        for (int j = 0; j < LANES; j++) lanes[j] += part[j];
    }
    return gathered(lanes);
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
