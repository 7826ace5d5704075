// rnncore._core: registers, nothing else. What each function does is said in _core.pyi and in the Python layer.
#include "../dispatch.hpp"
#include "controls.hpp"
#include "decoder.hpp"
#include "layer.hpp"
#include "linear.hpp"
#include "losses.hpp"
#include "many.hpp"
#include "optim.hpp"
#include "program.hpp"
#include "ragged.hpp"
#include "reservoir.hpp"
#include "scan.hpp"
#include "stack.hpp"
#include "stream.hpp"
#include "tree.hpp"

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
    rnncore::active_isa();  // a wrong RNNCORE_ISA is an error at import, not at the first call
    rnncore::register_controls(m);
    rnncore::register_layer(m);
    rnncore::register_decoder(m);
    rnncore::register_linear(m);
    rnncore::register_losses(m);
    rnncore::register_many(m);
    rnncore::register_optim(m);
    rnncore::register_ragged(m);
    rnncore::register_program(m);
    rnncore::register_stack(m);
    rnncore::register_stream(m);
    rnncore::register_reservoir(m);
    rnncore::register_scan(m);
    rnncore::register_tree(m);
}
