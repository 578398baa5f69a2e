/* Levels to bytes and back: see levels.c. */
#ifndef FEDPRESS_LEVELS_H
#define FEDPRESS_LEVELS_H

#include <stdint.h>

enum { LEVELS_STATIC, LEVELS_ADAPTIVE, LEVELS_CONTEXT };

/* A matrix of levels: a tensor, or some of its rows. `tensor` is its place in the spec. */
typedef struct {
    int64_t rows, columns, tensor;
} levels_part;

/* `parts` of a chunk, one after the other, in `levels` (their magnitudes at most 32767). `hint`: as many, -3 to 3, or
   NULL. Gives the size of the code; more than `room` if it did not fit; -1 without memory. */
int64_t levels_encode(const int16_t *levels, const int8_t *hint, const levels_part *parts, int64_t count, int model,
                      uint8_t *out, int64_t room);

/* The inverse: 0, -1 without memory, -2 if `data` is not what an encoder gives for magnitudes up to `limit`. */
int levels_decode(const uint8_t *data, int64_t size, const int8_t *hint, const levels_part *parts, int64_t count,
                  int model, int limit, int16_t *levels);

#endif
