#include "scan.hpp"

#include <algorithm>
#include <vector>

#include "dispatch.hpp"
#include "memory.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// The lines that a call is cut into, those of a sequence one after the other.
class Lines {
public:
    template <class T>
    explicit Lines(const LinearScan<T>& call) : stride_(call.reverse ? -call.C : call.C) {
        begin_.reserve(static_cast<size_t>(call.N) + 1);
        lines_.reserve(static_cast<size_t>(call.N));
        for (int64_t n = 0; n < call.N; ++n) {
            const int64_t steps = call.lengths ? call.lengths[n] : call.T_;
            const int64_t chunk = call.chunk ? call.chunk : std::max<int64_t>(steps, 1);
            const int64_t first = (n * call.T_ + (call.reverse && steps ? steps - 1 : 0)) * call.C;
            begin_.push_back(count());
            for (int64_t t = 0; t < std::max<int64_t>(steps, 1); t += chunk) {  // without steps, one without steps
                lines_.push_back({first + t * stride_, std::min(chunk, steps - t)});
            }
        }
        begin_.push_back(count());
    }
    int64_t count() const { return static_cast<int64_t>(lines_.size()); }
    const ScanLine* data() const { return lines_.data(); }
    const ScanLine& operator[](int64_t line) const { return lines_[static_cast<size_t>(line)]; }
    int64_t stride() const { return stride_; }
    bool cut() const { return count() + 1 > static_cast<int64_t>(begin_.size()); }  // whether a sequence has several
    Span of_sequence(int64_t n) const { return {begin_[static_cast<size_t>(n)], begin_[static_cast<size_t>(n) + 1]}; }

private:
    int64_t stride_;
    std::vector<ScanLine> lines_;
    std::vector<int64_t> begin_;  // (N+1)
};

// Threads for a call that reads and writes so many values of each step.
template <class T>
int threads_of(const LinearScan<T>& call, int64_t values) {
    return threads_for_traffic(values * call.N * call.T_ * call.C * static_cast<int64_t>(sizeof(T)));
}

// f(lines, channels) for all of both, in tasks for a team: by lines, and by channels too where those are too few.
template <class T, class F>
void each_part(Member& team, const Kernels<T>& kernels, int64_t lines, int64_t channels, F f) {
    const int64_t threads = team.team_size();
    const int64_t groups = ceil_div(lines, kernels.scan_lines), line_parts = std::min(groups, 4 * threads);
    const int64_t blocks = ceil_div(channels, kernels.scan_channels);
    const int64_t channel_parts = std::min(blocks, ceil_div(threads, std::max<int64_t>(line_parts, 1)));
    const auto part = [](int64_t index, int64_t parts, int64_t whole, int64_t unit, int64_t end) {
        return Span{whole * index / parts * unit, std::min(end, whole * (index + 1) / parts * unit)};
    };
    team.each(line_parts * channel_parts, [&](int64_t task) {
        f(part(task / channel_parts, line_parts, groups, kernels.scan_lines, lines),
          part(task % channel_parts, channel_parts, blocks, kernels.scan_channels, channels));
    });
}

// Zeros at padded steps of a series.
template <class T>
void clear_padding(const LinearScan<T>& call, int64_t n, T* series) {
    if (!call.lengths) return;
    std::fill(series + (n * call.T_ + call.lengths[n]) * call.C, series + (n + 1) * call.T_ * call.C, T{0});
}

// The states between the lines of sequence n from what the lines do, and from the state before the first of them, which
// is there: a scan of its own. Or, going backwards, from that after the last.
template <class T>
void pass_on(const Kernels<T>& kernels, const LinearScan<T>& call, const Lines& lines, int64_t n,
             const ScanSummary<T>& summary, T* states, bool backwards) {
    const Span own = lines.of_sequence(n);
    const int64_t C = call.C, steps = own.end - own.begin - 1, row = (backwards ? own.end - 1 : own.begin) * C;
    const int64_t stride = backwards ? -C : C;
    const ScanLine line{row, steps};
    // (where there is nothing to pass on, the kernel still copies a state: to a place that is free by then)
    T* last = summary.sum + (backwards ? own.begin : own.end - 1) * C;
    kernels.scan(
        {C, call.is_complex, false, stride, &line, summary.product, summary.sum, states + stride, states + row, last},
        {0, 1}, {0, C});
}

}  // namespace

template <class T>
void linear_scan(const KernelTable& table, const LinearScan<T>& call, const T* b, T* y, T* last) {
    const Kernels<T>& kernels = precision<T>(table);
    const Lines lines(call);
    const int64_t C = call.C, L = lines.count();
    Scan<T> scan{C, call.is_complex, call.constant, lines.stride(), lines.data(), call.a, b, y, call.first, last};
    Arrays<T> workspace;
    T *between = nullptr, *after = nullptr;
    ScanSummary<T> summary{};
    if (lines.cut()) {
        workspace.add(between, L * C);
        workspace.add(after, L * C);
        workspace.add(summary.product, L * C);
        workspace.add(summary.sum, L * C);
        workspace.allocate();
        scan.first = between, scan.last = after;
    }
    run_team(threads_of(call, 3), [&](Member& team) {
        if (lines.cut()) {
            each_part(team, kernels, L, C,
                      [&](Span some, Span channels) { kernels.summarize_scan(scan, summary, some, channels); });
            team.each(call.N, [&](int64_t n) {
                copy_row(between + lines.of_sequence(n).begin * C, call.first ? call.first + n * C : nullptr, C);
                pass_on(kernels, call, lines, n, summary, between, false);
            });
        }
        each_part(team, kernels, L, C, [&](Span some, Span channels) { kernels.scan(scan, some, channels); });
        team.each(lines.cut() || call.lengths ? call.N : 0, [&](int64_t n) {
            clear_padding(call, n, y);
            if (lines.cut()) std::copy_n(after + (lines.of_sequence(n).end - 1) * C, C, last + n * C);
        });
    });
}

template <class T>
void linear_scan_backward(const KernelTable& table, const LinearScan<T>& call, const T* y, const T* dy, const T* dlast,
                          const LinearScanGradients<T>& gradients) {
    const Kernels<T>& kernels = precision<T>(table);
    const Lines lines(call);
    const int64_t C = call.C, L = lines.count();
    Arrays<T> workspace;
    T *before = nullptr, *dbetween = nullptr, *dbefore = nullptr, *sums = nullptr;
    ScanSummary<T> summary{};
    workspace.add(before, L * C);
    workspace.add(sums, call.constant ? L * C : 0);
    if (lines.cut()) {
        workspace.add(dbetween, L * C);
        workspace.add(dbefore, L * C);
        workspace.add(summary.product, L * C);
        workspace.add(summary.sum, L * C);
    }
    workspace.allocate();
    const Scan<T> scan{C,      call.is_complex, call.constant,     lines.stride(), lines.data(),
                       call.a, nullptr,         const_cast<T*>(y), before,         nullptr};
    const ScanGradient<T> task{scan,
                               dy,
                               lines.cut() ? dbetween : dlast,
                               call.constant ? sums : gradients.a,
                               gradients.b,
                               lines.cut() ? dbefore : gradients.first};
    const std::vector<int64_t> all_to_one(call.constant ? static_cast<size_t>(L) : 0);

    run_team(threads_of(call, 5), [&](Member& team) {
        team.each(call.N, [&](int64_t n) {
            const Span own = lines.of_sequence(n);
            copy_row(before + own.begin * C, call.first ? call.first + n * C : nullptr, C);
            for (int64_t line = own.begin + 1; line < own.end; ++line) {
                std::copy_n(y + lines[line].first - lines.stride(), C, before + line * C);
            }
            if (lines.cut()) copy_row(dbetween + (own.end - 1) * C, dlast ? dlast + n * C : nullptr, C);
            clear_padding(call, n, gradients.b);
            if (!call.constant) clear_padding(call, n, gradients.a);
        });
        if (lines.cut()) {
            each_part(team, kernels, L, C, [&](Span some, Span channels) {
                kernels.summarize_scan_gradient(task, summary, some, channels);
            });
            team.each(call.N, [&](int64_t n) { pass_on(kernels, call, lines, n, summary, dbetween, true); });
        }
        each_part(team, kernels, L, C, [&](Span some, Span channels) { kernels.scan_gradient(task, some, channels); });
        if (lines.cut()) {
            team.each(call.N, [&](int64_t n) {
                std::copy_n(dbefore + lines.of_sequence(n).begin * C, C, gradients.first + n * C);
            });
        }
        if (call.constant) {
            team.each(1, [&](int64_t) {
                std::fill_n(gradients.a, C, T{0});
                kernels.add_rows(L, C, {0, C}, sums, all_to_one.data(), gradients.a);
            });
        }
    });
}

template void linear_scan(const KernelTable&, const LinearScan<float>&, const float*, float*, float*);
template void linear_scan(const KernelTable&, const LinearScan<double>&, const double*, double*, double*);
template void linear_scan_backward(const KernelTable&, const LinearScan<float>&, const float*, const float*,
                                   const float*, const LinearScanGradients<float>&);
template void linear_scan_backward(const KernelTable&, const LinearScan<double>&, const double*, const double*,
                                   const double*, const LinearScanGradients<double>&);

}  // namespace rnncore
