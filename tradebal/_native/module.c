/* The CPython module tradebal._core: the native router with the interface of tradebal.router.interface.Router. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "core.h"

#include <sys/mman.h>

/* ---- the classes of tradebal.router.interface ---- */

enum { STATUSES = STATUS_ERROR + 1, KINDS = EVENT_VIOLATION + 1 };

typedef struct {
    PyObject *statuses[STATUSES];
    PyObject *kinds[KINDS];
    PyObject *reasons[REASONS];
    PyObject *event, *counters, *shard_counters, *batch;
    PyTypeObject *router, *view;
} module_state;

static struct PyModuleDef core_module;

static module_state *state_of(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &core_module);
    return module ? PyModule_GetState(module) : NULL;
}

/* ---- Router ---- */

typedef struct {
    PyObject_HEAD
    core *core;
    uint64_t size;
    int error;
    int blocked;
    bool busy; /* another thread is in process, pump or flush, with the GIL released */
    PyObject *event;
} router;

static bool enter(router *self)
{
    if (!self->core) {
        PyErr_SetString(PyExc_RuntimeError, "the router was not made");
        return false;
    }
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "the router is at work in another thread");
        return false;
    }
    return true;
}

static bool shard_number(const router *self, PyObject *number, uint32_t *shard)
{
    const Py_ssize_t n = PyNumber_AsSsize_t(number, PyExc_OverflowError);
    if (n == -1 && PyErr_Occurred())
        return false;
    if (n < 0 || n >= (Py_ssize_t)self->core->shards) {
        PyErr_Format(PyExc_IndexError, "shard %zd of %u", n, (unsigned)self->core->shards);
        return false;
    }
    *shard = (uint32_t)n;
    return true;
}

static bool take_bytes(PyObject *object, bytes_in *bytes, const char *what)
{
    if (!PyBytes_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be bytes, not %.100s", what, Py_TYPE(object)->tp_name);
        return false;
    }
    bytes->data = (const u8 *)PyBytes_AS_STRING(object);
    bytes->size = (size_t)PyBytes_GET_SIZE(object);
    return true;
}

/* What core_init reads, and the references that keep it alive meanwhile. */
typedef struct {
    core_options options;
    PyObject *marker_key, *symbol_key, *container, *marker_values, *pins;
    bytes_in *values;
    bytes_in *symbols;
    uint32_t *shards;
} arguments;

static void release_arguments(arguments *a)
{
    Py_XDECREF(a->marker_key);
    Py_XDECREF(a->symbol_key);
    Py_XDECREF(a->container);
    Py_XDECREF(a->marker_values);
    Py_XDECREF(a->pins);
    PyMem_Free(a->values);
    PyMem_Free(a->symbols);
    PyMem_Free(a->shards);
}

static bool take_rule(arguments *a, PyObject *rule)
{
    core_options *o = &a->options;
    if (rule == Py_None)
        return true;
    o->has_rule = true;
    if (!(a->marker_key = PyObject_GetAttrString(rule, "marker_key")) ||
        !take_bytes(a->marker_key, &o->marker_key, "marker_key") ||
        !(a->symbol_key = PyObject_GetAttrString(rule, "symbol_key")) ||
        !take_bytes(a->symbol_key, &o->symbol_key, "symbol_key") ||
        !(a->container = PyObject_GetAttrString(rule, "container")))
        return false;
    o->has_container = a->container != Py_None;
    if (o->has_container && !take_bytes(a->container, &o->container, "container"))
        return false;
    PyObject *values = PyObject_GetAttrString(rule, "marker_values");
    if (!values)
        return false;
    a->marker_values = PySequence_Tuple(values);
    Py_DECREF(values);
    if (!a->marker_values)
        return false;
    const Py_ssize_t count = PyTuple_GET_SIZE(a->marker_values);
    if (!(a->values = PyMem_Calloc((size_t)count + 1, sizeof *a->values))) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        if (!take_bytes(PyTuple_GET_ITEM(a->marker_values, i), a->values + i, "a marker value"))
            return false;
    o->marker_values = a->values;
    o->marker_values_count = (size_t)count;
    return true;
}

static bool take_pins(arguments *a, PyObject *pins)
{
    core_options *o = &a->options;
    if (pins == Py_None)
        return true;
    PyObject *items = PyMapping_Items(pins);
    if (!items)
        return false;
    a->pins = PySequence_Tuple(items);
    Py_DECREF(items);
    if (!a->pins)
        return false;
    const Py_ssize_t count = PyTuple_GET_SIZE(a->pins);
    a->symbols = PyMem_Calloc((size_t)count + 1, sizeof *a->symbols);
    a->shards = PyMem_Calloc((size_t)count + 1, sizeof *a->shards);
    if (!a->symbols || !a->shards) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PyTuple_GET_ITEM(a->pins, i);
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "pins must map symbols to shards");
            return false;
        }
        PyObject *symbol = PyTuple_GET_ITEM(pair, 0);
        if (!take_bytes(symbol, a->symbols + i, "a pinned symbol"))
            return false;
        const Py_ssize_t shard = PyNumber_AsSsize_t(PyTuple_GET_ITEM(pair, 1), PyExc_ValueError);
        if (shard == -1 && PyErr_Occurred())
            return false;
        if (shard < 0 || shard >= (Py_ssize_t)o->shards) {
            PyErr_Format(PyExc_ValueError, "%R is pinned to shard %zd, must be 0 to %u", symbol, shard,
                         (unsigned)(o->shards - 1));
            return false;
        }
        a->shards[i] = (uint32_t)shard;
    }
    o->pin_symbols = a->symbols;
    o->pin_shards = a->shards;
    o->pins_count = (size_t)count;
    return true;
}

static bool take_arguments(arguments *a, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"shards", "rule", "framing", "pins", "max_message", NULL};
    Py_ssize_t shards;
    PyObject *rule, *framing = NULL, *pins = Py_None;
    long long max_message = 64 << 20;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nO|$OOL:Router", names, &shards, &rule, &framing, &pins,
                                     &max_message))
        return false;
    if (shards < 1 || shards > MAX_SHARDS) {
        PyErr_Format(PyExc_ValueError, "shards is %zd, must be 1 to %d", shards, MAX_SHARDS);
        return false;
    }
    if (framing && PyUnicode_Check(framing) && !PyUnicode_CompareWithASCIIString(framing, "length32")) {
        a->options.framing = FRAMING_LENGTH32;
    } else if (framing && !(PyUnicode_Check(framing) && !PyUnicode_CompareWithASCIIString(framing, "ndjson"))) {
        PyErr_Format(PyExc_ValueError, "framing is %R, must be 'ndjson' or 'length32'", framing);
        return false;
    }
    if (max_message < 1) {
        PyErr_Format(PyExc_ValueError, "max_message is %lld, must be at least 1", max_message);
        return false;
    }
    /* Address space for more can't be had anyway, and sums stay far from overflow. */
    if (max_message > (long long)1 << 46) {
        PyErr_NoMemory();
        return false;
    }
    a->options.shards = (uint32_t)shards;
    a->options.max_message = (uint64_t)max_message;
    return take_rule(a, rule) && take_pins(a, pins);
}

static PyObject *router_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    arguments a = {0};
    router *self = NULL;
    if (take_arguments(&a, args, kwargs) && (self = (router *)type->tp_alloc(type, 0))) {
        self->blocked = -1;
        const uint64_t size = core_size(&a.options);
        void *block = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (block == MAP_FAILED) {
            Py_CLEAR(self);
            PyErr_NoMemory();
        } else {
            self->core = block;
            self->size = size;
            core_init(self->core, size, &a.options);
        }
    }
    release_arguments(&a);
    return (PyObject *)self;
}

static void router_dealloc(PyObject *object)
{
    router *self = (router *)object;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->event);
    if (self->core)
        munmap(self->core, (size_t)self->size);
    type->tp_free(self);
    Py_DECREF(type);
}

static int router_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((router *)object)->event);
    return 0;
}

static int router_clear(PyObject *object)
{
    Py_CLEAR(((router *)object)->event);
    return 0;
}

/* ---- views of the block: they keep the router alive ---- */

typedef struct {
    PyObject_HEAD
    PyObject *router;
    u8 *data;
    Py_ssize_t size;
    bool read_only;
} view;

static int view_getbuffer(PyObject *object, Py_buffer *buffer, int flags)
{
    view *self = (view *)object;
    return PyBuffer_FillInfo(buffer, object, self->data, self->size, self->read_only, flags);
}

static void view_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    Py_CLEAR(((view *)object)->router);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *make_view(router *self, u8 *data, size_t size, bool read_only)
{
    const module_state *state = state_of(Py_TYPE(self));
    if (!state)
        return NULL;
    view *made = (view *)state->view->tp_alloc(state->view, 0);
    if (!made)
        return NULL;
    made->router = Py_NewRef((PyObject *)self);
    made->data = data;
    made->size = (Py_ssize_t)size;
    made->read_only = read_only;
    PyObject *result = PyMemoryView_FromObject((PyObject *)made);
    Py_DECREF(made);
    return result;
}

static PyType_Slot view_slots[] = {
    {Py_tp_doc, (void *)"What a memoryview of a router's memory keeps alive."},
    {Py_tp_dealloc, view_dealloc},
    {Py_bf_getbuffer, view_getbuffer},
    {0, NULL},
};

static PyType_Spec view_spec = {
    .name = "tradebal._core._View",
    .basicsize = sizeof(view),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = view_slots,
};

/* ---- methods ---- */

/* Bring positional and keyword arguments into the order of the names. */
static bool take_call(const char *method, PyObject *const *args, Py_ssize_t count, PyObject *keywords,
                      const char *const *names, Py_ssize_t wanted, PyObject **taken)
{
    const Py_ssize_t given = count + (keywords ? PyTuple_GET_SIZE(keywords) : 0);
    for (Py_ssize_t i = 0; i < given && given == wanted; i++) {
        Py_ssize_t at = i;
        if (i >= count) {
            PyObject *keyword = PyTuple_GET_ITEM(keywords, i - count);
            for (at = count; at < wanted && PyUnicode_CompareWithASCIIString(keyword, names[at]); at++)
                ;
            if (at == wanted) {
                PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", method, keyword);
                return false;
            }
        }
        taken[at] = args[i];
    }
    if (given != wanted) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments (%zd given)", method, wanted, given);
        return false;
    }
    return true;
}

#define TAKE_CALL(method, ...) \
    static const char *const names[] = {__VA_ARGS__}; \
    PyObject *taken[sizeof names / sizeof names[0]]; \
    if (!take_call(method, args, count, keywords, names, sizeof names / sizeof names[0], taken)) \
        return NULL;


static PyObject *router_space(PyObject *object, PyObject *unused)
{
    (void)unused;
    router *self = (router *)object;
    if (!enter(self))
        return NULL;
    size_t size;
    u8 *space = core_space(self->core, &size);
    return make_view(self, space, size, false);
}

static PyObject *router_received(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    TAKE_CALL("received", "count")
    router *self = (router *)object;
    const Py_ssize_t received = PyNumber_AsSsize_t(taken[0], PyExc_ValueError);
    if ((received == -1 && PyErr_Occurred()) || !enter(self))
        return NULL;
    const size_t room = core_room(self->core);
    if (received < 0 || (size_t)received > room)
        return PyErr_Format(PyExc_ValueError, "received %zd bytes into a space of %zu", received, room);
    core_received(self->core, (size_t)received);
    Py_RETURN_NONE;
}

/* What process and pump say: the status, with the event's bytes copied while they are there. */
static PyObject *outcome(router *self, int status)
{
    const module_state *state = state_of(Py_TYPE(self));
    if (!state)
        return NULL;
    if (status == STATUS_BLOCKED)
        self->blocked = (int)self->core->blocked;
    if (status == STATUS_EVENT) {
        const core_event *e = &self->core->event;
        PyObject *data = PyBytes_FromStringAndSize((const char *)at_offset(self->core, e->offset), (Py_ssize_t)e->size);
        PyObject *code = PyLong_FromLong(e->code);
        if (data && code) {
            PyObject *const fields[] = {state->kinds[e->kind], data, code, state->reasons[e->reason]};
            Py_XSETREF(self->event, PyObject_Vectorcall(state->event, fields, 4, NULL));
        }
        Py_XDECREF(data);
        Py_XDECREF(code);
        if (!self->event)
            return NULL;
    }
    return Py_NewRef(state->statuses[status]);
}

static PyObject *router_process(PyObject *object, PyObject *unused)
{
    (void)unused;
    router *self = (router *)object;
    if (!enter(self))
        return NULL;
    Py_CLEAR(self->event);
    int status;
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
    status = core_process(self->core);
    Py_END_ALLOW_THREADS
    self->busy = false;
    return outcome(self, status);
}

static PyObject *router_pump(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    TAKE_CALL("pump", "fd", "budget_ns")
    router *self = (router *)object;
    const long fd = PyLong_AsLong(taken[0]);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    const long long budget_ns = PyLong_AsLongLong(taken[1]);
    if (budget_ns == -1 && PyErr_Occurred())
        return NULL;
    if (fd > INT_MAX)
        return PyErr_Format(PyExc_ValueError, "%ld is no file descriptor", fd);
    if (!enter(self))
        return NULL;
    Py_CLEAR(self->event);
    int status;
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
    status = pump(self->core, fd < 0 ? -1 : (int)fd, budget_ns, &self->error);
    Py_END_ALLOW_THREADS
    self->busy = false;
    return outcome(self, status);
}

static PyObject *router_event(PyObject *object, PyObject *unused)
{
    (void)unused;
    router *self = (router *)object;
    if (!enter(self))
        return NULL;
    if (!self->event) {
        PyErr_SetString(PyExc_RuntimeError, "the router didn't stop at an event, or the event was taken already");
        return NULL;
    }
    PyObject *event = self->event;
    self->event = NULL;
    return event;
}

static PyObject *router_set_output(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    TAKE_CALL("set_output", "shard", "fd")
    router *self = (router *)object;
    uint32_t number;
    const long fd = PyLong_AsLong(taken[1]);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    if (fd > INT_MAX)
        return PyErr_Format(PyExc_ValueError, "%ld is no file descriptor", fd);
    if (!enter(self) || !shard_number(self, taken[0], &number))
        return NULL;
    shard_set_output(self->core, number, fd < 0 ? -1 : (int)fd, false);
    Py_RETURN_NONE;
}

static PyObject *router_flush(PyObject *object, PyObject *unused)
{
    (void)unused;
    router *self = (router *)object;
    if (!enter(self))
        return NULL;
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
    shard_write_all(self->core);
    Py_END_ALLOW_THREADS
    self->busy = false;
    Py_RETURN_NONE;
}

static PyObject *router_stalled(PyObject *object, PyObject *unused)
{
    (void)unused;
    router *self = (router *)object;
    if (!enter(self))
        return NULL;
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list && i < self->core->shards; i++) {
        if (!shard_at(self->core, i)->stall_unreported)
            continue;
        PyObject *number = PyLong_FromUnsignedLong(i);
        if (!number || PyList_Append(list, number))
            Py_CLEAR(list);
        Py_XDECREF(number);
    }
    for (uint32_t i = 0; list && i < self->core->shards; i++)
        shard_at(self->core, i)->stall_unreported = false;
    return list;
}

static PyObject *router_pending(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    TAKE_CALL("pending", "shard")
    router *self = (router *)object;
    uint32_t number;
    if (!enter(self) || !shard_number(self, taken[0], &number))
        return NULL;
    const shard *s = shard_at(self->core, number);
    return make_view(self, at_offset(self->core, s->head), (size_t)(s->tail - s->head), true);
}

static PyObject *router_torn(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    TAKE_CALL("torn", "shard")
    router *self = (router *)object;
    uint32_t number;
    if (!enter(self) || !shard_number(self, taken[0], &number))
        return NULL;
    const shard *s = shard_at(self->core, number);
    return PyLong_FromUnsignedLongLong(s->boundary - s->head);
}

static PyObject *router_sent(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    TAKE_CALL("sent", "shard", "count")
    router *self = (router *)object;
    uint32_t number;
    const Py_ssize_t sent = PyNumber_AsSsize_t(taken[1], PyExc_ValueError);
    if ((sent == -1 && PyErr_Occurred()) || !enter(self) || !shard_number(self, taken[0], &number))
        return NULL;
    const shard *s = shard_at(self->core, number);
    const uint64_t pending = s->tail - s->head;
    if (sent < 0 || (uint64_t)sent > pending)
        return PyErr_Format(PyExc_ValueError, "%zd bytes reported as sent, %llu are pending", sent,
                            (unsigned long long)pending);
    shard_take(self->core, number, (size_t)sent);
    Py_RETURN_NONE;
}

static PyObject *router_inject(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    TAKE_CALL("inject", "shard", "record")
    router *self = (router *)object;
    uint32_t number;
    bytes_in record;
    if (!enter(self) || !shard_number(self, taken[0], &number) || !take_bytes(taken[1], &record, "record"))
        return NULL;
    if (record.size > MAX_RECORD)
        return PyErr_Format(PyExc_ValueError, "the record has %zu bytes, more than %zu", record.size, MAX_RECORD);
    const bool ndjson = self->core->framing == FRAMING_NDJSON;
    if (ndjson && record.size && memchr(record.data, '\n', record.size)) {
        PyErr_SetString(PyExc_ValueError, "the record holds a newline, which would end it");
        return NULL;
    }
    if (!shard_room(self->core, number, record.size + (ndjson ? 1 : 4)))
        Py_RETURN_FALSE;
    shard_append(self->core, number, record.data, record.size);
    Py_RETURN_TRUE;
}

static PyObject *router_reset(PyObject *object, PyObject *unused)
{
    (void)unused;
    router *self = (router *)object;
    if (!enter(self))
        return NULL;
    Py_CLEAR(self->event);
    core_reset(self->core);
    Py_RETURN_NONE;
}

/* A named tuple of unsigned numbers. */
static PyObject *numbers(PyObject *type, const uint64_t *values, size_t count)
{
    PyObject *fields[9] = {NULL};
    PyObject *result = NULL;
    size_t made = 0;
    while (made < count && (fields[made] = PyLong_FromUnsignedLongLong(values[made])))
        made++;
    if (made == count)
        result = PyObject_Vectorcall(type, fields, count, NULL);
    while (made)
        Py_DECREF(fields[--made]);
    return result;
}

static PyObject *router_counters(PyObject *object, PyObject *unused)
{
    (void)unused;
    router *self = (router *)object;
    const module_state *state = state_of(Py_TYPE(self));
    if (!state || !enter(self))
        return NULL;
    const core_counters *t = &self->core->total;
    const uint64_t values[] = {t->reads,       t->bytes,   t->frames, t->messages, t->trades,
                               t->trade_bytes, t->rejects, t->writes, t->written};
    return numbers(state->counters, values, 9);
}

static PyObject *router_shard_counters(PyObject *object, PyObject *unused)
{
    (void)unused;
    router *self = (router *)object;
    const module_state *state = state_of(Py_TYPE(self));
    if (!state || !enter(self))
        return NULL;
    PyObject *list = PyList_New((Py_ssize_t)self->core->shards);
    for (uint32_t i = 0; list && i < self->core->shards; i++) {
        const shard *s = shard_at(self->core, i);
        const uint64_t values[] = {s->trades, s->bytes};
        PyObject *item = numbers(state->shard_counters, values, 2);
        if (item)
            PyList_SET_ITEM(list, i, item);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *router_batches(PyObject *object, PyObject *unused)
{
    (void)unused;
    router *self = (router *)object;
    const module_state *state = state_of(Py_TYPE(self));
    if (!state || !enter(self))
        return NULL;
    core *c = self->core;
    PyObject *list = PyList_New((Py_ssize_t)c->batches_count);
    for (uint64_t i = 0; list && i < c->batches_count; i++) {
        const core_batch *b = (const core_batch *)(const void *)at_offset(c, c->batches) +
                              (c->batches_first + i) % BATCHES_KEPT;
        const uint64_t values[] = {b->time_ns, b->elapsed_ns,        b->reads,        b->frames,
                                   b->bytes,   b->connection_trades, b->total_trades, b->total_bytes};
        PyObject *item = numbers(state->batch, values, 8);
        if (item)
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
        else
            Py_CLEAR(list);
    }
    if (list) {
        c->batches_first = (c->batches_first + c->batches_count) % BATCHES_KEPT;
        c->batches_count = 0;
    }
    return list;
}

static PyObject *router_kind(PyObject *object, void *unused)
{
    (void)object;
    (void)unused;
    return PyUnicode_FromString("native");
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef router_methods[] = {
    {"space", router_space, METH_NOARGS, PyDoc_STR("Writable view of the free part of the receive buffer.")},
    {"received", FAST(router_received), METH_FASTCALL | METH_KEYWORDS, PyDoc_STR("Take the first `count` bytes of `space()` as received.")},
    {"process", router_process, METH_NOARGS, PyDoc_STR("Use buffered bytes; returns a Status.")},
    {"pump", FAST(router_pump), METH_FASTCALL | METH_KEYWORDS, PyDoc_STR("Receive, process and write; returns a Status.")},
    {"event", router_event, METH_NOARGS, PyDoc_STR("Hand out the event at which the router stopped.")},
    {"set_output", FAST(router_set_output), METH_FASTCALL | METH_KEYWORDS, PyDoc_STR("Write the shard's bytes to a descriptor.")},
    {"flush", router_flush, METH_NOARGS, PyDoc_STR("Write what is staged.")},
    {"stalled", router_stalled, METH_NOARGS, PyDoc_STR("Shards that stalled since the last call.")},
    {"pending", FAST(router_pending), METH_FASTCALL | METH_KEYWORDS, PyDoc_STR("Staged bytes of the shard that nobody took yet.")},
    {"torn", FAST(router_torn), METH_FASTCALL | METH_KEYWORDS, PyDoc_STR("Pending bytes of a record whose beginning was taken.")},
    {"sent", FAST(router_sent), METH_FASTCALL | METH_KEYWORDS, PyDoc_STR("Take the first `count` pending bytes as sent.")},
    {"inject", FAST(router_inject), METH_FASTCALL | METH_KEYWORDS, PyDoc_STR("Stage a record of the caller's own.")},
    {"reset", router_reset, METH_NOARGS, PyDoc_STR("Begin a new connection.")},
    {"counters", router_counters, METH_NOARGS, PyDoc_STR("Totals of the router.")},
    {"shard_counters", router_shard_counters, METH_NOARGS, PyDoc_STR("Totals of each shard.")},
    {"batches", router_batches, METH_NOARGS, PyDoc_STR("Batches completed since the last call.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef router_members[] = {
    {"errno", T_INT, offsetof(router, error), READONLY, PyDoc_STR("Why recv failed, after Status.ERROR.")},
    {"blocked", T_INT, offsetof(router, blocked), READONLY, PyDoc_STR("Shard without room, after Status.BLOCKED.")},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef router_getset[] = {
    {"kind", router_kind, NULL, PyDoc_STR("\"native\"."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot router_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("Router(shards, rule, *, framing='ndjson', pins=None, max_message=67108864)\n--\n\n"
                                  "Native implementation of tradebal.router.interface.Router.")},
    {Py_tp_new, router_new},
    {Py_tp_dealloc, router_dealloc},
    {Py_tp_traverse, router_traverse},
    {Py_tp_clear, router_clear},
    {Py_tp_methods, router_methods},
    {Py_tp_members, router_members},
    {Py_tp_getset, router_getset},
    {0, NULL},
};

static PyType_Spec router_spec = {
    .name = "tradebal._core.Router",
    .basicsize = sizeof(router),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = router_slots,
};

/* ---- module functions: for tests and fuzzing, which compare the variants ---- */

static PyObject *module_variants(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *list = PyList_New(0);
    for (const char *const *name = json_variants(); list && *name; name++) {
        PyObject *text = PyUnicode_FromString(*name);
        if (!text || PyList_Append(list, text))
            Py_CLEAR(list);
        Py_XDECREF(text);
    }
    return list;
}

static PyObject *module_variant(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyUnicode_FromString(json->name);
}

static PyObject *module_use_variant(PyObject *module, PyObject *argument)
{
    (void)module;
    const char *name = PyUnicode_AsUTF8(argument);
    if (!name)
        return NULL;
    if (!json_use_variant(name))
        return PyErr_Format(PyExc_ValueError, "this machine can't run the variant %R", argument);
    Py_RETURN_NONE;
}

/* What the wide loops find in a text, at the exact end of whose memory nothing may be read. */
static PyObject *module_scan(PyObject *module, PyObject *argument)
{
    (void)module;
    Py_buffer buffer;
    if (PyObject_GetBuffer(argument, &buffer, PyBUF_SIMPLE))
        return NULL;
    PyObject *result = NULL;
    const u8 *text = buffer.buf;
    const size_t size = buffer.len < (Py_ssize_t)WINDOW ? (size_t)buffer.len : WINDOW;
    uint32_t *brackets = PyMem_Malloc((WINDOW + 4) * sizeof *brackets);
    if (!brackets) {
        PyErr_NoMemory();
    } else {
        json_index index;
        json->index(text, size, &index, brackets);
        int reason = REASON_NONE;
        const size_t span = size && (text[0] == '{' || text[0] == '[') ? json->span(text, size, &reason) : 0;
        PyObject *list = PyList_New((Py_ssize_t)index.count);
        for (size_t i = 0; list && i < index.count; i++) {
            PyObject *bracket = PyLong_FromUnsignedLong(brackets[i]);
            if (bracket)
                PyList_SET_ITEM(list, (Py_ssize_t)i, bracket);
            else
                Py_CLEAR(list);
        }
        if (list)
            result = Py_BuildValue("NnNnns", list, (Py_ssize_t)index.seen, PyBool_FromLong(index.non_ascii),
                                   (Py_ssize_t)index.newline_at, (Py_ssize_t)span, core_reasons[span ? 0 : reason]);
        PyMem_Free(brackets);
    }
    PyBuffer_Release(&buffer);
    return result;
}

static PyObject *module_utf8_valid(PyObject *module, PyObject *argument)
{
    (void)module;
    Py_buffer buffer;
    if (PyObject_GetBuffer(argument, &buffer, PyBUF_SIMPLE))
        return NULL;
    const bool valid = utf8_valid(buffer.buf, (size_t)buffer.len);
    PyBuffer_Release(&buffer);
    return PyBool_FromLong(valid);
}

static PyMethodDef module_methods[] = {
    {"variants", module_variants, METH_NOARGS,
     PyDoc_STR("Names of the wide loops that this machine can run, best first.")},
    {"variant", module_variant, METH_NOARGS, PyDoc_STR("Name of the wide loops in use.")},
    {"use_variant", module_use_variant, METH_O,
     PyDoc_STR("Use these wide loops, in the whole process; ValueError if this machine can't.")},
    {"scan", module_scan, METH_O, PyDoc_STR("What the wide loops find in up to 32 KiB of text; for tests.")},
    {"utf8_valid", module_utf8_valid, METH_O, PyDoc_STR("Whether bytes are valid UTF-8; for tests.")},
    {NULL, NULL, 0, NULL},
};

/* The members of an enumeration whose values are 0, 1, 2, … */
static bool take_members(PyObject *interface, const char *name, PyObject **members, long count)
{
    PyObject *type = PyObject_GetAttrString(interface, name);
    for (long i = 0; type && i < count; i++)
        if (!(members[i] = PyObject_CallFunction(type, "l", i)))
            Py_CLEAR(type);
    Py_XDECREF(type);
    return type != NULL;
}

static int module_exec(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    PyObject *interface = PyImport_ImportModule("tradebal.router.interface");
    if (!interface)
        return -1;
    const bool taken = take_members(interface, "Status", state->statuses, STATUSES) &&
                       take_members(interface, "EventKind", state->kinds, KINDS) &&
                       (state->event = PyObject_GetAttrString(interface, "Event")) &&
                       (state->counters = PyObject_GetAttrString(interface, "Counters")) &&
                       (state->shard_counters = PyObject_GetAttrString(interface, "ShardCounters")) &&
                       (state->batch = PyObject_GetAttrString(interface, "Batch"));
    Py_DECREF(interface);
    if (!taken)
        return -1;
    for (int i = 0; i < REASONS; i++)
        if (!(state->reasons[i] = PyUnicode_FromString(core_reasons[i])))
            return -1;
    state->view = (PyTypeObject *)PyType_FromModuleAndSpec(module, &view_spec, NULL);
    state->router = (PyTypeObject *)PyType_FromModuleAndSpec(module, &router_spec, NULL);
    if (!state->view || !state->router)
        return -1;
    return PyModule_AddObjectRef(module, "Router", (PyObject *)state->router);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = PyModule_GetState(module);
    for (int i = 0; i < STATUSES; i++)
        Py_VISIT(state->statuses[i]);
    for (int i = 0; i < KINDS; i++)
        Py_VISIT(state->kinds[i]);
    Py_VISIT(state->event);
    Py_VISIT(state->counters);
    Py_VISIT(state->shard_counters);
    Py_VISIT(state->batch);
    Py_VISIT(state->router);
    Py_VISIT(state->view);
    return 0;
}

static int module_clear(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    for (int i = 0; i < STATUSES; i++)
        Py_CLEAR(state->statuses[i]);
    for (int i = 0; i < KINDS; i++)
        Py_CLEAR(state->kinds[i]);
    for (int i = 0; i < REASONS; i++)
        Py_CLEAR(state->reasons[i]);
    Py_CLEAR(state->event);
    Py_CLEAR(state->counters);
    Py_CLEAR(state->shard_counters);
    Py_CLEAR(state->batch);
    Py_CLEAR(state->router);
    Py_CLEAR(state->view);
    return 0;
}

static void module_free(void *module)
{
    (void)module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tradebal._core",
    .m_doc = PyDoc_STR("The router in C."),
    .m_size = sizeof(module_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
