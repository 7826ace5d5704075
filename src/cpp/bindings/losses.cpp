// Losses that have kernels: softmax cross-entropy and CTC. Each returns the value, the weight and the gradient, or None
// for a gradient that is not wanted.
#include "losses.hpp"

#include <pybind11/stl.h>

#include <cmath>
#include <optional>

#include "../losses.hpp"
#include "arrays.hpp"
#include "call.hpp"

namespace rnncore {
namespace {

const double* checked_weights(py::handle object, Shape shape) {
    const double* weights = read_optional<double>("weights", object, shape);
    int64_t size = weights ? 1 : 0;
    for (const Dim& dim : shape) size *= dim.size;
    for (int64_t i = 0; i < size; ++i) {
        if (weights[i] >= 0 && std::isfinite(weights[i])) continue;
        throw py::value_error("weights: expected finite values of at least 0, got " + std::to_string(weights[i]));
    }
    return weights;
}

py::tuple result(const Mean& mean, py::object gradient) {
    return py::make_tuple(mean.value, mean.weight, std::move(gradient));
}

template <class T>
py::object cross_entropy_as(const py::object& outputs, const py::object& targets, const py::object& lengths,
                            const py::object& weights, const std::optional<int64_t>& ignored_class, double smoothing,
                            bool with_gradient) {
    const bool classes = is_ready(targets, kInt64);
    if (!classes && !is_ready(targets, kNumbers<T>)) return py::none();
    const auto x = py::reinterpret_borrow<py::array>(outputs), y = py::reinterpret_borrow<py::array>(targets);
    const bool batched = x.ndim() == 3;
    const Dim N{"N", x.shape(0)}, T_{"T", batched ? x.shape(1) : 1}, C{"C", x.shape(x.ndim() - 1)};
    const bool of_classes = batched ? fits(y, {N, T_}) : fits(y, {N});
    const bool of_probabilities = batched ? fits(y, {N, T_, C}) : fits(y, {N, C});
    if (classes ? !of_classes : !of_probabilities) return py::none();
    const bool step_weights = batched && !weights.is_none() && py::reinterpret_borrow<py::array>(weights).ndim() == 2;

    CrossEntropyBatch<T> batch{};
    batch.N = N.size, batch.steps = T_.size, batch.C = C.size;
    batch.outputs = static_cast<const T*>(x.data());
    if (classes) {
        batch.classes = static_cast<const int64_t*>(y.data());
    } else {
        batch.probabilities = static_cast<const T*>(y.data());
    }
    batch.lengths = checked_lengths(lengths, {N.size, T_.size, true, false, nullptr});
    batch.weights = step_weights ? checked_weights(weights, {N, T_}) : checked_weights(weights, {N});
    batch.step_weights = step_weights;
    batch.ignored_class = ignored_class ? &*ignored_class : nullptr;
    batch.smoothing = smoothing;
    py::object gradient = py::none();
    if (with_gradient) {
        py::array array = batched ? new_array<T>({N.size, T_.size, C.size}) : new_array<T>({N.size, C.size});
        batch.gradient = data<T>(array);
        gradient = std::move(array);
    }
    Mean mean;
    {
        const py::gil_scoped_release nogil;
        mean = cross_entropy(batch);
    }
    return result(mean, std::move(gradient));
}

template <class T>
py::object ctc_as(const py::array& x, const py::object& targets, const py::object& target_lengths,
                  const py::object& lengths, const py::object& weights, int64_t blank, bool zero_infinity,
                  bool with_gradient) {
    const Dim N{"N", x.shape(0)};
    const auto labels = checked_array("targets", targets, kInt64, {N, {"L"}});
    CtcBatch<T> batch{};
    batch.N = N.size, batch.steps = x.shape(1), batch.C = x.shape(2), batch.labels = labels.shape(1);
    batch.blank = blank;
    if (blank < 0 || blank >= batch.C) {
        throw py::value_error("blank: expected a class from 0 to " + std::to_string(batch.C - 1) + ", got " +
                              std::to_string(blank));
    }
    batch.outputs = static_cast<const T*>(x.data());
    batch.targets = static_cast<const int64_t*>(labels.data());
    batch.target_lengths = read<int64_t>("target_lengths", target_lengths, {N});
    for (int64_t n = 0; n < batch.N; ++n) {
        if (batch.target_lengths[n] >= 0 && batch.target_lengths[n] <= batch.labels) continue;
        throw py::value_error("target_lengths: expected values from 0 to L = " + std::to_string(batch.labels) +
                              ", got " + std::to_string(batch.target_lengths[n]) + " at row " + std::to_string(n));
    }
    batch.lengths = checked_lengths(lengths, {N.size, batch.steps, true, false, nullptr});
    batch.weights = checked_weights(weights, {N});
    batch.zero_infinity = zero_infinity;
    py::object gradient = py::none();
    if (with_gradient) {
        py::array array = new_array<T>({N.size, batch.steps, batch.C});
        batch.gradient = data<T>(array);
        gradient = std::move(array);
    }
    Mean mean;
    {
        const py::gil_scoped_release nogil;
        mean = ctc(batch);
    }
    return result(mean, std::move(gradient));
}

}  // namespace

void register_losses(py::module_& m) {
    m.def("cross_entropy",
          [](const py::object& outputs, const py::object& targets, const py::object& lengths, const py::object& weights,
             std::optional<int64_t> ignored_class, double smoothing, bool with_gradient) -> py::object {
              if (!is_ready(outputs, kFloat32 | kFloat64) || !is_ready_or_none(lengths, kInt64) ||
                  !is_ready_or_none(weights, kFloat64)) {
                  return py::none();
              }
              const auto x = py::reinterpret_borrow<py::array>(outputs);
              const auto ndim = x.ndim();
              const bool fits_targets = (ndim == 3 || (ndim == 2 && lengths.is_none())) && x.shape(ndim - 1) > 0;
              if (!fits_targets) return py::none();
              return x.itemsize() == sizeof(float) ? cross_entropy_as<float>(outputs, targets, lengths, weights,
                                                                             ignored_class, smoothing, with_gradient)
                                                   : cross_entropy_as<double>(outputs, targets, lengths, weights,
                                                                              ignored_class, smoothing, with_gradient);
          });
    m.def("ctc", [](const py::object& outputs, const py::object& targets, const py::object& target_lengths,
                    const py::object& lengths, const py::object& weights, int64_t blank, bool zero_infinity,
                    bool with_gradient) {
        const py::array x = checked_array("outputs", outputs, kFloat32 | kFloat64, {{"N"}, {"T"}, {"C"}});
        return x.itemsize() == sizeof(float)
                   ? ctc_as<float>(x, targets, target_lengths, lengths, weights, blank, zero_infinity, with_gradient)
                   : ctc_as<double>(x, targets, target_lengths, lengths, weights, blank, zero_infinity, with_gradient);
    });
}

}  // namespace rnncore
