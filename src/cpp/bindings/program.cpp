#include "program.hpp"

#include <string>

#include "call.hpp"

namespace rnncore {
namespace {

template <class T>
void add_stage(Program<T>& program, const py::tuple& stage) {
    const auto kind = stage[0].cast<std::string>();
    const int64_t size = program.output_size();
    if (kind == "embedding") {
        const py::array table = checked_array("table", stage[1], kNumbers<T>, {{"V"}, {"E"}});
        if (size > 0) throw py::value_error("stages: expected an embedding to come first");
        if (table.shape(1) < 1) throw py::value_error("table: expected vectors of at least one number");
        program.add_embedding(static_cast<const T*>(table.data()), table.shape(0), table.shape(1));
    } else if (kind == "recurrent") {
        const auto weights = checked_weights<T>(stage[1].cast<Spec>(), stage[2].cast<py::list>(), 1);
        if (size > 0 && weights[0].I != size) throw py::value_error("stages: sizes do not fit each other");
        const Needs needs = needs_of<T>(weights[0].spec, weights[0].H, weights[0].P);
        const T* initial[kMaxStates] = {};
        if (stage.size() > 3 && !stage[3].is_none()) {
            const auto parts = stage[3].cast<py::tuple>();
            const Dim layers{"L", static_cast<int64_t>(weights.size())};
            for (size_t s = 0; s < parts.size() && s < kMaxStates; ++s) {
                initial[s] = read<T>("initial", parts[s], {layers, {"1", 1}, {"H", needs.state[s]}});
            }
        }
        program.add_recurrent(weights, initial);
    } else if (kind == "linear") {
        const Dim inputs{"I", size > 0 ? size : -1};
        const py::array weight = checked_array("weight", stage[1], kNumbers<T>, {{"O"}, inputs});
        const int64_t O = weight.shape(0);
        if (O < 1) throw py::value_error("weight: expected at least one output");
        program.add_linear(static_cast<const T*>(weight.data()), read_optional<T>("bias", stage[2], {{"O", O}}),
                           weight.shape(1), O, stage[3].cast<Activation>());
    } else if (kind == "activation") {
        if (size == 0) throw py::value_error("stages: expected an activation to follow a stage that has a size");
        program.add_activation(stage[1].cast<Activation>(), size);
    } else {
        throw py::value_error("stages: expected embedding, recurrent, linear or activation, got " + kind);
    }
}

template <class T>
std::shared_ptr<const Program<T>> make_program(const py::list& stages) {
    auto program = std::make_shared<Program<T>>();
    for (const py::handle stage : stages) add_stage(*program, stage.cast<py::tuple>());
    if (program->output_size() == 0) throw py::value_error("stages: expected at least one");
    if (program->stages().empty()) program->add_activation(Activation::none, program->output_size());
    return program;
}

}  // namespace

void register_program(py::module_& m) {
    py::class_<AnyProgram>(m, "Program").def(py::init([](bool single, const py::list& stages) -> AnyProgram {
        if (single) return make_program<float>(stages);
        return make_program<double>(stages);
    }));
}

}  // namespace rnncore
