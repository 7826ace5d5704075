// Strict views of NumPy arrays: the core converts nothing. An array of the wrong dtype, shape, order or alignment is
// refused with a message that names the argument, what was expected and what came.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#include "../memory.hpp"

namespace rnncore {

namespace py = pybind11;

// Types of elements, to be or-ed: an argument may accept several.
enum Numbers : int { kFloat32 = 1, kFloat64 = 2, kInt64 = 4, kBool = 8 };
template <class T>
inline constexpr int kNumbers = 0;
template <>
inline constexpr int kNumbers<float> = kFloat32;
template <>
inline constexpr int kNumbers<double> = kFloat64;
template <>
inline constexpr int kNumbers<int64_t> = kInt64;

// A dimension by name, and its size or -1 if any will do.
struct Dim {
    const char* name;
    int64_t size = -1;
};
using Dims = std::span<const Dim>;
using Shape = std::initializer_list<Dim>;  // the same, written out in a call

// Whether the object is an array of one of `numbers`, in this machine's byte order, C-contiguous and aligned: whether
// the core can take it without conversion.
bool is_ready(py::handle object, int numbers);
// The same, or None.
inline bool is_ready_or_none(py::handle object, int numbers) {
    return object.is_none() || is_ready(object, numbers);
}
// Whether an array has this shape.
bool fits(const py::array& array, Dims shape);
inline bool fits(const py::array& array, Shape shape) {
    return fits(array, Dims(shape.begin(), shape.size()));
}

// A new array. The memory of large ones comes from Buffer: its pages are those of an array that is gone.
py::array new_array(py::dtype dtype, std::span<const int64_t> shape);
template <class T>
py::array new_array(std::initializer_list<int64_t> shape) {
    return new_array(py::dtype::of<T>(), std::span(shape.begin(), shape.size()));
}
template <class T>
T* data(const py::array& array) {
    return reinterpret_cast<T*>(py::detail::array_proxy(array.ptr())->data);
}

// Type and shape, as messages give them: "float32 (20, 4, 8)".
std::string describe(const py::array& array);

// The array that `object` is, having one of `numbers` and the given shape, C-contiguous and aligned. TypeError if it is
// no array or of another type, ValueError otherwise.
py::array checked_array(const char* name, py::handle object, int numbers, Dims shape);
inline py::array checked_array(const char* name, py::handle object, int numbers, Shape shape) {
    return checked_array(name, object, numbers, Dims(shape.begin(), shape.size()));
}
// The same, for writing: ValueError if it is read-only.
py::array writable_array(const char* name, py::handle object, int numbers, Dims shape);
inline py::array writable_array(const char* name, py::handle object, int numbers, Shape shape) {
    return writable_array(name, object, numbers, Dims(shape.begin(), shape.size()));
}

template <class T>
const T* read(const char* name, py::handle object, Shape shape) {
    return static_cast<const T*>(checked_array(name, object, kNumbers<T>, shape).data());
}
// Null for None.
template <class T>
const T* read_optional(const char* name, py::handle object, Shape shape) {
    return object.is_none() ? nullptr : read<T>(name, object, shape);
}

}  // namespace rnncore
