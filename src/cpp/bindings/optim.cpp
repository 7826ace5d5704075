// Steps of optimisers and clipping, in place, on flat vectors of one dtype and size that do not overlap.
#include "optim.hpp"

#include "../update.hpp"
#include "arrays.hpp"

namespace rnncore {
namespace {

struct Argument {
    const char* name;
    py::handle object;
};

// The arrays of a step, and what of them is in use: no two may share memory.
class Vectors {
public:
    Vectors(py::handle parameters, py::handle gradients, std::initializer_list<Argument> moments)
        : parameters_(writable_array("parameters", parameters, kFloat32 | kFloat64, {{"P"}})) {
        const Dim size{"P", n()};
        int count = 0;
        for (const Argument& moment : moments) {
            moments_[count++] = moment.object.is_none() ? nullptr : checked_moment(moment);
        }
        const int numbers = is_float32() ? kFloat32 : kFloat64;
        gradients_ = checked_array("gradients", gradients, numbers, {size}).data();
        const Place own{"parameters", parameters_.data()}, others{"gradients", gradients_};
        check_apart(own, others);
        for (int i = 0; i < count; ++i) {
            const Place moment{moments.begin()[i].name, moments_[i]};
            check_apart(own, moment);
            check_apart(others, moment);
            for (int k = 0; k < i; ++k) check_apart({moments.begin()[k].name, moments_[k]}, moment);
        }
    }
    int64_t n() const { return parameters_.shape(0); }
    bool is_float32() const { return parameters_.itemsize() == sizeof(float); }

    template <class T>
    Update<T> update() const {
        Update<T> update{data<T>(parameters_), static_cast<const T*>(gradients_), {}};
        for (int i = 0; i < kMaxMoments; ++i) update.moments[i] = static_cast<T*>(moments_[i]);
        return update;
    }

private:
    // The moments are the optimiser's own: where they do not fit, other parameters than before have come.
    void* checked_moment(const Argument& moment) const {
        const py::array array = writable_array(moment.name, moment.object, kFloat32 | kFloat64, {{"P"}});
        const bool same_type = array.itemsize() == parameters_.itemsize();
        if (!same_type || array.shape(0) != n()) {
            const std::string message = "parameters: expected " + describe(array) +
                                        ", of which this optimizer keeps moments, got " + describe(parameters_);
            if (!same_type) throw py::type_error(message);
            throw py::value_error(message);
        }
        return data<void>(array);
    }
    struct Place {
        const char* name;
        const void* data;  // or null
    };
    void check_apart(Place a, Place b) const {
        const auto bytes = static_cast<size_t>(parameters_.nbytes());
        const auto begin_a = reinterpret_cast<uintptr_t>(a.data), begin_b = reinterpret_cast<uintptr_t>(b.data);
        if (a.data && b.data && begin_a < begin_b + bytes && begin_b < begin_a + bytes) {
            throw py::value_error(std::string(a.name) + " and " + b.name +
                                  ": expected memory of their own, got arrays that overlap");
        }
    }

    py::array parameters_;
    const void* gradients_ = nullptr;
    void* moments_[kMaxMoments] = {};
};

template <class Rule>
void step_in_place(const Rule& rule, const Vectors& vectors) {
    const py::gil_scoped_release nogil;
    if (vectors.is_float32()) {
        step(rule, vectors.update<float>(), vectors.n());
    } else {
        step(rule, vectors.update<double>(), vectors.n());
    }
}

}  // namespace

void register_optim(py::module_& m) {
    m.def("sgd_step", [](const py::object& parameters, const py::object& gradients, const py::object& momentum_buffer,
                         double rate, double momentum, bool nesterov, double weight_decay) {
        step_in_place(Sgd{rate, momentum, weight_decay, nesterov},
                      Vectors(parameters, gradients, {{"momentum_buffer", momentum_buffer}}));
    });
    m.def("rmsprop_step", [](const py::object& parameters, const py::object& gradients, const py::object& square_avg,
                             const py::object& grad_avg, const py::object& momentum_buffer, double rate, double alpha,
                             double eps, double momentum, double weight_decay) {
        if (square_avg.is_none()) throw py::type_error("square_avg: expected an array, got None");
        step_in_place(
            Rmsprop{rate, alpha, eps, momentum, weight_decay},
            Vectors(parameters, gradients,
                    {{"square_avg", square_avg}, {"grad_avg", grad_avg}, {"momentum_buffer", momentum_buffer}}));
    });
    m.def("adam_step", [](const py::object& parameters, const py::object& gradients, const py::object& exp_avg,
                          const py::object& exp_avg_sq, int64_t step, double rate, double beta1, double beta2,
                          double eps, double weight_decay, bool decoupled) {
        if (exp_avg.is_none() || exp_avg_sq.is_none()) {
            throw py::type_error("exp_avg, exp_avg_sq: expected arrays, got None");
        }
        step_in_place(adam_rule(rate, beta1, beta2, eps, weight_decay, decoupled, step),
                      Vectors(parameters, gradients, {{"exp_avg", exp_avg}, {"exp_avg_sq", exp_avg_sq}}));
    });
    m.def("clip_norm", [](const py::object& gradients, double max_norm) {
        const py::array array = writable_array("gradients", gradients, kFloat32 | kFloat64, {{"P"}});
        const bool is_float32 = array.itemsize() == sizeof(float);
        void* values = data<void>(array);
        const int64_t n = array.shape(0);
        const py::gil_scoped_release nogil;
        return is_float32 ? clip_norm(static_cast<float*>(values), n, max_norm)
                          : clip_norm(static_cast<double*>(values), n, max_norm);
    });
}

}  // namespace rnncore
