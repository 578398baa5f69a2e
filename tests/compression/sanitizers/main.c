/* The kernels on random, damaged and extreme input, to be run under the address and undefined-behaviour sanitizers:
   make sanitize. What they compute is compared with NumPy elsewhere; here nothing may be touched that is not theirs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "levels.h"
#include "vectors.h"

static uint64_t seed = 1;

static uint32_t draw(uint32_t below) {
    uint64_t word;
    vector_numbers(seed++, 0, &word, 1);
    return (uint32_t)(word % below);
}

static void die(const char *what, int round) {
    fprintf(stderr, "round %d: %s\n", round, what);
    exit(1);
}

static void try_levels(int round) {
    levels_part parts[3];
    int64_t count = 1 + draw(3), total = 0;
    for (int64_t i = 0; i < count; i++) {
        parts[i] = (levels_part){1 + draw(9), 1 + draw(70), draw(40)};
        total += parts[i].rows * parts[i].columns;
    }
    /* exactly as large as promised, so that one byte too far is seen */
    int16_t *levels = malloc((size_t)total * sizeof *levels), *found = malloc((size_t)total * sizeof *found);
    int8_t *hint = draw(2) ? malloc((size_t)total) : NULL;
    uint32_t sparse = 1 + draw(100), big = draw(3) ? 3 : 65534;
    for (int64_t i = 0; i < total; i++) {
        levels[i] = draw(sparse) ? 0 : (int16_t)((int32_t)draw(big) - (int32_t)(big / 2));
        if (hint) hint[i] = (int8_t)((int)draw(7) - 3);
    }
    for (int model = LEVELS_STATIC; model <= LEVELS_CONTEXT; model++) {
        int64_t room = draw(4) ? 40 * total + 16 : draw(20);
        uint8_t *out = malloc((size_t)room + 1);
        int64_t size = levels_encode(levels, hint, parts, count, model, out, room);
        if (size <= room) {
            uint8_t *data = malloc((size_t)size);
            memcpy(data, out, (size_t)size);
            if (levels_decode(data, size, hint, parts, count, model, 32767, found)) die("does not decode", round);
            if (memcmp(levels, found, (size_t)total * sizeof *levels)) die("decodes to something else", round);
            for (int turn = 0; turn < 20; turn++) {
                int64_t kept = turn % 2 ? size : (int64_t)draw((uint32_t)size + 1);
                uint8_t *bad = malloc((size_t)kept + 1);
                memcpy(bad, data, (size_t)kept);
                for (int flips = 0; kept && flips < turn; flips++) bad[draw((uint32_t)kept)] ^= (uint8_t)(1 << draw(8));
                uint8_t *exact = malloc((size_t)kept ? (size_t)kept : 1);
                memcpy(exact, bad, (size_t)kept);
                levels_decode(exact, kept, hint, parts, count, model, 1 + (int)draw(32767), found);
                free(exact);
                free(bad);
            }
            free(data);
        }
        free(out);
    }
    free(levels);
    free(found);
    free(hint);
}

static void try_vectors(void) {
    static const float extreme[] = {0.0f, -0.0f, 1e-45f, -1e-38f, 3.4e38f, -3.4e38f, 1.0f, -0.5f};
    int64_t n = draw(5000), about[4];
    float *x = malloc((size_t)n * sizeof *x + 1);
    double *total = calloc((size_t)n + 1, sizeof *total);
    int16_t *levels = malloc((size_t)n * sizeof *levels + 1);
    vector_uniform(seed++, 0, x, n);
    for (int64_t i = 0; i < n; i++)
        if (!draw(5)) x[i] = extreme[draw(8)];
    vector_sum_squares(x, n);
    vector_finite(x, n);
    int64_t *counts = malloc(VECTOR_BINS * sizeof *counts);
    vector_histogram(x, n, counts);
    free(counts);
    vector_quantise(x, n, draw(2) ? 3.0f : 3e38f, levels, about);
    vector_lost(x, levels, n, 0.5f, -0.1f, 0.2f);
    vector_values(levels, n, 0.5f, -0.1f, 0.2f, x);
    vector_fold(total, x, n, 0.3);
    vector_plus(x, draw(2) ? -0.9f : 3e38f, x, n, x);
    for (int width = 1; width <= 8; width++) {
        uint8_t *values = malloc((size_t)n + 1), *packed = calloc(1, (size_t)(n * width + 7) / 8 + 1);
        for (int64_t i = 0; i < n; i++) values[i] = (uint8_t)draw(256);
        vector_pack(values, n, width, packed);
        vector_unpack(packed, n, width, values);
        free(values);
        free(packed);
    }
    free(x);
    free(total);
    free(levels);
}

int main(int count, char **words) {
    int rounds = count > 1 ? atoi(words[1]) : 2000;
    for (int round = 0; round < rounds; round++) {
        try_levels(round);
        try_vectors();
    }
    printf("%d rounds: nothing touched that is not theirs\n", rounds);
    return 0;
}
