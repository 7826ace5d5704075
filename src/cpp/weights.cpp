#include "weights.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

#include "dispatch.hpp"
#include "rounding.hpp"
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

bool multiplies(Cell cell) {
    return kernels().f32.cells[static_cast<int>(cell)].multiplies;
}

template <class T>
Needs needs_of(const Spec& spec, int64_t H, int64_t P) {
    return precision<T>(kernels()).cells[static_cast<int>(spec.cell)].needs(spec.options, H, P);
}
template Needs needs_of<float>(const Spec&, int64_t, int64_t);
template Needs needs_of<double>(const Spec&, int64_t, int64_t);

int64_t state_size(const Needs& needs) {
    return std::accumulate(needs.state, needs.state + kMaxStates, int64_t{0});
}
int64_t product_size(const Needs& needs) {
    return std::accumulate(needs.product, needs.product + needs.products, int64_t{0},
                           [](int64_t sum, const Product& product) { return sum + product.K * product.columns; });
}

int64_t inner_rows(const Needs& needs) {
    return std::accumulate(
        needs.product, needs.product + needs.products, int64_t{0},
        [](int64_t sum, const Product& product) { return sum + (product.inner ? product.columns : 0); });
}
int64_t inner_biases(const Needs& needs) {
    return std::accumulate(needs.product, needs.product + needs.products, int64_t{0},
                           [](int64_t sum, const Product& product) {
                               return sum + (product.inner && product.bias ? product.columns : 0);
                           });
}

template <class T>
const CellKernels<T>& Stack<T>::cell_kernels() const {
    return precision<T>(*kernels).cells[static_cast<int>(spec.cell)];
}

template <class T>
void PackedWeights<T>::point_to(const Weights<T>& weights, const Needs& needs) {
    w = weights.w_ih, b_ih = weights.b_ih, vectors = weights.vectors;
    for (int p = 0; p < needs.products; ++p) {
        u[p] = weights.of(needs.product[p]), b_hh[p] = weights.bias_of(needs.product[p]);
    }
}

template <class T>
Stack<T>::Stack(const std::vector<Weights<T>>& weights, int directions, int64_t rows_of_single_step)
    : kernels(&rnncore::kernels()),
      spec(weights[0].spec),
      H(weights[0].H),
      P(weights[0].P),
      needs(cell_kernels().needs(spec.options, H, P)),
      directions(directions) {
    const CellKernels<T>& cell = cell_kernels();
    passes.reserve(weights.size());
    if (rows_of_single_step > 0 && rows_of_single_step <= precision<T>(*kernels).unpacked_rows) {
        for (const Weights<T>& from : weights) {
            PackedWeights<T>& pass = passes.emplace_back();
            pass.I = from.I;
            pass.packed = false;
            pass.point_to(from, needs);
        }
        return;
    }
    // The matrices of a pass: W, then those of the products.
    struct Matrix {
        int64_t K, rows, columns;
        const T *from, *bias;
        T *to, *bias_to;
    };
    std::vector<Matrix> matrices;
    const auto add = [&](int64_t K, int64_t rows, const T* from, const T* bias) {
        const int64_t parts = cell.packed_gates;
        const int64_t columns = parts * round_up(rows / parts, precision<T>(*kernels).lanes);
        matrices.push_back({K, rows, columns, from, bias, nullptr, nullptr});
    };
    int64_t elements = 0;
    for (const Weights<T>& from : weights) {
        const size_t first = matrices.size();
        add(from.I, cell.gates * H, from.w_ih, from.b_ih);
        for (int p = 0; p < needs.products; ++p) {
            const Product& product = needs.product[p];
            add(product.K, product.columns, from.of(product), from.bias_of(product));
        }
        int64_t size = needs.vectors;
        for (size_t m = first; m < matrices.size(); ++m) size += (matrices[m].K + 1) * matrices[m].columns;
        PackedWeights<T>& pass = passes.emplace_back();
        pass.I = from.I;
        pass.packed = true;
        pass.memory = Array<T>(size);
        T* memory = pass.memory;
        for (size_t m = first; m < matrices.size(); ++m) {
            Matrix& matrix = matrices[m];
            matrix.to = memory, matrix.bias_to = memory + matrix.K * matrix.columns;
            memory = matrix.bias_to + matrix.columns;
            (m == first ? pass.w : pass.u[m - first - 1]) = matrix.to;
            (m == first ? pass.b_ih : pass.b_hh[m - first - 1]) = matrix.bias_to;
            elements += matrix.K * matrix.columns;
        }
        if (needs.vectors > 0) std::copy_n(from.vectors, needs.vectors, memory);
        pass.vectors = memory;
    }
    run_team(threads_for_packing(elements), [&](Member& team) {
        team.each(static_cast<int64_t>(matrices.size()), [&](int64_t index) {
            const Matrix& matrix = matrices[static_cast<size_t>(index)];
            cell.pack(matrix.from, matrix.K, matrix.rows, matrix.to);
            if (matrix.bias) {
                cell.pack(matrix.bias, 1, matrix.rows, matrix.bias_to);
            } else {
                std::fill_n(matrix.bias_to, matrix.columns, T{0});
            }
        });
    });
}

template struct PackedWeights<float>;
template struct PackedWeights<double>;
template struct Stack<float>;
template struct Stack<double>;

}  // namespace rnncore
