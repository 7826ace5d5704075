#include "arrays.hpp"

namespace rnncore {
namespace {

constexpr int kOrder = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;

int numbers_of(const py::array& array) {
    const py::dtype dtype = array.dtype();
    if (dtype.byteorder() != '=' && dtype.byteorder() != '|') return 0;  // not this machine's
    using Api = py::detail::npy_api;
    switch (dtype.num()) {
        case Api::NPY_FLOAT_:
            return kFloat32;
        case Api::NPY_DOUBLE_:
            return kFloat64;
        case Api::NPY_LONG_:
        case Api::NPY_LONGLONG_:
            return dtype.itemsize() == sizeof(int64_t) ? kInt64 : 0;
        case Api::NPY_BOOL_:
            return kBool;
        default:
            return 0;
    }
}

std::string joined(std::string list, const std::string& item, const char* separator) {
    return list.empty() ? item : list + separator + item;
}

std::string expected(const char* name, int numbers, Dims shape) {
    std::string types, sizes;
    if (numbers & kFloat32) types = joined(types, "float32", " or ");
    if (numbers & kFloat64) types = joined(types, "float64", " or ");
    if (numbers & kInt64) types = joined(types, "int64", " or ");
    if (numbers & kBool) types = joined(types, "bool", " or ");
    for (const Dim& dim : shape) sizes = joined(sizes, dim.size < 0 ? dim.name : std::to_string(dim.size), ", ");
    return std::string(name) + ": expected " + types + " (" + sizes + (shape.size() == 1 ? ",)" : ")") + ", got ";
}

}  // namespace

bool is_ready(py::handle object, int numbers) {
    if (!py::isinstance<py::array>(object)) return false;
    const auto array = py::reinterpret_borrow<py::array>(object);
    return (array.flags() & kOrder) == kOrder && (numbers_of(array) & numbers);
}

bool fits(const py::array& array, Dims shape) {
    if (array.ndim() != static_cast<py::ssize_t>(shape.size())) return false;
    const py::ssize_t* size = array.shape();
    for (const Dim& dim : shape) {
        if (dim.size >= 0 && *size != dim.size) return false;
        ++size;
    }
    return true;
}

py::array new_array(py::dtype dtype, std::span<const int64_t> shape) {
    constexpr int64_t kLarge = 1 << 20;
    int64_t bytes = dtype.itemsize();
    for (const int64_t size : shape) bytes *= size;
    if (bytes >= kLarge) {
        auto buffer = std::make_unique<Buffer>(static_cast<size_t>(bytes));
        const void* data = buffer->data();
        const py::capsule owner(buffer.get(), [](void* p) { delete static_cast<Buffer*>(p); });
        buffer.release();
        return py::array(dtype, shape, data, owner);
    }
    // (as py::array does, but without allocating for its shape and strides: small networks notice)
    const auto& api = py::detail::npy_api::get();
    PyObject* array =
        api.PyArray_NewFromDescr_(api.PyArray_Type_, dtype.release().ptr(), static_cast<int>(shape.size()),
                                  reinterpret_cast<const Py_intptr_t*>(shape.data()), nullptr, nullptr, 0, nullptr);
    if (!array) throw py::error_already_set();
    return py::reinterpret_steal<py::array>(array);
}

std::string describe(const py::array& array) {
    return py::str(array.dtype()).cast<std::string>() + " " + py::str(array.attr("shape")).cast<std::string>();
}

py::array checked_array(const char* name, py::handle object, int numbers, Dims shape) {
    if (!py::isinstance<py::array>(object)) {
        const py::str type = py::type::handle_of(object).attr("__name__");
        throw py::type_error(expected(name, numbers, shape) + type.cast<std::string>());
    }
    auto array = py::reinterpret_borrow<py::array>(object);
    if (!(numbers_of(array) & numbers)) throw py::type_error(expected(name, numbers, shape) + describe(array));
    if (!fits(array, shape)) throw py::value_error(expected(name, numbers, shape) + describe(array));
    if ((array.flags() & kOrder) != kOrder) {
        throw py::value_error(expected(name, numbers, shape) + describe(array) +
                              " that is not C-contiguous and aligned");
    }
    return array;
}

py::array writable_array(const char* name, py::handle object, int numbers, Dims shape) {
    py::array array = checked_array(name, object, numbers, shape);
    if (!array.writeable()) {
        throw py::value_error(std::string(name) + ": expected an array that can be written, got a read-only one");
    }
    return array;
}

}  // namespace rnncore
