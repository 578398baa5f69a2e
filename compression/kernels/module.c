/* The kernels as a Python extension: checks lengths, releases the interpreter's lock, and nothing else. Stable ABI. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "levels.h"
#include "vectors.h"

/* What a function borrows from its arguments. A buffer is given back when the call is over. */
typedef struct {
    Py_buffer view[4];
    int held;
} borrowed;

static PyObject *give_back(borrowed *b, PyObject *result) {
    while (b->held) PyBuffer_Release(&b->view[--b->held]);
    return result;
}

/* A contiguous buffer of `count` items of `size` bytes; any number of items if count < 0. NULL with an error set. */
static void *borrow(borrowed *b, PyObject *from, int64_t count, int64_t size, int writable, int64_t *found) {
    Py_buffer *view = &b->view[b->held];
    if (PyObject_GetBuffer(from, view, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE)) return NULL;
    b->held++;
    if (count < 0 ? view->len % size != 0 : view->len != count * size) {
        PyErr_Format(PyExc_ValueError, "Expected a buffer of %lld items of %lld bytes, got %lld bytes.",
                     (long long)count, (long long)size, (long long)view->len);
        return NULL;
    }
    if (found) *found = view->len / size;
    static char nothing[8]; /* empty buffers may have no address */
    return view->buf ? view->buf : nothing;
}

/* The sum of rows * columns; -1 with an error set if the parts are not what levels.h wants. */
static int64_t total_of(const levels_part *parts, int64_t count) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++) {
        if (parts[i].rows < 1 || parts[i].columns < 1 || parts[i].tensor < 0 ||
            parts[i].columns > (INT64_C(1) << 40) / parts[i].rows) {
            PyErr_SetString(PyExc_ValueError, "Expected parts of at least one row and one column.");
            return -1;
        }
        total += parts[i].rows * parts[i].columns;
    }
    return total;
}

static PyObject *py_levels_encode(PyObject *self, PyObject *args) {
    PyObject *levels_, *parts_, *hint_, *out_;
    int model;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOiO", &levels_, &hint_, &parts_, &model, &out_)) return NULL;
    borrowed b = {.held = 0};
    int64_t count, total, room, size;
    const levels_part *parts = borrow(&b, parts_, -1, sizeof *parts, 0, &count);
    if (!parts || (total = total_of(parts, count)) < 0) return give_back(&b, NULL);
    const int16_t *levels = borrow(&b, levels_, total, sizeof *levels, 0, NULL);
    const int8_t *hint = NULL;
    if (!levels || (hint_ != Py_None && !(hint = borrow(&b, hint_, total, 1, 0, NULL)))) return give_back(&b, NULL);
    uint8_t *out = borrow(&b, out_, -1, 1, 1, &room);
    if (!out) return give_back(&b, NULL);
    Py_BEGIN_ALLOW_THREADS;
    size = levels_encode(levels, hint, parts, count, model, out, room);
    Py_END_ALLOW_THREADS;
    return give_back(&b, size < 0 ? PyErr_NoMemory() : PyLong_FromLongLong(size));
}

static PyObject *py_levels_decode(PyObject *self, PyObject *args) {
    PyObject *data_, *parts_, *hint_, *levels_;
    int model, limit, bad;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOiiO", &data_, &hint_, &parts_, &model, &limit, &levels_)) return NULL;
    borrowed b = {.held = 0};
    int64_t count, total, size;
    const levels_part *parts = borrow(&b, parts_, -1, sizeof *parts, 0, &count);
    if (!parts || (total = total_of(parts, count)) < 0) return give_back(&b, NULL);
    int16_t *levels = borrow(&b, levels_, total, sizeof *levels, 1, NULL);
    const int8_t *hint = NULL;
    if (!levels || (hint_ != Py_None && !(hint = borrow(&b, hint_, total, 1, 0, NULL)))) return give_back(&b, NULL);
    const uint8_t *data = borrow(&b, data_, -1, 1, 0, &size);
    if (!data) return give_back(&b, NULL);
    Py_BEGIN_ALLOW_THREADS;
    bad = levels_decode(data, size, hint, parts, count, model, limit, levels);
    Py_END_ALLOW_THREADS;
    return give_back(&b, bad == -1 ? PyErr_NoMemory() : PyBool_FromLong(!bad));
}

static PyObject *py_sum_squares(PyObject *self, PyObject *x_) {
    (void)self;
    borrowed b = {.held = 0};
    int64_t n;
    const float *x = borrow(&b, x_, -1, sizeof *x, 0, &n);
    if (!x) return give_back(&b, NULL);
    double sum;
    Py_BEGIN_ALLOW_THREADS;
    sum = vector_sum_squares(x, n);
    Py_END_ALLOW_THREADS;
    return give_back(&b, PyFloat_FromDouble(sum));
}

static PyObject *py_histogram(PyObject *self, PyObject *args) {
    PyObject *x_, *counts_;
    (void)self;
    if (!PyArg_ParseTuple(args, "OO", &x_, &counts_)) return NULL;
    borrowed b = {.held = 0};
    int64_t n;
    const float *x = borrow(&b, x_, -1, sizeof *x, 0, &n);
    int64_t *counts = x ? borrow(&b, counts_, VECTOR_BINS, sizeof *counts, 1, NULL) : NULL;
    if (!counts) return give_back(&b, NULL);
    Py_BEGIN_ALLOW_THREADS;
    vector_histogram(x, n, counts);
    Py_END_ALLOW_THREADS;
    return give_back(&b, Py_NewRef(Py_None));
}

static PyObject *py_finite(PyObject *self, PyObject *x_) {
    (void)self;
    borrowed b = {.held = 0};
    int64_t n;
    const float *x = borrow(&b, x_, -1, sizeof *x, 0, &n);
    if (!x) return give_back(&b, NULL);
    int good;
    Py_BEGIN_ALLOW_THREADS;
    good = vector_finite(x, n);
    Py_END_ALLOW_THREADS;
    return give_back(&b, PyBool_FromLong(good));
}

static PyObject *py_quantise(PyObject *self, PyObject *args) {
    PyObject *x_, *levels_;
    float inverse;
    (void)self;
    if (!PyArg_ParseTuple(args, "OfO", &x_, &inverse, &levels_)) return NULL;
    borrowed b = {.held = 0};
    int64_t n, about[4];
    const float *x = borrow(&b, x_, -1, sizeof *x, 0, &n);
    int16_t *levels = x ? borrow(&b, levels_, n, sizeof *levels, 1, NULL) : NULL;
    if (!levels) return give_back(&b, NULL);
    Py_BEGIN_ALLOW_THREADS;
    vector_quantise(x, n, inverse, levels, about);
    Py_END_ALLOW_THREADS;
    return give_back(&b, Py_BuildValue("LLLL", (long long)about[0], (long long)about[1], (long long)about[2],
                                       (long long)about[3]));
}

static PyObject *py_values(PyObject *self, PyObject *args) {
    PyObject *levels_, *x_;
    float step, one, more;
    (void)self;
    if (!PyArg_ParseTuple(args, "OfffO", &levels_, &step, &one, &more, &x_)) return NULL;
    borrowed b = {.held = 0};
    int64_t n;
    const int16_t *levels = borrow(&b, levels_, -1, sizeof *levels, 0, &n);
    float *x = levels ? borrow(&b, x_, n, sizeof *x, 1, NULL) : NULL;
    if (!x) return give_back(&b, NULL);
    Py_BEGIN_ALLOW_THREADS;
    vector_values(levels, n, step, one, more, x);
    Py_END_ALLOW_THREADS;
    return give_back(&b, Py_NewRef(Py_None));
}

static PyObject *py_lost(PyObject *self, PyObject *args) {
    PyObject *x_, *levels_;
    float step, one, more;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOfff", &x_, &levels_, &step, &one, &more)) return NULL;
    borrowed b = {.held = 0};
    int64_t n;
    const float *x = borrow(&b, x_, -1, sizeof *x, 0, &n);
    const int16_t *levels = x ? borrow(&b, levels_, n, sizeof *levels, 0, NULL) : NULL;
    if (!levels) return give_back(&b, NULL);
    double sum;
    Py_BEGIN_ALLOW_THREADS;
    sum = vector_lost(x, levels, n, step, one, more);
    Py_END_ALLOW_THREADS;
    return give_back(&b, PyFloat_FromDouble(sum));
}

static PyObject *py_plus(PyObject *self, PyObject *args) {
    PyObject *x_, *y_, *out_;
    float share;
    (void)self;
    if (!PyArg_ParseTuple(args, "OfOO", &x_, &share, &y_, &out_)) return NULL;
    borrowed b = {.held = 0};
    int64_t n;
    float *out = borrow(&b, out_, -1, sizeof *out, 1, &n);
    const float *x = out ? borrow(&b, x_, n, sizeof *x, 0, NULL) : NULL;
    const float *y = x ? borrow(&b, y_, n, sizeof *y, 0, NULL) : NULL;
    if (!y) return give_back(&b, NULL);
    Py_BEGIN_ALLOW_THREADS;
    vector_plus(x, share, y, n, out);
    Py_END_ALLOW_THREADS;
    return give_back(&b, Py_NewRef(Py_None));
}

static PyObject *py_fold(PyObject *self, PyObject *args) {
    PyObject *total_, *x_;
    double weight;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOd", &total_, &x_, &weight)) return NULL;
    borrowed b = {.held = 0};
    int64_t n;
    double *total = borrow(&b, total_, -1, sizeof *total, 1, &n);
    const float *x = total ? borrow(&b, x_, n, sizeof *x, 0, NULL) : NULL;
    if (!x) return give_back(&b, NULL);
    Py_BEGIN_ALLOW_THREADS;
    vector_fold(total, x, n, weight);
    Py_END_ALLOW_THREADS;
    return give_back(&b, Py_NewRef(Py_None));
}

static PyObject *random_numbers(PyObject *args, int64_t size) {
    unsigned long long key, at;
    PyObject *out_;
    if (!PyArg_ParseTuple(args, "KKO", &key, &at, &out_)) return NULL;
    borrowed b = {.held = 0};
    int64_t n;
    void *out = borrow(&b, out_, -1, size, 1, &n);
    if (!out) return give_back(&b, NULL);
    Py_BEGIN_ALLOW_THREADS;
    if (size == sizeof(float))
        vector_uniform(key, at, out, n);
    else
        vector_numbers(key, at, out, n);
    Py_END_ALLOW_THREADS;
    return give_back(&b, Py_NewRef(Py_None));
}

static PyObject *py_numbers(PyObject *self, PyObject *args) {
    (void)self;
    return random_numbers(args, sizeof(uint64_t));
}

static PyObject *py_uniform(PyObject *self, PyObject *args) {
    (void)self;
    return random_numbers(args, sizeof(float));
}

static PyObject *packing(PyObject *args, int out_is_packed) {
    PyObject *from_, *to_;
    int width;
    if (!PyArg_ParseTuple(args, "OiO", &from_, &width, &to_)) return NULL;
    if (width < 1 || width > 8) {
        PyErr_SetString(PyExc_ValueError, "Expected a width from 1 to 8 bits.");
        return NULL;
    }
    borrowed b = {.held = 0};
    int64_t n;
    PyObject *plain_ = out_is_packed ? from_ : to_, *packed_ = out_is_packed ? to_ : from_;
    uint8_t *plain = borrow(&b, plain_, -1, 1, !out_is_packed, &n);
    uint8_t *packed = plain ? borrow(&b, packed_, (n * width + 7) / 8, 1, out_is_packed, NULL) : NULL;
    if (!packed) return give_back(&b, NULL);
    Py_BEGIN_ALLOW_THREADS;
    if (out_is_packed)
        vector_pack(plain, n, width, packed);
    else
        vector_unpack(packed, n, width, plain);
    Py_END_ALLOW_THREADS;
    return give_back(&b, Py_NewRef(Py_None));
}

static PyObject *py_pack(PyObject *self, PyObject *args) {
    (void)self;
    return packing(args, 1);
}

static PyObject *py_unpack(PyObject *self, PyObject *args) {
    (void)self;
    return packing(args, 0);
}

static PyMethodDef methods[] = {
    {"levels_encode", py_levels_encode, METH_VARARGS, "(levels i2, hint i1 or None, parts i8[3], model, out u1) -> size"},
    {"levels_decode", py_levels_decode, METH_VARARGS, "(data, hint, parts, model, limit, levels i2) -> good"},
    {"sum_squares", py_sum_squares, METH_O, "(x f4) -> float"},
    {"finite", py_finite, METH_O, "(x f4) -> bool"},
    {"quantise", py_quantise, METH_VARARGS, "(x f4, inverse, levels i2) -> (ones, sum, more, sum)"},
    {"values", py_values, METH_VARARGS, "(levels i2, step, one, more, x f4)"},
    {"lost", py_lost, METH_VARARGS, "(x f4, levels i2, step, one, more) -> float"},
    {"plus", py_plus, METH_VARARGS, "(x f4, share, y f4, out f4)"},
    {"histogram", py_histogram, METH_VARARGS, "(x f4, counts i8[4096])"},
    {"fold", py_fold, METH_VARARGS, "(total f8, x f4, weight)"},
    {"numbers", py_numbers, METH_VARARGS, "(key, at, out u8)"},
    {"uniform", py_uniform, METH_VARARGS, "(key, at, out f4)"},
    {"pack", py_pack, METH_VARARGS, "(values u1, width, out u1)"},
    {"unpack", py_unpack, METH_VARARGS, "(data u1, width, values u1)"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModuleDef_Init(&definition); }
