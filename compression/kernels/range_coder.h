/* A binary range coder (Martin 1979; the carry as in LZMA, Pavlov): 32 bits of range, 16 bits of probability.

   Written bytes are those of one number in the last interval, with its trailing zero bytes left off; a reader takes
   missing bytes for zeros and counts them. */
#ifndef FEDPRESS_RANGE_CODER_H
#define FEDPRESS_RANGE_CODER_H

#include <stdint.h>

typedef struct {
    uint8_t *out;
    int64_t size, room; /* size counts on past room, so that a caller learns how much was wanted */
    uint64_t low;
    uint32_t range;
    int64_t pending; /* 0xFF bytes behind the cache, which a carry may still turn */
    int held;        /* the cache has a byte: not before the first */
    uint8_t cache;
} rc_writer;

typedef struct {
    const uint8_t *data;
    int64_t size, at;
    uint32_t range, code;
} rc_reader;

static inline void rc_put(rc_writer *w, uint8_t byte) {
    if (w->size < w->room) w->out[w->size] = byte;
    w->size++;
}

static inline void rc_shift(rc_writer *w) {
    if ((uint32_t)w->low < 0xFF000000u || w->low >> 32) {
        uint8_t carry = (uint8_t)(w->low >> 32);
        if (w->held) rc_put(w, (uint8_t)(w->cache + carry));
        for (; w->pending; w->pending--) rc_put(w, (uint8_t)(0xFF + carry));
        w->held = 1;
        w->cache = (uint8_t)(w->low >> 24);
    } else {
        w->pending++;
    }
    w->low = (uint32_t)(w->low << 8);
}

static inline void rc_begin_writing(rc_writer *w, uint8_t *out, int64_t room) {
    *w = (rc_writer){.out = out, .room = room, .range = 0xFFFFFFFFu};
}

/* p: probability of a 1, in 1/65536, from 1 to 65535. */
static inline void rc_write(rc_writer *w, int bit, uint32_t p) {
    uint32_t bound = (w->range >> 16) * p;
    if (bit) {
        w->range = bound;
    } else {
        w->low += bound;
        w->range -= bound;
    }
    while (w->range < 1u << 24) {
        w->range <<= 8;
        rc_shift(w);
    }
}

static inline void rc_end_writing(rc_writer *w) {
    uint64_t high = w->low + w->range - 1, value = w->low;
    int shift;
    for (shift = 32; shift > 0; shift -= 8) { /* the number in [low, high] that ends in most zero bytes */
        uint64_t mask = ((uint64_t)1 << shift) - 1;
        value = (w->low + mask) & ~mask;
        if (value <= high) break;
    }
    if (shift <= 0) value = w->low;
    w->low = value;
    for (int i = 0; i < 5; i++) rc_shift(w);
    int64_t kept = w->size < w->room ? w->size : w->room;
    if (w->size <= w->room) {
        while (kept > 0 && w->out[kept - 1] == 0) kept--;
        w->size = kept;
    }
}

static inline uint8_t rc_take(rc_reader *r) {
    uint8_t byte = r->at < r->size ? r->data[r->at] : 0;
    r->at++;
    return byte;
}

static inline void rc_begin_reading(rc_reader *r, const uint8_t *data, int64_t size) {
    *r = (rc_reader){.data = data, .size = size, .range = 0xFFFFFFFFu};
    for (int i = 0; i < 4; i++) r->code = r->code << 8 | rc_take(r);
}

static inline int rc_read(rc_reader *r, uint32_t p) {
    uint32_t bound = (r->range >> 16) * p;
    int bit = r->code < bound;
    if (bit) {
        r->range = bound;
    } else {
        r->code -= bound;
        r->range -= bound;
    }
    while (r->range < 1u << 24) {
        r->range <<= 8;
        r->code = r->code << 8 | rc_take(r);
    }
    return bit;
}

#endif
