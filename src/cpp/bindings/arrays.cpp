#include "arrays.hpp"

namespace rnncore {
namespace {

int numbers_of(const py::array& array) {
    const py::dtype dtype = array.dtype();
    if (dtype.byteorder() != '=') return 0;  // not this machine's
    using Api = py::detail::npy_api;
    switch (dtype.num()) {
        case Api::NPY_FLOAT_:
            return kFloat32;
        case Api::NPY_DOUBLE_:
            return kFloat64;
        case Api::NPY_LONG_:
        case Api::NPY_LONGLONG_:
            return dtype.itemsize() == sizeof(int64_t) ? kInt64 : 0;
        default:
            return 0;
    }
}

std::string joined(std::string list, const std::string& item, const char* separator) {
    return list.empty() ? item : list + separator + item;
}

std::string expected(const char* name, int numbers, Shape shape) {
    std::string types, sizes;
    if (numbers & kFloat32) types = joined(types, "float32", " or ");
    if (numbers & kFloat64) types = joined(types, "float64", " or ");
    if (numbers & kInt64) types = joined(types, "int64", " or ");
    for (const Dim& dim : shape) sizes = joined(sizes, dim.size < 0 ? dim.name : std::to_string(dim.size), ", ");
    return std::string(name) + ": expected " + types + " (" + sizes + (shape.size() == 1 ? ",)" : ")") + ", got ";
}

bool fits(const py::array& array, Shape shape) {
    if (array.ndim() != static_cast<py::ssize_t>(shape.size())) return false;
    const py::ssize_t* size = array.shape();
    for (const Dim& dim : shape) {
        if (dim.size >= 0 && *size != dim.size) return false;
        ++size;
    }
    return true;
}

}  // namespace

std::string describe(const py::array& array) {
    return py::str(array.dtype()).cast<std::string>() + " " + py::str(array.attr("shape")).cast<std::string>();
}

py::array checked_array(const char* name, py::handle object, int numbers, Shape shape) {
    if (!py::isinstance<py::array>(object)) {
        const py::str type = py::type::handle_of(object).attr("__name__");
        throw py::type_error(expected(name, numbers, shape) + type.cast<std::string>());
    }
    auto array = py::reinterpret_borrow<py::array>(object);
    if (!(numbers_of(array) & numbers)) throw py::type_error(expected(name, numbers, shape) + describe(array));
    if (!fits(array, shape)) throw py::value_error(expected(name, numbers, shape) + describe(array));
    constexpr int kOrder = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if ((array.flags() & kOrder) != kOrder) {
        throw py::value_error(expected(name, numbers, shape) + describe(array) +
                              " that is not C-contiguous and aligned");
    }
    return array;
}

}  // namespace rnncore
