#include "arrays.hpp"

namespace rnncore {

std::string describe(const Shape& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i) {
        if (i) text += ", ";
        text += shape[i].size < 0 ? shape[i].name : std::to_string(shape[i].size);
    }
    return text + (shape.size() == 1 ? ",)" : ")");
}

std::string describe(const py::array& array) {
    Shape shape;
    for (py::ssize_t i = 0; i < array.ndim(); ++i) shape.push_back({"", array.shape(i)});
    return py::str(array.dtype()).cast<std::string>() + " " + describe(shape);
}

py::array checked_array(const char* name, py::handle object, const std::vector<py::dtype>& dtypes, const Shape& shape) {
    std::string expected;
    for (const py::dtype& dtype : dtypes) {
        expected += (expected.empty() ? "" : " or ") + py::str(dtype).cast<std::string>();
    }
    expected = std::string(name) + ": expected " + expected + " " + describe(shape) + ", got ";
    if (!py::isinstance<py::array>(object)) {
        throw py::type_error(expected + py::str(py::type::handle_of(object).attr("__name__")).cast<std::string>());
    }
    auto array = py::reinterpret_borrow<py::array>(object);
    bool known = false;
    for (const py::dtype& dtype : dtypes) known = known || array.dtype().equal(dtype);
    if (!known) throw py::type_error(expected + describe(array));
    bool fits = array.ndim() == static_cast<py::ssize_t>(shape.size());
    for (size_t i = 0; fits && i < shape.size(); ++i) {
        fits = shape[i].size < 0 || array.shape(static_cast<py::ssize_t>(i)) == shape[i].size;
    }
    if (!fits) throw py::value_error(expected + describe(array));
    constexpr int kOrder = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if ((array.flags() & kOrder) != kOrder) {
        throw py::value_error(expected + describe(array) + " that is not C-contiguous and aligned");
    }
    return array;
}

}  // namespace rnncore
