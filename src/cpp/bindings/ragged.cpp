#include "ragged.hpp"

#include <algorithm>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "arrays.hpp"

namespace rnncore {

namespace {

// Sums of all before each, and of all.
std::vector<int64_t> starts(std::span<const int64_t> sizes) {
    std::vector<int64_t> sums(sizes.size() + 1);
    std::partial_sum(sizes.begin(), sizes.end(), sums.begin() + 1);
    return sums;
}

std::span<const int64_t> integers(const char* name, const py::object& object, const char* axis) {
    const py::array array = checked_array(name, object, kInt64, {{axis}});
    return {static_cast<const int64_t*>(array.data()), static_cast<size_t>(array.size())};
}

// Rows step by step, as torch's PackedSequence has them.
Ragged packed(const py::object& batch_sizes, const py::object& sorted_indices) {
    const std::span<const int64_t> sizes = integers("batch_sizes", batch_sizes, "T");
    const std::span<const int64_t> order = integers("sorted_indices", sorted_indices, "N");
    const auto N = static_cast<int64_t>(order.size());
    for (size_t t = 0; t < sizes.size(); ++t) {
        const int64_t most = t ? sizes[t - 1] : N;
        if (sizes[t] >= 1 && sizes[t] <= most) continue;
        throw py::value_error("batch_sizes: expected values from 1 to " + std::to_string(most) +
                              (t ? ", since they do not grow, got " : ", the number of sequences, got ") +
                              std::to_string(sizes[t]) + " at step " + std::to_string(t));
    }
    Ragged ragged;
    ragged.lengths.assign(order.size(), -1);
    ragged.order.assign(order.begin(), order.end());
    auto steps = static_cast<int64_t>(sizes.size());
    for (int64_t n = 0; n < N; ++n) {
        while (steps > 0 && sizes[steps - 1] <= n) --steps;
        if (order[n] < 0 || order[n] >= N || ragged.lengths[order[n]] >= 0) {
            throw py::value_error("sorted_indices: expected each of 0 to " + std::to_string(N - 1) + " once, got " +
                                  std::to_string(order[n]) + " at " + std::to_string(n));
        }
        ragged.lengths[order[n]] = steps;
    }
    ragged.sequence.resize(order.size());
    for (int64_t n = 0; n < N; ++n) ragged.sequence[static_cast<size_t>(order[n])] = n;
    ragged.step = starts(sizes);
    ragged.R = ragged.step.back();
    ragged.step.pop_back();
    return ragged;
}

// Rows of one sequence after the other.
Ragged joined(const py::object& lengths) {
    constexpr int64_t kMost = int64_t{1} << 48;
    const std::span<const int64_t> given = integers("lengths", lengths, "N");
    Ragged ragged;
    ragged.lengths.assign(given.begin(), given.end());
    int64_t T = 0, rows = 0;
    for (const int64_t length : given) {
        if (length < 0 || length > kMost - rows) {
            throw py::value_error("lengths: expected numbers of rows that there are, got " + std::to_string(length));
        }
        rows += length;
        T = std::max(T, length);
    }
    ragged.sequence = starts(given);
    ragged.R = ragged.sequence.back();
    ragged.sequence.pop_back();
    ragged.order.resize(given.size());
    std::iota(ragged.order.begin(), ragged.order.end(), int64_t{0});
    std::stable_sort(ragged.order.begin(), ragged.order.end(),
                     [=](int64_t a, int64_t b) { return given[a] > given[b]; });
    ragged.step.resize(static_cast<size_t>(T));
    std::iota(ragged.step.begin(), ragged.step.end(), int64_t{0});
    return ragged;
}

py::array copied(const std::vector<int64_t>& values) {
    return py::array(static_cast<py::ssize_t>(values.size()), values.data());
}

// The row of each step, one sequence after the other.
py::array places(const Ragged& ragged) {
    std::vector<int64_t> rows;
    rows.reserve(static_cast<size_t>(ragged.R));
    for (size_t n = 0; n < ragged.lengths.size(); ++n) {
        for (size_t t = 0; t < static_cast<size_t>(ragged.lengths[n]); ++t) {
            rows.push_back(ragged.sequence[n] + ragged.step[t]);
        }
    }
    return copied(rows);
}

}  // namespace

const Ragged* as_ragged(py::handle lengths) {
    if (lengths.is_none() || py::isinstance<py::array>(lengths) || !py::isinstance<Ragged>(lengths)) return nullptr;
    return &lengths.cast<const Ragged&>();
}

void register_ragged(py::module_& m) {
    py::class_<Ragged>(m, "Ragged")
        .def_static("packed", &packed)
        .def_static("joined", &joined)
        .def_property_readonly("lengths", [](const Ragged& ragged) { return copied(ragged.lengths); })
        .def_property_readonly("order", [](const Ragged& ragged) { return copied(ragged.order); })
        .def_property_readonly("places", &places)
        .def_readonly("rows", &Ragged::R)
        .def_property_readonly("sequences", [](const Ragged& ragged) { return ragged.lengths.size(); });
}

}  // namespace rnncore
