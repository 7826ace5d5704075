// Strict views of NumPy arrays: the core converts nothing. An array of the wrong dtype, shape, order or alignment is
// refused with a message that names the argument, what was expected and what came.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace rnncore {

namespace py = pybind11;

// A dimension by name, and its size or -1 if any will do.
struct Dim {
    const char* name;
    int64_t size = -1;
};
using Shape = std::vector<Dim>;

std::string describe(const Shape& shape);
std::string describe(const py::array& array);

// The array that `object` is, having one of `dtypes` and the given shape, C-contiguous and aligned. TypeError if it is
// no array or of another dtype, ValueError otherwise.
py::array checked_array(const char* name, py::handle object, const std::vector<py::dtype>& dtypes, const Shape& shape);

template <class T>
const T* read(const char* name, py::handle object, const Shape& shape) {
    return static_cast<const T*>(checked_array(name, object, {py::dtype::of<T>()}, shape).data());
}
// Null for None.
template <class T>
const T* read_optional(const char* name, py::handle object, const Shape& shape) {
    return object.is_none() ? nullptr : read<T>(name, object, shape);
}

}  // namespace rnncore
