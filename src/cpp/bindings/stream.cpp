// Streams. What is called for every step, and whenever a row comes or goes, is a
// method of CPython's own fast kind: pybind11 takes longer to call a function than a small network for a step, and
// allocates.
#include "stream.hpp"

#include <atomic>
#include <memory>
#include <new>
#include <variant>

#include "../stream.hpp"
#include "arrays.hpp"
#include "program.hpp"

namespace rnncore {
namespace {

// Multiply-adds from which on other Python threads may run meanwhile: some microseconds.
constexpr double kWorthReleasing = 1e5;

class AnyStream {
public:
    AnyStream(const AnyProgram& program, int64_t rows, bool unbatched)
        : stream_(std::visit(
              [&](const auto& stages) -> Streams {
                  using Kind = typename std::decay_t<decltype(*stages)>::Number;
                  return Streams(std::in_place_type<Stream<Kind>>, stages, rows);
              },
              program)),
          unbatched_(unbatched) {}
    AnyStream(const AnyStream& other) : stream_((Use(other), other.stream_)), unbatched_(other.unbatched_) {}

    bool unbatched() const { return unbatched_; }

    // f(stream), which no other thread uses meanwhile.
    template <class F>
    decltype(auto) use(F&& f) {
        const Use in_use(*this);
        return std::visit(std::forward<F>(f), stream_);
    }

    // The next step (x_t and out have no axis of time), or all steps of a block. `self` converts what is not ready.
    py::object run(py::handle self, py::handle x, py::handle out, bool block) {
        return use([&](auto& stream) { return run(stream, self, x, out, block); });
    }

private:
    using Streams = std::variant<Stream<float>, Stream<double>>;

    struct Use {
        explicit Use(const AnyStream& stream) : busy(stream.busy_) {
            if (busy.test_and_set(std::memory_order_acquire)) {
                throw std::runtime_error("stream: in use by another thread; fork it, and give each thread its own");
            }
        }
        ~Use() { busy.clear(std::memory_order_release); }
        std::atomic_flag& busy;
    };

    template <class T>
    py::object run(Stream<T>& stream, py::handle self, py::handle x, py::handle out, bool block);
    // x as the core takes it. `self` converts what is not so yet.
    static py::array ready(py::handle self, py::handle x, int numbers, Dims shape);
    void take_tokens(const py::array& tokens, int64_t V);

    Streams stream_;
    bool unbatched_;
    std::vector<int64_t> tokens_;  // checked copies: the caller's may change meanwhile
    mutable std::atomic_flag busy_{};
};

py::array AnyStream::ready(py::handle self, py::handle x, int numbers, Dims shape) {
    if (is_ready(x, numbers)) {
        auto array = py::reinterpret_borrow<py::array>(x);
        if (fits(array, shape)) return array;
    }
    return checked_array("x", self.attr("_converted")(x), numbers, shape);
}

void AnyStream::take_tokens(const py::array& tokens, int64_t V) {
    const auto* from = static_cast<const int64_t*>(tokens.data());
    tokens_.assign(from, from + tokens.size());
    for (const int64_t token : tokens_) {
        if (token >= 0 && token < V) continue;
        throw py::value_error("x: expected tokens from 0 to " + std::to_string(V - 1) + ", got " +
                              std::to_string(token));
    }
}

template <class T>
py::object AnyStream::run(Stream<T>& stream, py::handle self, py::handle x, py::handle out, bool block) {
    const Program<T>& program = stream.program();
    const bool tokens = program.table() != nullptr;
    // (N, T, I) and (N, T, O), without N where there is one row alone, without T in a step, without I for tokens
    Dim dims[3];
    size_t leading = 0;
    if (!unbatched_) dims[leading++] = {"N", stream.rows()};
    if (block) dims[leading++] = {"T"};
    dims[leading] = {"I", program.input_size()};
    const py::array in = ready(self, x, tokens ? kInt64 : kNumbers<T>, Dims(dims, leading + !tokens));
    const int64_t steps = block ? in.shape(static_cast<py::ssize_t>(leading) - 1) : 1;
    if (block) dims[leading - 1].size = steps;
    dims[leading] = {"O", program.output_size()};

    const auto output = [&] {
        if (!out.is_none()) return writable_array("out", out, kNumbers<T>, Dims(dims, leading + 1));
        int64_t sizes[3];
        for (size_t k = 0; k <= leading; ++k) sizes[k] = dims[k].size;
        return new_array(py::dtype::of<T>(), std::span<const int64_t>(sizes, leading + 1));
    };
    py::array y = output();
    const auto* begin = static_cast<const char*>(y.data());
    const auto* other = static_cast<const char*>(in.data());
    if (begin < other + in.nbytes() && other < begin + y.nbytes()) {
        throw py::value_error("out: expected memory of its own, got an array that overlaps x");
    }
    if (tokens) take_tokens(in, program.tokens());
    const T* from = tokens ? nullptr : static_cast<const T*>(in.data());
    const int64_t* from_tokens = tokens ? tokens_.data() : nullptr;
    T* to = data<T>(y);
    if (stream.work(steps) < kWorthReleasing) {
        stream.run(from, from_tokens, steps, to);
    } else {
        const py::gil_scoped_release nogil;
        stream.run(from, from_tokens, steps, to);
    }
    return y;
}

template <class T>
const Stack<T>& recurrent_stage(const Stream<T>& stream, size_t stage) {
    const auto& stages = stream.program().stages();
    if (stage >= stages.size() || !stages[stage].stack) throw py::value_error("stage: expected a recurrent one");
    return *stages[stage].stack;
}

template <class T>
void check_rows(const Stream<T>& stream, Span rows) {
    if (rows.begin >= 0 && rows.begin <= rows.end && rows.end <= stream.rows()) return;
    throw py::index_error("row: expected one from 0 to " + std::to_string(stream.rows() - 1) + ", got " +
                          std::to_string(rows.begin));
}

// The states of some rows of a recurrent stage, each (L, rows, H).
template <class T>
py::tuple read_state(const Stream<T>& stream, size_t stage, Span rows) {
    check_rows(stream, rows);
    const Stack<T>& stack = recurrent_stage(stream, stage);
    py::tuple parts(static_cast<size_t>(stack.cell_kernels().states));
    for (size_t s = 0; s < parts.size(); ++s) {
        py::array part = new_array<T>({stack.layers(), rows.end - rows.begin, stack.needs.state[s]});
        stream.read_state(stage, static_cast<int>(s), rows, data<T>(part));
        parts[s] = std::move(part);
    }
    return parts;
}

template <class T>
void write_state(Stream<T>& stream, size_t stage, Span rows, const py::tuple& parts) {
    check_rows(stream, rows);
    const Stack<T>& stack = recurrent_stage(stream, stage);
    const size_t states = static_cast<size_t>(stack.cell_kernels().states);
    if (parts.size() != states) throw py::value_error("state: expected " + std::to_string(states) + " arrays");
    const T* from[kMaxStates];
    for (size_t s = 0; s < states; ++s) {
        from[s] = read<T>("state", parts[s],
                          {{"L", stack.layers()}, {"N", rows.end - rows.begin}, {"H", stack.needs.state[s]}});
    }
    for (size_t s = 0; s < states; ++s) stream.write_state(stage, static_cast<int>(s), rows, from[s]);
}

// --- methods of CPython's own fast kind ---------------------------------------------------------------------------

constexpr const char* kStepDoc =
    R"doc(step($self, x, out=None)
--

Take the next step of every row.

Parameters
----------
x : array_like, (N, I)
    What the model takes at one step, tokens (N,) if it begins with an embedding. No axis N if there is none.
    Fastest if it is a C-contiguous array of the stream's dtype: then nothing is converted.
out : ndarray, (N, O), optional
    Where the output goes: C-contiguous, of the stream's dtype, apart from x. Default: a new array.

Returns
-------
y : ndarray, (N, O)
    `out`, if it was given.

Raises
------
ValueError, TypeError
    If an argument has the wrong shape, value or type; the stream is unchanged then.
RuntimeError
    If another thread uses the stream at this moment.)doc";

constexpr const char* kProcessDoc =
    R"doc(process($self, x, out=None, reset_mask=None)
--

Take the next T steps of every row, faster than one by one.

Parameters
----------
x : array_like, (N, T, I)
    What the model takes, tokens (N, T) if it begins with an embedding. No axis N if there is none.
out : ndarray, (N, T, O), optional
    Where the output goes: C-contiguous, of the stream's dtype, apart from x. Default: a new array.
reset_mask : array_like of bool, (N, T), optional
    True where a new sequence begins: the state of the row is set to zeros before that step.

Returns
-------
y : ndarray, (N, T, O)
    `out`, if it was given.

Raises
------
ValueError, TypeError
    If an argument has the wrong shape, value or type; the stream is unchanged then.
RuntimeError
    If another thread uses the stream at this moment.)doc";

// f(stream), a new reference to what it returns; an exception becomes Python's error.
template <class F>
PyObject* call(PyObject* self, F&& f) {
    // (the descriptor has seen that self is of this class; but its __init__ may not have run)
    auto* stream =
        static_cast<AnyStream*>(reinterpret_cast<py::detail::instance*>(self)->get_value_and_holder().value_ptr());
    if (!stream) {
        PyErr_SetString(PyExc_TypeError, "stream: expected one that was initialised");
        return nullptr;
    }
    try {
        return f(*stream).release().ptr();
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const py::builtin_exception& error) {
        error.set_error();
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

// step(x, out=None) and process(x, out=None, reset_mask=None), by place or by name.
template <bool block>
PyObject* run(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
    constexpr const char* kNames[] = {"x", "out", "reset_mask"};
    constexpr Py_ssize_t most = block ? 3 : 2;
    PyObject* values[3] = {};
    const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    bool expected = count + named <= most;
    for (Py_ssize_t i = 0; expected && i < count + named; ++i) {
        Py_ssize_t place = i;
        if (i >= count) {
            PyObject* name = PyTuple_GET_ITEM(names, i - count);
            for (place = 0; place < most && PyUnicode_CompareWithASCIIString(name, kNames[place]) != 0;) ++place;
        }
        expected = place < most && !values[place];
        if (expected) values[place] = args[i];
    }
    if (!expected || !values[0]) {
        PyErr_SetString(PyExc_TypeError, block ? "process: expected x, and perhaps out and reset_mask"
                                               : "step: expected x, and perhaps out");
        return nullptr;
    }
    const py::handle x = values[0], out = values[1] ? values[1] : Py_None, reset_mask = values[2];
    return call(self, [&](AnyStream& stream) -> py::object {
        if (reset_mask && !reset_mask.is_none()) {
            return py::reinterpret_borrow<py::object>(self).attr("_process_with_resets")(x, out, reset_mask);
        }
        return stream.run(self, x, out, block);
    });
}

PyObject* attach(PyObject* self, PyObject*) {
    return call(self, [](AnyStream& any) {
        return any.use([](auto& stream) -> py::object {
            stream.attach();
            return py::int_(stream.rows() - 1);
        });
    });
}

// f(stream, row), a method that returns None
template <class F>
PyObject* of_row(PyObject* self, PyObject* index, F&& f) {
    const Py_ssize_t row = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (row == -1 && PyErr_Occurred()) return nullptr;
    return call(self, [&](AnyStream& any) {
        return any.use([&](auto& stream) -> py::object {
            check_rows(stream, {row, row + 1});
            f(stream, row);
            return py::none();
        });
    });
}
PyObject* detach(PyObject* self, PyObject* index) {
    return of_row(self, index, [](auto& stream, int64_t row) { stream.detach(row); });
}
PyObject* reset(PyObject* self, PyObject* index) {
    return of_row(self, index, [](auto& stream, int64_t row) { stream.reset(row); });
}

template <class F>
PyCFunction as_function(F* f) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f));
}

PyMethodDef fast_methods[] = {
    {"step", as_function(run<false>), METH_FASTCALL | METH_KEYWORDS, kStepDoc},
    {"process", as_function(run<true>), METH_FASTCALL | METH_KEYWORDS, kProcessDoc},
    {"_attach", attach, METH_NOARGS, nullptr},
    {"_detach", detach, METH_O, nullptr},
    {"_reset", reset, METH_O, nullptr},
};

}  // namespace

void register_stream(py::module_& m) {
    py::class_<AnyStream> stream(m, "Stream");
    stream
        .def(py::init([](const AnyProgram& program, int64_t rows, bool unbatched) {
            if (rows < 0) throw py::value_error("batch_size: expected at least 0 rows, got " + std::to_string(rows));
            return std::make_unique<AnyStream>(program, rows, unbatched);
        }))
        .def(py::init([](const AnyStream& other) { return std::make_unique<AnyStream>(other); }))
        .def_property_readonly(
            "batch_size", [](AnyStream& self) { return self.use([](const auto& stream) { return stream.rows(); }); })
        .def_property_readonly(
            "output_size",
            [](AnyStream& self) { return self.use([](const auto& stream) { return stream.program().output_size(); }); })
        .def_property_readonly(
            "input_size",
            [](AnyStream& self) { return self.use([](const auto& stream) { return stream.program().input_size(); }); })
        .def("_renew",
             [](AnyStream& self, const AnyProgram& program) {
                 self.use([&](auto& stream) {
                     using Kind = typename std::decay_t<decltype(stream.program())>::Number;
                     const auto* stages = std::get_if<std::shared_ptr<const Program<Kind>>>(&program);
                     if (!stages || !stream.renew(*stages)) {
                         throw py::value_error("program: expected one of the same stages");
                     }
                 });
             })
        .def("_read_state",
             [](AnyStream& self, size_t stage, int64_t begin, int64_t end) {
                 return self.use([=](const auto& stream) { return read_state(stream, stage, {begin, end}); });
             })
        .def("_write_state", [](AnyStream& self, size_t stage, int64_t begin, int64_t end, const py::tuple& parts) {
            self.use([&](auto& stream) { write_state(stream, stage, {begin, end}, parts); });
        });
    for (PyMethodDef& method : fast_methods) {
        stream.attr(method.ml_name) = py::reinterpret_steal<py::object>(
            PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(stream.ptr()), &method));
    }
}

}  // namespace rnncore
