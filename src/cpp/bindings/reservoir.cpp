// A reservoir with its weights packed, and series taken through it.
#include "reservoir.hpp"

#include <cmath>
#include <limits>
#include <string>

#include "../reservoir.hpp"
#include "arrays.hpp"

namespace rnncore {
namespace {

std::string at(const char* name, int64_t place) {
    return std::string(name) + "[" + std::to_string(place) + "]";
}

// What makes rows of columns: refuses what kernels would read out of bounds, and columns that do not ascend.
void check_rows(const int64_t* indptr, const int64_t* indices, int64_t H, int64_t nonzeros) {
    if (indptr[0] != 0) throw py::value_error("indptr[0]: expected 0, got " + std::to_string(indptr[0]));
    for (int64_t i = 0; i < H; ++i) {
        if (indptr[i + 1] < indptr[i] || indptr[i + 1] > nonzeros) {
            throw py::value_error(at("indptr", i + 1) + ": expected a value from " + std::to_string(indptr[i]) +
                                  " to " + std::to_string(nonzeros) + ", got " + std::to_string(indptr[i + 1]));
        }
        for (int64_t k = indptr[i], least = 0; k < indptr[i + 1]; least = indices[k++] + 1) {
            if (indices[k] >= least && indices[k] < H) continue;
            throw py::value_error(at("indices", k) + ": expected ascending columns from 0 to " + std::to_string(H - 1) +
                                  " in row " + std::to_string(i) + ", got " + std::to_string(indices[k]));
        }
    }
    if (indptr[H] != nonzeros) {
        throw py::value_error(at("indptr", H) + ": expected " + std::to_string(nonzeros) + ", the size of data, got " +
                              std::to_string(indptr[H]));
    }
}

std::unique_ptr<PackedReservoir> make_reservoir(const py::object& w_in, const py::object& bias, const py::object& data,
                                                const py::object& indices, const py::object& indptr, double leak) {
    if (!(leak > 0 && leak <= 1)) {
        throw py::value_error("leak: expected a number in (0, 1], got " + std::to_string(leak));
    }
    const py::array inputs = checked_array("w_in", w_in, kFloat64, {{"H"}, {"I"}});
    const int64_t H = inputs.shape(0), I = inputs.shape(1);
    if (H < 1 || I < 1 || H > std::numeric_limits<int32_t>::max()) {
        throw py::value_error("w_in: expected at least one unit and one input, got " + describe(inputs));
    }
    const py::array values = checked_array("data", data, kFloat64, {{"nonzeros"}});
    const int64_t nonzeros = values.shape(0);
    const ReservoirWeights weights{I,
                                   H,
                                   leak,
                                   static_cast<const double*>(inputs.data()),
                                   read_optional<double>("bias", bias, {{"H", H}}),
                                   static_cast<const double*>(values.data()),
                                   read<int64_t>("indices", indices, {{"nonzeros", nonzeros}}),
                                   read<int64_t>("indptr", indptr, {{"H + 1", H + 1}})};
    check_rows(weights.indptr, weights.indices, H, nonzeros);
    const py::gil_scoped_release nogil;
    return std::make_unique<PackedReservoir>(weights);
}

py::tuple run(const PackedReservoir& reservoir, const py::object& x, const py::object& lengths,
              const py::object& state) {
    const int64_t H = reservoir.units();
    const py::array rows = checked_array("x", x, kFloat64, {{"R"}, {"I", reservoir.inputs()}});
    const py::array counts = checked_array("lengths", lengths, kInt64, {{"N"}});
    const int64_t R = rows.shape(0), N = counts.shape(0);
    ReservoirSeries series{N,
                           static_cast<const int64_t*>(counts.data()),
                           static_cast<const double*>(rows.data()),
                           read_optional<double>("state", state, {{"N", N}, {"H", H}}),
                           nullptr,
                           nullptr};
    int64_t left = R;
    for (int64_t n = 0; n < N; ++n) {
        if (series.lengths[n] < 0 || series.lengths[n] > left) left = -1;
        if (left >= 0) left -= series.lengths[n];
    }
    if (left != 0) throw py::value_error("lengths: expected values of at least 0 with the sum " + std::to_string(R));
    py::array states = new_array<double>({R, H}), last = new_array<double>({N, H});
    series.states = data<double>(states);
    series.last = data<double>(last);
    {
        const py::gil_scoped_release nogil;
        reservoir.run(series);
    }
    return py::make_tuple(std::move(states), std::move(last));
}

}  // namespace

void register_reservoir(py::module_& m) {
    py::class_<PackedReservoir>(m, "Reservoir")
        .def(py::init(&make_reservoir), py::arg(), py::arg(), py::arg(), py::arg(), py::arg(), py::arg(),
             py::pos_only())
        .def_property_readonly("diagonals", &PackedReservoir::diagonals)
        .def("run", &run, py::arg(), py::arg(), py::arg(), py::pos_only());
}

}  // namespace rnncore
