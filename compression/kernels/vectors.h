/* Loops over long vectors. Every result is the same on every machine: single IEEE operations (compile with
   -ffp-contract=off), sums in a stated order. Each has a NumPy twin in native.py. */
#ifndef FEDPRESS_VECTORS_H
#define FEDPRESS_VECTORS_H

#include <stdint.h>

/* Sum of squares in double: 16 lanes, gathered after every 65536 numbers, and at the end lane i with lane i + 8, 4 ... */
double vector_sum_squares(const float *x, int64_t n);

/* 1 if no number is NaN or infinite. */
int vector_finite(const float *x, int64_t n);

/* counts[m]: how many numbers have m as the upper 12 bits of their magnitude's 31 (exponent, and 4 bits of mantissa). */
enum { VECTOR_BINS = 4096 };
void vector_histogram(const float *x, int64_t n, int64_t counts[VECTOR_BINS]);

/* levels[i] = trunc(min(|x| * inverse, 32767) + 1/3) with the sign of x. about: how many magnitudes are 1; the sum of
   (|x| * inverse - 1) * 65536 over those, each truncated; the same two for magnitudes above 1. */
void vector_quantise(const float *x, int64_t n, float inverse, int16_t *levels, int64_t about[4]);

/* x[i] = (|level| + shift) * step with the sign of the level, where shift is one, more or, of level 0, nothing. */
void vector_values(const int16_t *levels, int64_t n, float step, float one, float more, float *x);

/* The sum of squares, as above, of x[i] less what vector_values makes of levels[i], the difference rounded to a float. */
double vector_lost(const float *x, const int16_t *levels, int64_t n, float step, float one, float more);

/* out[i] = x[i] + share * y[i], the product rounded before the sum. */
void vector_plus(const float *x, float share, const float *y, int64_t n, float *out);

/* total[i] += weight * x[i] */
void vector_fold(double *total, const float *x, int64_t n, double weight);

/* Numbers at + 1, at + 2 ... of SplitMix64 under a key, and their upper 24 bits as numbers in [0, 1). */
void vector_numbers(uint64_t key, uint64_t at, uint64_t *out, int64_t n);
void vector_uniform(uint64_t key, uint64_t at, float *out, int64_t n);

/* The lower `width` bits (1 to 8) of each value, least significant bit first, and back. `out` is zeroed by the caller. */
void vector_pack(const uint8_t *values, int64_t n, int width, uint8_t *out);
void vector_unpack(const uint8_t *data, int64_t n, int width, uint8_t *out);

#endif
