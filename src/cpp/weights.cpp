#include "weights.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "dispatch.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {

int gates_of(Cell cell) {
    const int index = static_cast<int>(cell);
    if (index < 0 || index >= kCells) throw std::invalid_argument("cell: no such cell, " + std::to_string(index));
    return kernels().f32.cells[index].gates;
}
int states_of(Cell cell) {
    return kernels().f32.cells[static_cast<int>(cell)].states;
}

int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

template <class T>
const CellKernels<T>& Stack<T>::cell_kernels() const {
    return precision<T>(*kernels).cells[static_cast<int>(cell)];
}

template <class T>
Stack<T>::Stack(const std::vector<Weights<T>>& weights, int directions, int64_t rows_of_single_step)
    : kernels(&rnncore::kernels()), cell(weights[0].cell), H(weights[0].H), directions(directions) {
    const CellKernels<T>& kernels_of_cell = cell_kernels();
    const int64_t columns = kernels_of_cell.gates * round_up(H, precision<T>(*kernels).lanes);
    passes.reserve(weights.size());
    if (rows_of_single_step > 0 && rows_of_single_step <= precision<T>(*kernels).unpacked_rows) {
        for (const Weights<T>& from : weights) {
            passes.push_back({from.I, false, {}, from.w_ih, from.w_hh, from.b_ih, from.b_hh});
        }
        return;
    }
    int64_t elements = 0;
    for (const Weights<T>& layer : weights) {
        PackedWeights<T> packed{layer.I, true,   Array<T>((layer.I + H + 2) * columns), nullptr, nullptr,
                                nullptr, nullptr};
        packed.w = packed.memory;
        packed.u = packed.w + layer.I * columns;
        packed.b_ih = packed.u + H * columns;
        packed.b_hh = packed.b_ih + columns;
        passes.push_back(std::move(packed));
        elements += (layer.I + H) * columns;
    }
    const auto pack = [&](const T* matrix, int64_t K, const T* packed_matrix, const T* bias, const T* packed_bias) {
        kernels_of_cell.pack_gates(matrix, K, H, const_cast<T*>(packed_matrix));
        if (bias) {
            kernels_of_cell.pack_gates(bias, 1, H, const_cast<T*>(packed_bias));
        } else {
            std::fill_n(const_cast<T*>(packed_bias), columns, T{0});
        }
    };
    run_team(threads_for_packing(elements), [&](Member& team) {
        team.each(2 * static_cast<int64_t>(passes.size()), [&](int64_t index) {
            const Weights<T>& from = weights[index / 2];
            const PackedWeights<T>& to = passes[index / 2];
            if (index % 2) {
                pack(from.w_ih, to.I, to.w, from.b_ih, to.b_ih);
            } else {
                pack(from.w_hh, H, to.u, from.b_hh, to.b_hh);
            }
        });
    });
}

template struct Stack<float>;
template struct Stack<double>;

}  // namespace rnncore
