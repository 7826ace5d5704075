// Many networks of one shape in a call: recurrent layers and affine ones. Everything has been converted before.
#include "many.hpp"

#include <memory>
#include <variant>
#include <vector>

#include "../dispatch.hpp"
#include "../many.hpp"
#include "arrays.hpp"
#include "call.hpp"

namespace rnncore {
namespace {

// Of an array; 0 if it is none.
py::ssize_t dimensions(const py::object& object) {
    return py::isinstance<py::array>(object) ? py::reinterpret_borrow<py::array>(object).ndim() : 0;
}

// An array of M parts, each of them contiguous, that may lie apart; or, for None, nothing.
template <class T>
PerNetwork<const T> read_parts(const char* name, const py::object& object, int64_t M, Dim rows, Dim columns = {""}) {
    if (object.is_none()) return {};
    const bool matrix = *columns.name != 0;
    const auto array = py::isinstance<py::array>(object) ? py::reinterpret_borrow<py::array>(object) : py::array();
    const bool right = matrix ? fits(array, {{"M", M}, rows, columns}) : fits(array, {{"M", M}, rows});
    const py::ssize_t size = sizeof(T);
    if (!right || M < 1 || array.strides(0) % size != 0) {
        if (matrix) {
            checked_array(name, object, kNumbers<T>, {{"M", M}, rows, columns});
        } else {
            checked_array(name, object, kNumbers<T>, {{"M", M}, rows});
        }
        throw py::value_error(std::string(name) + ": expected one network at least, got " + describe(array));
    }
    const py::object part = array[py::int_(0)];
    const T* first = matrix ? read<T>(name, part, {rows, columns}) : read<T>(name, part, {rows});
    return {first, array.strides(0) / size};
}

// A contiguous array of all networks, each with `size` elements, or one for all.
template <class T>
PerNetwork<const T> parts_of(const py::array& array, bool shared, int64_t size) {
    return {static_cast<const T*>(array.data()), shared ? 0 : size};
}

// The lengths of the rows of each network, or of all.
PerNetwork<const int64_t> read_lengths(const py::object& lengths, int64_t M, Layout layout) {
    if (lengths.is_none()) return {};
    const bool shared = dimensions(lengths) != 2;
    if (shared) {
        checked_lengths(lengths, layout);
    } else {
        const py::array array = checked_array("lengths", lengths, kInt64, {{"M", M}, {"N", layout.N}});
        for (int64_t m = 0; m < M; ++m) checked_lengths(array[py::int_(m)], layout);
    }
    return parts_of<int64_t>(py::reinterpret_borrow<py::array>(lengths), shared, layout.N);
}

// x (M, outer, inner, I), or (outer, inner, I) for all.
template <class T>
py::array checked_x(const py::object& x, int64_t M, int64_t I) {
    return dimensions(x) == 3 ? checked_array("x", x, kNumbers<T>, {{"N"}, {"T"}, {"I", I}})
                              : checked_array("x", x, kNumbers<T>, {{"M", M}, {"N"}, {"T"}, {"I", I}});
}

// The series of a call and where its rows are.
template <class T>
struct Series {
    py::array x, lengths_kept;
    bool shared;
    int64_t outer, inner;
    ManyLayouts layouts;
    PerNetwork<const T> parts;

    Series(const py::object& given, const py::object& lengths, int64_t M, int64_t I, int64_t units, bool batch_first,
           bool reverse)
        : x(checked_x<T>(given, M, I)),
          shared(x.ndim() == 3),
          outer(x.shape(x.ndim() - 3)),
          inner(x.shape(x.ndim() - 2)),
          layouts{batch_first ? outer : inner, batch_first ? inner : outer, batch_first, reverse, {}},
          parts(parts_of<T>(x, shared, outer * inner * I)) {
        check_size(x, layouts.of(0), M * units, M * I);
        layouts.lengths = read_lengths(lengths, M, layouts.of(0));
        if (!lengths.is_none()) lengths_kept = py::reinterpret_borrow<py::array>(lengths);
    }
};

template <class T>
struct Recording {
    py::object weights;  // keeps the arrays
    const Networks<T>* networks;
    Series<T> series;
    py::object h_0, c_0;
    ManyInputs<T> inputs;
    std::shared_ptr<const std::vector<Tape<T>>> tapes;

    py::tuple backward(const py::object& dy, const py::object& dh_n, const py::object& dc_n) const;
};

// The parts of a state, (M, passes, N, H), or of its gradient.
template <class T>
void read_states(const char* const (&names)[2], const py::object& h, const py::object& c, int states,
                 std::initializer_list<int64_t> shape, PerNetwork<const T> (&to)[kMaxStates]) {
    const int64_t* size = shape.begin();
    const Dim dims[] = {{"M", size[0]}, {"D*L", size[1]}, {"N", size[2]}, {"H", size[3]}};
    for (int s = 0; s < 2; ++s) {
        const py::object& part = s ? c : h;
        if (part.is_none()) continue;
        if (s >= states) throw py::type_error(std::string(names[s]) + ": expected None, since there is no cell state");
        const T* data = read<T>(names[s], part, {dims[0], dims[1], dims[2], dims[3]});
        to[s] = {data, size[1] * size[2] * size[3]};
    }
}

template <class T>
PerNetwork<T> new_parts(py::object& array, std::initializer_list<int64_t> shape) {
    py::array made = new_array<T>(shape);
    int64_t size = 1;
    for (const int64_t* dim = shape.begin() + 1; dim != shape.end(); ++dim) size *= *dim;
    T* first = data<T>(made);
    array = std::move(made);
    return {first, size};
}

// A gradient laid out like x, or like y.
template <class T>
PerNetwork<T> new_series(py::object& array, const Series<T>& like, int64_t M, bool shared, int64_t width) {
    if (!shared) return new_parts<T>(array, {M, like.outer, like.inner, width});
    return {new_parts<T>(array, {like.outer, like.inner, width}).first, 0};
}

template <class T>
struct NewOutputs {
    py::object arrays[1 + kMaxStates];
    ManyOutputs<T> pointers;
    int states;

    NewOutputs(const Networks<T>& networks, const Series<T>& series) : states(states_of(networks.passes[0].spec.cell)) {
        const int64_t M = networks.M, H = networks.passes[0].H, passes = static_cast<int64_t>(networks.passes.size());
        pointers.y = new_series<T>(arrays[0], series, M, false, networks.directions * H);
        for (int s = 0; s < states; ++s) {
            pointers.last[s] = new_parts<T>(arrays[1 + s], {M, passes, series.layouts.N, H});
        }
    }
    py::tuple tuple() const {
        if (states == 1) return py::make_tuple(arrays[0], arrays[1]);
        return py::make_tuple(arrays[0], arrays[1], arrays[2]);
    }
};

// Networks and the arrays that their weights are in.
template <class T>
struct Held {
    py::tuple arrays;
    Networks<T> networks;
    bool batch_first;

    int64_t units() const {
        const ManyWeights<T>& pass = networks.passes[0];
        return static_cast<int64_t>(networks.passes.size()) * gates_of(pass.spec.cell) * pass.H;
    }
    ManyInputs<T> inputs(const Series<T>& series, const py::object& h_0, const py::object& c_0) const {
        const ManyWeights<T>& pass = networks.passes[0];
        ManyInputs<T> inputs{series.parts, {}};
        read_states<T>({"h_0", "c_0"}, h_0, c_0, states_of(pass.spec.cell),
                       {networks.M, static_cast<int64_t>(networks.passes.size()), series.layouts.N, pass.H},
                       inputs.first);
        return inputs;
    }
    py::tuple forward(const py::object& x, const py::object& h_0, const py::object& c_0, const py::object& lengths,
                      bool reverse) const {
        const Series<T> series(x, lengths, networks.M, networks.passes[0].I, units(), batch_first, reverse);
        const ManyInputs<T> from = inputs(series, h_0, c_0);
        const NewOutputs<T> outputs(networks, series);
        {
            const py::gil_scoped_release nogil;
            rnncore::forward(networks, series.layouts, from, outputs.pointers);
        }
        return outputs.tuple();
    }
};

using AnyHeld = std::variant<Held<float>, Held<double>>;
using AnyRecording = std::variant<Recording<float>, Recording<double>>;

template <class T>
AnyHeld hold(Cell cell, const py::list& weights, int directions, bool batch_first, bool packed) {
    const int64_t G = gates_of(cell), count = static_cast<int64_t>(weights.size());
    if (count == 0 || directions < 1 || directions > 2 || count % directions != 0) {
        throw py::value_error("weights: expected those of one or two directions of every layer");
    }
    Held<T> held{py::tuple(weights), {0, directions, {}, {}}, batch_first};
    for (const py::handle item : weights) {
        const auto arrays = py::reinterpret_borrow<py::tuple>(item);
        const py::object given_ih = arrays[0], given_hh = arrays[1];
        if (dimensions(given_hh) != 3) checked_array("w_hh", given_hh, kNumbers<T>, {{"M"}, {"G*H"}, {"H"}});
        if (dimensions(given_ih) != 3) checked_array("w_ih", given_ih, kNumbers<T>, {{"M"}, {"G*H"}, {"I"}});
        const auto w_ih = py::reinterpret_borrow<py::array>(given_ih),
                   w_hh = py::reinterpret_borrow<py::array>(given_hh);
        const size_t index = held.networks.passes.size();
        if (index == 0) held.networks.M = w_ih.shape(0);
        const int64_t M = held.networks.M, H = w_hh.shape(2), I = w_ih.shape(2);
        const Dim gates{"G*H", G * H};
        ManyWeights<T> pass{{cell},
                            I,
                            H,
                            H,
                            read_parts<T>("w_ih", arrays[0], M, gates, {"I", I}),
                            read_parts<T>("w_hh", arrays[1], M, gates, {"H", H}),
                            read_parts<T>("b_ih", arrays[2], M, gates),
                            read_parts<T>("b_hh", arrays[3], M, gates),
                            {},
                            {},
                            {}};
        const std::vector<ManyWeights<T>>& passes = held.networks.passes;
        const bool fits_below =
            index < static_cast<size_t>(directions) ? index == 0 || I == passes[0].I : I == directions * passes[0].H;
        if (H < 1 || !fits_below || (index > 0 && H != passes[0].H)) {
            throw py::value_error("weights: the passes do not fit each other");
        }
        held.networks.passes.push_back(pass);
    }
    if (packed) {
        const py::gil_scoped_release nogil;
        held.networks.pack();
    }
    return held;
}

template <class T>
py::tuple record(const py::object& self, const Held<T>& held, int64_t checkpoint_every, const py::object& x,
                 const py::object& h_0, const py::object& c_0, const py::object& lengths, bool reverse) {
    const Networks<T>& networks = held.networks;
    if (networks.passes.size() != 1) throw py::value_error("weights: expected those of one pass to record");
    if (checkpoint_every < 0) throw py::value_error("checkpoint_every: expected 0 or a number of steps");
    Series<T> series(x, lengths, networks.M, networks.passes[0].I, held.units(), held.batch_first, reverse);
    const ManyInputs<T> from = held.inputs(series, h_0, c_0);
    const NewOutputs<T> outputs(networks, series);
    std::shared_ptr<const std::vector<Tape<T>>> tapes;
    {
        const py::gil_scoped_release nogil;
        tapes = std::make_shared<const std::vector<Tape<T>>>(
            forward_for_training(networks, series.layouts, from, outputs.pointers, checkpoint_every));
    }
    return py::make_tuple(outputs.tuple(), AnyRecording(Recording<T>{self, &networks, std::move(series), h_0, c_0, from,
                                                                     std::move(tapes)}));
}

template <class T>
py::tuple Recording<T>::backward(const py::object& dy, const py::object& dh_n, const py::object& dc_n) const {
    const ManyWeights<T>& pass = networks->passes[0];
    const int64_t M = networks->M, N = series.layouts.N, I = pass.I, H = pass.H, GH = gates_of(pass.spec.cell) * H;
    const int states = states_of(pass.spec.cell);
    ManyOutputs<const T> cotangents{};
    if (!dy.is_none()) {
        cotangents.y = {read<T>("dy", dy, {{"M", M}, {"N", series.outer}, {"T", series.inner}, {"H", H}}),
                        series.outer * series.inner * H};
    }
    read_states<T>({"dh_n", "dc_n"}, dh_n, dc_n, states, {M, 1, N, H}, cotangents.last);

    py::object arrays[5 + kMaxStates];
    ManyGradients<T> gradients{};
    gradients.x = new_series<T>(arrays[0], series, M, series.shared, I);
    gradients.w_ih = new_parts<T>(arrays[1], {M, GH, I});
    gradients.w_hh = new_parts<T>(arrays[2], {M, GH, H});
    gradients.b_ih = new_parts<T>(arrays[3], {M, GH});
    gradients.b_hh = new_parts<T>(arrays[4], {M, GH});
    for (int s = 0; s < states; ++s) gradients.first[s] = new_parts<T>(arrays[5 + s], {M, 1, N, H});
    {
        const py::gil_scoped_release nogil;
        rnncore::backward(*networks, series.layouts, inputs, *tapes, cotangents, gradients);
    }
    py::tuple result(static_cast<size_t>(5 + states));
    for (int i = 0; i < 5 + states; ++i) result[static_cast<size_t>(i)] = std::move(arrays[i]);
    return result;
}

// ------------------------------------------------------------------------------------------------ affine layers

template <class T>
struct LinearCall {
    py::object weight, bias;
    Series<T> series;
    ManyLinears<T> layers;
    const KernelTable* kernels;
    py::object y;

    LinearCall(Activation activation, const py::object& x, const py::object& w, const py::object& b,
               const py::object& lengths, int64_t M, int64_t O, int64_t I)
        : weight(w), bias(b), series(x, lengths, M, I, O, true, false), kernels(&rnncore::kernels()) {
        const ManyLayouts& layouts = series.layouts;
        layers = {M,
                  I,
                  O,
                  activation,
                  {},
                  series.parts,
                  read_parts<T>("weight", w, M, {"O", O}, {"I", I}),
                  read_parts<T>("bias", b, M, {"O", O}),
                  new_series<T>(y, series, M, false, O)};
        for (int64_t m = 0; m < (layouts.shared() ? 1 : M); ++m) {
            const int64_t* of_network = layouts.lengths.of(m);
            layers.rows.push_back(of_network ? Rows(layouts.N, layouts.T, of_network) : Rows(layouts.N * layouts.T));
        }
        const py::gil_scoped_release nogil;
        linear_forward(*kernels, layers);
    }
    py::tuple backward(const py::object& dy) const {
        const int64_t M = layers.M, I = layers.I, O = layers.O;
        const T* given = read<T>("dy", dy, {{"M", M}, {"N", series.outer}, {"T", series.inner}, {"O", O}});
        py::object dx, dweight, dbias;
        const ManyLinearGradients<T> gradients{new_series<T>(dx, series, M, series.shared, I),
                                               new_parts<T>(dweight, {M, O, I}), new_parts<T>(dbias, {M, O})};
        {
            const py::gil_scoped_release nogil;
            linear_backward<T>(*kernels, layers, {given, series.outer * series.inner * O}, gradients);
        }
        return py::make_tuple(dx, dweight, dbias);
    }
};

using AnyLinear = std::variant<LinearCall<float>, LinearCall<double>>;

AnyLinear call_linear(Activation activation, const py::object& x, const py::object& weight, const py::object& bias,
                      const py::object& lengths) {
    if (dimensions(weight) != 3) checked_array("weight", weight, kFloat32 | kFloat64, {{"M"}, {"O"}, {"I"}});
    const auto array = py::reinterpret_borrow<py::array>(weight);
    const int index = static_cast<int>(activation);
    if (index < 0 || index >= kPlainActivations) throw py::value_error("activation: there is no such activation");
    const int64_t M = array.shape(0), O = array.shape(1), I = array.shape(2);
    if (O < 1) throw py::value_error("weight: expected at least one output, got " + describe(array));
    if (array.itemsize() == sizeof(float)) return LinearCall<float>(activation, x, weight, bias, lengths, M, O, I);
    return LinearCall<double>(activation, x, weight, bias, lengths, M, O, I);
}

}  // namespace

void register_many(py::module_& m) {
    py::class_<AnyHeld>(m, "Networks")
        .def(py::init([](Cell cell, const py::list& weights, int directions, bool batch_first, bool packed) {
            const bool single = !weights.empty() && py::array(py::tuple(weights[0])[0]).itemsize() == sizeof(float);
            return single ? hold<float>(cell, weights, directions, batch_first, packed)
                          : hold<double>(cell, weights, directions, batch_first, packed);
        }))
        .def("forward",
             [](const AnyHeld& held, const py::object& x, const py::object& h_0, const py::object& c_0,
                const py::object& lengths, bool reverse) {
                 return std::visit([&](const auto& h) { return h.forward(x, h_0, c_0, lengths, reverse); }, held);
             })
        .def("record", [](const py::object& self, int64_t checkpoint_every, const py::object& x, const py::object& h_0,
                          const py::object& c_0, const py::object& lengths, bool reverse) {
            return std::visit(
                [&](const auto& h) { return record(self, h, checkpoint_every, x, h_0, c_0, lengths, reverse); },
                self.cast<const AnyHeld&>());
        });
    py::class_<AnyRecording>(m, "NetworksRecording")
        .def("backward",
             [](const AnyRecording& recording, const py::object& dy, const py::object& dh_n, const py::object& dc_n) {
                 return std::visit([&](const auto& r) { return r.backward(dy, dh_n, dc_n); }, recording);
             });
    py::class_<AnyLinear>(m, "LinearNetworks")
        .def(py::init(&call_linear))
        .def_property_readonly(
            "y", [](const AnyLinear& call) { return std::visit([](const auto& c) { return c.y; }, call); })
        .def("backward", [](const AnyLinear& call, const py::object& dy) {
            return std::visit([&](const auto& c) { return c.backward(dy); }, call);
        });
}

}  // namespace rnncore
