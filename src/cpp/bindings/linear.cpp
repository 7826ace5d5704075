// An affine layer: forward, and forward with what its backward needs, which may be called many times.
#include "linear.hpp"

#include <variant>
#include <vector>

#include "../dispatch.hpp"
#include "../linear.hpp"
#include "arrays.hpp"
#include "call.hpp"

namespace rnncore {
namespace {

// The arguments of a call. The objects keep the arrays alive.
struct Arguments {
    Activation activation;
    py::object x, weight, bias, lengths;
};

// Whether nothing has to be converted: all arrays of the dtype of weight. Those of many networks are for many.cpp.
bool ready(const Arguments& a) {
    if (!is_ready(a.weight, kFloat32 | kFloat64)) return false;
    if (py::reinterpret_borrow<py::array>(a.weight).ndim() == 3) return false;
    const int numbers = py::reinterpret_borrow<py::array>(a.weight).itemsize() == sizeof(float) ? kFloat32 : kFloat64;
    return is_ready(a.x, numbers) && is_ready_or_none(a.bias, numbers) && is_ready_or_none(a.lengths, kInt64);
}

// The shape of x with another last size: of y and of its gradient.
std::vector<int64_t> shape_like(const py::array& x, int64_t last) {
    std::vector<int64_t> shape(x.shape(), x.shape() + x.ndim());
    shape.back() = last;
    return shape;
}

// A layer and the rows it is for. y is set by those who have one.
template <class T>
struct Call {
    Rows rows;
    Linear<T> layer;

    static Call checked(const Arguments& a) {
        const int activation = static_cast<int>(a.activation);
        if (activation < 0 || activation >= kPlainActivations) {
            throw py::value_error("activation: there is none with the value " + std::to_string(activation));
        }
        const py::array weight = checked_array("weight", a.weight, kNumbers<T>, {{"O"}, {"I"}});
        const int64_t O = weight.shape(0), I = weight.shape(1);
        if (O < 1) throw py::value_error("weight: expected at least one output, got " + describe(weight));
        const auto x = py::reinterpret_borrow<py::array>(a.x);
        const bool ragged = !a.lengths.is_none();
        if (x.ndim() < 1 || x.shape(x.ndim() - 1) != I || (ragged && x.ndim() != 3)) {
            throw py::value_error("x: expected " + py::str(weight.dtype()).cast<std::string>() +
                                  (ragged ? " (N, T, " : " (..., ") + std::to_string(I) +
                                  (ragged ? ") since lengths are given, got " : "), got ") + describe(x));
        }
        int64_t all = 1;
        for (int axis = 0; axis + 1 < x.ndim(); ++axis) all *= x.shape(axis);
        const Layout layout{ragged ? x.shape(0) : all, ragged ? x.shape(1) : 1, true, false, nullptr};
        check_size(x, layout, O, I);
        const T* bias = read_optional<T>("bias", a.bias, {{"O", O}});
        const int64_t* lengths = checked_lengths(a.lengths, layout);
        return {lengths ? Rows(layout.N, layout.T, lengths) : Rows(all),
                {I, O, a.activation, nullptr, static_cast<const T*>(x.data()), false,
                 static_cast<const T*>(weight.data()), bias, nullptr, O}};
    }

    // Runs forward; returns y.
    py::array run(const Arguments& a, const KernelTable& table) {
        py::array y = new_array(py::dtype::of<T>(), shape_like(py::reinterpret_borrow<py::array>(a.x), layer.O));
        layer.y = data<T>(y);
        const py::gil_scoped_release nogil;
        linear_forward(table, rows, layer);
        return y;
    }
};

template <class T>
struct LinearRecording {
    Arguments arguments;
    const KernelTable* kernels;
    Call<T> call;
    py::object y;  // if there is an activation

    // None if dy would have to be converted.
    py::object backward(const py::object& dy) const {
        if (!is_ready(dy, kNumbers<T>)) return py::none();
        const auto x = py::reinterpret_borrow<py::array>(arguments.x), given = py::reinterpret_borrow<py::array>(dy);
        const int64_t I = call.layer.I, O = call.layer.O;
        const std::vector<int64_t> shape = shape_like(x, O);
        if (!std::equal(shape.begin(), shape.end(), given.shape(), given.shape() + given.ndim())) {
            throw py::value_error("dy: expected " + describe(py::array(given.dtype(), shape)) + ", got " +
                                  describe(given));
        }
        py::array dx = new_array(x.dtype(), shape_like(x, I)), dweight = new_array<T>({O, I}),
                  dbias = new_array<T>({O});
        {
            const py::gil_scoped_release nogil;
            linear_backward<T>(*kernels, call.rows, call.layer, data<T>(given),
                               {data<T>(dx), data<T>(dweight), data<T>(dbias)});
        }
        return py::make_tuple(std::move(dx), std::move(dweight), std::move(dbias));
    }
};

using AnyRecording = std::variant<LinearRecording<float>, LinearRecording<double>>;

template <class T>
py::object linear_as(const Arguments& arguments) {
    return Call<T>::checked(arguments).run(arguments, kernels());
}

template <class T>
py::object record_as(Arguments& arguments) {
    Call<T> call = Call<T>::checked(arguments);
    const KernelTable& table = kernels();
    py::object y = call.run(arguments, table);
    arguments.bias = arguments.lengths = py::none();  // backward needs neither
    py::object kept = arguments.activation == Activation::none ? py::none() : y;
    return py::make_tuple(
        std::move(y), AnyRecording(LinearRecording<T>{std::move(arguments), &table, std::move(call), std::move(kept)}));
}

bool is_single(const Arguments& a) {
    return py::reinterpret_borrow<py::array>(a.weight).itemsize() == sizeof(float);
}

}  // namespace

void register_linear(py::module_& m) {
    py::enum_<Activation>(m, "Activation")
        .value("none", Activation::none)
        .value("tanh", Activation::tanh)
        .value("sigmoid", Activation::sigmoid)
        .value("relu", Activation::relu)
        .value("hard_sigmoid", Activation::hard_sigmoid)
        .value("softsign", Activation::softsign)
        .value("affine", Activation::affine)
        .value("leaky_relu", Activation::leaky_relu)
        .value("thresholded_relu", Activation::thresholded_relu)
        .value("scaled_tanh", Activation::scaled_tanh)
        .value("elu", Activation::elu)
        .value("softplus", Activation::softplus);

    m.def("linear", [](Activation activation, py::object x, py::object weight, py::object bias, py::object lengths) {
        const Arguments a{activation, x, weight, bias, lengths};
        return !ready(a) ? py::none() : is_single(a) ? linear_as<float>(a) : linear_as<double>(a);
    });
    m.def("record_linear",
          [](Activation activation, py::object x, py::object weight, py::object bias, py::object lengths) {
              Arguments a{activation, x, weight, bias, lengths};
              return !ready(a) ? py::none() : is_single(a) ? record_as<float>(a) : record_as<double>(a);
          });
    py::class_<AnyRecording>(m, "LinearRecording").def("backward", [](const AnyRecording& recording, py::object dy) {
        return std::visit([&](const auto& r) { return r.backward(dy); }, recording);
    });
}

}  // namespace rnncore
