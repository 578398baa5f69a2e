/* Levels, small signed integers that are mostly zero, through the range coder. What is modelled, and why, is told in
   entropy.py, whose Python twin gives the same bytes. One function serves both directions, so that they cannot differ.

   A row is cut into blocks of 16. A flag says whether a block has any level but zero, then one for each of its levels
   whether it is zero; a level that is not has a sign and a magnitude, in unary up to ESCAPE, then as an Exp-Golomb code. */
#include "levels.h"

#include <stdlib.h>
#include <string.h>

#include "range_coder.h"

#define BLOCK 16
#define ESCAPE 14
#define INPUTS 5
#define CONTEXTS 256
#define SETS 12

typedef struct {
    uint32_t p[CONTEXTS]; /* the upper 22 bits a probability, the lower 10 how often it was seen */
} slots;

typedef struct {
    rc_writer w;
    rc_reader r;
    int limit;
    int16_t stretch[4096];
    int32_t gain[1024];
    int32_t weights[SETS][INPUTS];
    slots block[INPUTS], level[INPUTS], sign, more;
    uint32_t fixed_block, fixed_level, fixed_first[BLOCK + 1], fixed_more;
} coder;

#define ALWAYS static inline __attribute__((always_inline))

/* 65536 / (1 + exp(-d / 256)) at d = -2048, -1920 ... 2048, and straight lines between. */
static const int32_t LOGISTIC[33] = {22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
                                     4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
                                     62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};
/* 65536 * 2 ** (-i / 16) */
static const uint32_t ROOT[16] = {65536, 62757, 60097, 57549, 55109, 52773, 50535, 48393,
                                  46341, 44376, 42495, 40693, 38968, 37316, 35734, 34219};

ALWAYS int squash(int d) {
    if (d > 2047) d = 2047;
    if (d < -2047) d = -2047;
    int at = (d + 2048) >> 7, part = (d + 2048) & 127;
    return (LOGISTIC[at] * (128 - part) + LOGISTIC[at + 1] * part + 64) >> 7;
}

/* Class 0 to 15 of an activity in 1/65536: its logarithm. */
ALWAYS int activity_class(uint32_t activity) {
    int n = 0;
    while (activity >> n > 1 && n < 15) n++;
    return n;
}

ALWAYS uint32_t density_of(int byte) {
    uint32_t p = ROOT[byte & 15] >> (byte >> 4);
    return p < 1 ? 1 : p > 65535 ? 65535 : p;
}

static void fill(slots *s, uint32_t p) {
    for (int i = 0; i < CONTEXTS; i++) s->p[i] = p << 16;
}

static uint32_t clamp(uint64_t p) { return p < 32 ? 32 : p > 65504 ? 65504 : (uint32_t)p; }

/* Everything as it is before the first level of a chunk with this density and this share of magnitudes above one. */
static void start(coder *c, int model, int density, int more) {
    int by_place = model == LEVELS_CONTEXT ? 1 << 3 : 7; /* which sets of contexts begin with a level's place */
    uint32_t p = density_of(density), none[BLOCK + 1] = {65536};
    for (int i = 1; i <= BLOCK; i++) none[i] = (uint32_t)((uint64_t)none[i - 1] * (65536 - p) >> 16);
    c->fixed_block = clamp(65536 - none[BLOCK]);
    c->fixed_level = clamp(p);
    for (int i = 1; i <= BLOCK; i++) c->fixed_first[i] = clamp((uint64_t)p * 65536 / (65537 - none[i]));
    c->fixed_more = clamp((uint64_t)more << 8);
    int at = 0;
    for (int d = -2047; d < 2048; d++)
        for (int p12 = squash(d) >> 4; at <= p12; at++) c->stretch[at] = (int16_t)d;
    for (; at < 4096; at++) c->stretch[at] = 2047;
    for (int i = 0; i < 1024; i++) c->gain[i] = 131072 / (2 * i + 3);
    for (int s = 0; s < SETS; s++)
        for (int i = 0; i < INPUTS; i++) c->weights[s][i] = 12000;
    for (int i = 0; i < INPUTS; i++) {
        fill(&c->block[i], c->fixed_block);
        fill(&c->level[i], c->fixed_first[BLOCK]);
    }
    for (int i = 0; i < INPUTS && by_place >> i; i++) {
        if (!(by_place >> i & 1)) continue;
        for (int j = 0; j < BLOCK; j++) c->level[i].p[j] = c->fixed_first[BLOCK - j] << 16;
        for (int j = BLOCK; j < CONTEXTS; j++) c->level[i].p[j] = c->fixed_level << 16;
    }
    fill(&c->sign, 32768);
    fill(&c->more, c->fixed_more);
}

ALWAYS int code(coder *c, int decoding, int bit, uint32_t p) {
    if (decoding) return rc_read(&c->r, p);
    rc_write(&c->w, bit, p);
    return bit;
}

ALWAYS void learn(const coder *c, uint32_t *slot, int bit, uint32_t most) {
    uint32_t seen = *slot & 1023, p = *slot >> 10;
    int64_t off = (bit ? (int64_t)(1 << 22) - 1 : 0) - (int64_t)p;
    p = (uint32_t)(p + (off * c->gain[seen] >> 16));
    *slot = p << 10 | (seen + (seen < most));
}

/* A bit under one context. */
ALWAYS int adapt(coder *c, int decoding, int bit, uint32_t *slot, uint32_t most) {
    bit = code(c, decoding, bit, clamp(*slot >> 16));
    learn(c, slot, bit, most);
    return bit;
}

/* A bit under several contexts, their opinions mixed (Mahoney 2005, "Adaptive Weighing of Context Models"). */
ALWAYS int mix(coder *c, int decoding, int bit, uint32_t *const slot[INPUTS], int set) {
    int32_t *weight = c->weights[set], opinion[INPUTS];
    int64_t sum = 0;
    for (int i = 0; i < INPUTS; i++) {
        opinion[i] = c->stretch[*slot[i] >> 20];
        sum += (int64_t)opinion[i] * weight[i];
    }
    sum >>= 16;
    int p = squash(sum > 2047 ? 2047 : sum < -2047 ? -2047 : (int)sum);
    bit = code(c, decoding, bit, (uint32_t)p);
    int64_t miss = (bit ? 65536 : 0) - p;
    for (int i = 0; i < INPUTS; i++) {
        weight[i] += (int32_t)((opinion[i] * miss * 10 + (1 << 18)) >> 19);
        learn(c, slot[i], bit, 127);
    }
    return bit;
}

/* An activity in 1/65536, one event on. */
ALWAYS uint32_t follow(uint32_t activity, int on, int shift) {
    return (uint32_t)((int)activity + (((on ? 65535 : 0) - (int)activity) >> shift));
}
ALWAYS void follow16(uint16_t *activity, int on, int shift) { *activity = (uint16_t)follow(*activity, on, shift); }

ALWAYS int least(int a, int b) { return a < b ? a : b; }
ALWAYS int size_of(int level) { return level < 0 ? -level : level; }
ALWAYS int sign_of(int level) { return (level > 0) - (level < 0); }

/* The magnitude of a level that is not zero; 0 if a reader met one above the limit. */
ALWAYS int magnitude(coder *c, int decoding, int model, int size, int context) {
    int found = 1;
    for (; found <= ESCAPE; found++) {
        uint32_t *slot = &c->more.p[found == 1 ? 16 + context : found];
        int go = model == LEVELS_STATIC ? code(c, decoding, size > found, c->fixed_more)
                                        : adapt(c, decoding, size > found, slot, 127);
        if (!go) return found;
    }
    int rest = size - found + 1, width = 0; /* rest >= 1 */
    while (!decoding && rest >> (width + 1)) width++;
    int wide = 0;
    while (code(c, decoding, wide < width, 32768)) {
        if (++wide > 15) return 0;
    }
    int value = 1;
    for (int i = wide - 1; i >= 0; i--) value = value << 1 | code(c, decoding, rest >> i & 1, 32768);
    value += found - 1;
    return value > c->limit ? 0 : value;
}

/* What a row leaves behind for the next: how many of each block were not zero, and how lively each column was. */
typedef struct {
    uint8_t *above, *above2;
    uint16_t *blocks, *columns;
} memory;

/* Whether any of the `length` levels is not zero. */
ALWAYS int any_of(const int16_t *levels, int length) {
    if (length == BLOCK) {
        uint64_t words[4];
        memcpy(words, levels, sizeof words);
        return (words[0] | words[1] | words[2] | words[3]) != 0;
    }
    int any = 0;
    for (int j = 0; j < length; j++) any |= levels[j];
    return any != 0;
}

/* All levels of one part: 0, or -2 for a bad one. */
ALWAYS int matrix(coder *c, int decoding, int model, int16_t *levels, const int8_t *hint, const levels_part *part,
                  memory *m) {
    int64_t width = part->columns, blocks = (width + BLOCK - 1) / BLOCK;
    int tensor = (int)(part->tensor & 15);
    uint32_t lively = c->fixed_block;
    memset(m->above, 0, (size_t)blocks);
    memset(m->above2, 0, (size_t)blocks);
    for (int64_t i = 0; model == LEVELS_CONTEXT && i < width; i++) m->columns[i] = (uint16_t)c->fixed_first[BLOCK];
    for (int64_t i = 0; model == LEVELS_CONTEXT && i < blocks; i++) m->blocks[i] = (uint16_t)c->fixed_block;
    for (int64_t row = 0; row < part->rows; row++) {
        int16_t *here = levels + row * width;
        const int16_t *up = row > 0 ? here - width : 0, *up2 = row > 1 ? here - 2 * width : 0;
        const int8_t *tip = hint ? hint + row * width : 0;
        int left = 0; /* how many levels of the block before are not zero */
        for (int64_t block = 0; block < blocks; block++) {
            int64_t from = block * BLOCK;
            int length = width - from < BLOCK ? (int)(width - from) : BLOCK;
            int any = decoding ? 0 : any_of(here + from, length), above = m->above[block], above2 = m->above2[block];
            if (model == LEVELS_CONTEXT) {
                int tips = 0;
                if (tip)
                    for (int j = 0; j < length; j++) tips += tip[from + j] != 0;
                int over = least(above, 3) + (above > 4), last = least(left, 3);
                uint32_t *slot[INPUTS] = {
                    &c->block[0].p[(over * 2 + (above2 > 0)) * 4 + last],
                    &c->block[1].p[activity_class(m->blocks[block]) * 4 + last],
                    &c->block[2].p[activity_class(lively) * 4 + (above > 0) + (above2 > 0)],
                    &c->block[3].p[(least(tips, 3) + (tips > 4) + (tips > 8)) * 3 + least(above, 2)],
                    &c->block[4].p[tensor * 16 + length - 1],
                };
                any = mix(c, decoding, any, slot, over);
                follow16(&m->blocks[block], any, 3);
                lively = follow(lively, any, 4);
            } else if (model == LEVELS_ADAPTIVE) {
                any = adapt(c, decoding, any, &c->block[0].p[least(above, 3) * 4 + least(left, 3)], 255);
            } else {
                any = code(c, decoding, any, c->fixed_block);
            }
            m->above2[block] = (uint8_t)above;
            m->above[block] = 0;
            left = 0;
            if (!any) {
                if (decoding) memset(here + from, 0, (size_t)length * sizeof *here);
                continue;
            }
            for (int j = 0; j < length; j++) {
                int64_t at = from + j;
                int level = decoding ? 0 : here[at], on = level != 0, over = 0, before = 0, nudge = 0;
                if (model != LEVELS_STATIC) {
                    over = up ? least(size_of(up[at]), 2) : 0;
                    before = at > 0 ? least(size_of(here[at - 1]), 2) : 0;
                    nudge = model == LEVELS_CONTEXT && tip ? size_of(tip[at]) : 0;
                }
                if (left == 0 && j == length - 1) {
                    on = 1; /* the block has one, and this is the last place for it */
                } else if (model == LEVELS_CONTEXT) {
                    int over2 = up2 ? up2[at] != 0 : 0, before2 = at > 1 ? here[at - 2] != 0 : 0, beside = 0;
                    int corners = (up && at > 0 && up[at - 1]) + (up && at + 1 < width && up[at + 1]);
                    if (tip) beside = (at > 0 && tip[at - 1]) + (at + 1 < width && tip[at + 1]);
                    uint32_t *slot[INPUTS] = {
                        &c->level[0].p[((over * 2 + over2) * 3 + before) * 2 + before2 + (left ? 36 : 0)],
                        &c->level[1].p[activity_class(m->columns[at]) * 3 + before],
                        &c->level[2].p[(nudge * 3 + beside) * 3 + over],
                        &c->level[3].p[left ? BLOCK + least(left, 7) : BLOCK - length + j],
                        &c->level[4].p[tensor * 16 + least(corners + over + before, 3) * 4 + least(left, 3)],
                    };
                    on = mix(c, decoding, on, slot, 6 + least(left, 3));
                } else if (model == LEVELS_ADAPTIVE) {
                    int place = left ? BLOCK + least(left, 3) : BLOCK - length + j;
                    on = adapt(c, decoding, on, &c->level[over].p[place], 255);
                } else {
                    on = code(c, decoding, on, left ? c->fixed_level : c->fixed_first[length - j]);
                }
                if (model == LEVELS_CONTEXT) follow16(&m->columns[at], on, 4);
                if (!on) {
                    if (decoding) here[at] = 0;
                    continue;
                }
                left++;
                int minus = level < 0;
                if (model == LEVELS_CONTEXT) {
                    int lean = (tip ? sign_of(tip[at]) : 0) * 9 + (up ? sign_of(up[at]) : 0) * 3;
                    lean += at > 0 ? sign_of(here[at - 1]) : 0;
                    minus = adapt(c, decoding, minus, &c->sign.p[13 + lean], 255);
                } else {
                    minus = code(c, decoding, minus, 32768);
                }
                int size = magnitude(c, decoding, model, size_of(level), (over * 3 + before) * 4 + nudge);
                if (!size) return -2;
                if (decoding) here[at] = (int16_t)(minus ? -size : size);
            }
            m->above[block] = (uint8_t)left;
        }
    }
    return 0;
}

ALWAYS int all_parts(coder *c, int decoding, int model, int16_t *levels, const int8_t *hint, const levels_part *parts,
                     int64_t count) {
    int64_t widest = 0;
    for (int64_t i = 0; i < count; i++) widest = parts[i].columns > widest ? parts[i].columns : widest;
    size_t blocks = (size_t)(widest / BLOCK + 1);
    uint16_t *room = malloc((size_t)widest * sizeof *room + blocks * (sizeof *room + 2));
    if (!room) return -1;
    memory m = {.columns = room, .blocks = room + widest};
    m.above = (uint8_t *)(m.blocks + blocks);
    m.above2 = m.above + blocks;
    int bad = 0;
    for (int64_t i = 0; i < count && !bad; i++) {
        int64_t size = parts[i].rows * parts[i].columns;
        bad = matrix(c, decoding, model, levels, hint, &parts[i], &m);
        levels += size;
        hint = hint ? hint + size : 0;
    }
    free(room);
    return bad;
}

static int each_model(coder *c, int decoding, int model, int16_t *levels, const int8_t *hint, const levels_part *parts,
                      int64_t count) {
    if (decoding) {
        if (model == LEVELS_STATIC) return all_parts(c, 1, LEVELS_STATIC, levels, hint, parts, count);
        if (model == LEVELS_ADAPTIVE) return all_parts(c, 1, LEVELS_ADAPTIVE, levels, hint, parts, count);
        return all_parts(c, 1, LEVELS_CONTEXT, levels, hint, parts, count);
    }
    if (model == LEVELS_STATIC) return all_parts(c, 0, LEVELS_STATIC, levels, hint, parts, count);
    if (model == LEVELS_ADAPTIVE) return all_parts(c, 0, LEVELS_ADAPTIVE, levels, hint, parts, count);
    return all_parts(c, 0, LEVELS_CONTEXT, levels, hint, parts, count);
}

int64_t levels_encode(const int16_t *levels, const int8_t *hint, const levels_part *parts, int64_t count, int model,
                      uint8_t *out, int64_t room) {
    int64_t total = 0, full = 0, big = 0;
    for (int64_t i = 0; i < count; i++) total += parts[i].rows * parts[i].columns;
    for (int64_t i = 0; i < total; i++) {
        full += levels[i] != 0;
        big += levels[i] > 1 || levels[i] < -1;
    }
    int density = 0;
    while (density < 255 && (int64_t)density_of(density) * total > full << 16) density++;
    int more = full ? (int)(big * 256 / full) : 0;
    more = more > 255 ? 255 : more;
    coder *c = malloc(sizeof *c);
    if (!c) return -1;
    c->limit = 32767;
    start(c, model, density, more);
    rc_begin_writing(&c->w, out, room);
    rc_put(&c->w, (uint8_t)density);
    rc_put(&c->w, (uint8_t)more);
    int bad = each_model(c, 0, model, (int16_t *)levels, hint, parts, count);
    rc_end_writing(&c->w);
    int64_t size = bad ? -1 : c->w.size;
    free(c);
    return size;
}

int levels_decode(const uint8_t *data, int64_t size, const int8_t *hint, const levels_part *parts, int64_t count,
                  int model, int limit, int16_t *levels) {
    if (size < 2) return -2;
    coder *c = malloc(sizeof *c);
    if (!c) return -1;
    c->limit = limit;
    start(c, model, data[0], data[1]);
    rc_begin_reading(&c->r, data + 2, size - 2);
    if (c->r.code >= c->r.range) {
        free(c);
        return -2;
    }
    int bad = each_model(c, 1, model, levels, hint, parts, count);
    if (!bad && (c->r.size > c->r.at || (size > 2 && data[size - 1] == 0))) bad = -2;
    free(c);
    return bad;
}
