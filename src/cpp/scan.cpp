#include "scan.hpp"

#include <algorithm>
#include <vector>

#include "dispatch.hpp"
#include "memory.hpp"
#include "rounding.hpp"
#include "schedule.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Steps of a group of chunks stay in L2 from when it is found what they do to a state until they are scanned.
constexpr int64_t kGroupBytes = 256 << 10;

// The lines that a call is cut into, those of a sequence one after the other.
class Lines {
public:
    template <class T>
    explicit Lines(const LinearScan<T>& call) : stride_(call.reverse ? -call.C : call.C) {
        lines_.reserve(static_cast<size_t>(call.N));
        for (int64_t n = 0; n < call.N; ++n) {
            const int64_t steps = call.lengths ? call.lengths[n] : call.T_;
            const int64_t chunk = call.chunk ? call.chunk : std::max<int64_t>(steps, 1);
            const int64_t first = (n * call.T_ + (call.reverse && steps ? steps - 1 : 0)) * call.C;
            for (int64_t t = 0; t == 0 || t < steps; t += chunk) {  // without steps, one line without steps
                lines_.push_back({first + t * stride_, std::min(chunk, steps - t)});
                if (call.chunk) sequence_.push_back(n);
            }
        }
        cut_ = count() > call.N;
    }
    int64_t count() const { return static_cast<int64_t>(lines_.size()); }
    const ScanLine* data() const { return lines_.data(); }
    const ScanLine& operator[](int64_t line) const { return lines_[static_cast<size_t>(line)]; }
    int64_t stride() const { return stride_; }
    // Whether a sequence has several lines; if so, of which sequence a line is, and whether it is its first or last.
    bool cut() const { return cut_; }
    int64_t sequence(int64_t line) const { return sequence_[static_cast<size_t>(line)]; }
    bool begins(int64_t line) const { return line == 0 || sequence(line - 1) != sequence(line); }
    bool ends(int64_t line) const { return line + 1 == count() || sequence(line + 1) != sequence(line); }

private:
    int64_t stride_;
    bool cut_;
    std::vector<ScanLine> lines_;
    std::vector<int64_t> sequence_;
};

// Threads for a call that reads and writes so many values of each step. A step of few channels takes as long as one of
// a vector.
template <class T>
int threads_of(const LinearScan<T>& call, int64_t values) {
    constexpr int64_t kLeastBytes = 32;
    const int64_t step_bytes = std::max(call.C * static_cast<int64_t>(sizeof(T)), kLeastBytes);
    return threads_for_traffic(values * call.N * call.T_ * step_bytes);
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

// Groups of lines that are chunks, in the order of the scan. What they do to a state is found for several groups at a
// time, the states between chunks for one group after the other, and with these a group can be scanned.
template <class T>
class Groups {
public:
    Groups(const Kernels<T>& kernels, const LinearScan<T>& call, const Lines& lines, int threads)
        : all_(lines.count()), lanes_(threads) {
        const int64_t line_bytes = 2 * call.chunk * call.C * static_cast<int64_t>(sizeof(T));
        const int64_t in_cache = std::max<int64_t>(kGroupBytes / line_bytes, 1), share = ceil_div(all_, 4 * threads);
        size_ = ceil_div(std::min(in_cache, share), kernels.scan_lines) * kernels.scan_lines;
        count_ = ceil_div(all_, size_);
    }

    template <class Summarize, class PassOn, class Run>
    void each(Member& team, bool backwards, const Summarize& summarize, const PassOn& pass_on, const Run& run) {
        const auto lines_of = [&](int64_t group) {
            const int64_t first = (backwards ? count_ - 1 - group : group) * size_;
            return Span{first, std::min(all_, first + size_)};
        };
        if (lanes_.count() == 1) {
            for (int64_t group = 0; group < count_; ++group) {
                summarize(lines_of(group));
                pass_on(lines_of(group));
                run(lines_of(group));
            }
            return;
        }
        // Lanes take groups in turn; a group is three items.
        const auto group_of = [&](int64_t lane, int64_t item) { return item / 3 * lanes_.count() + lane; };
        const auto ready = [&](int64_t lane, int64_t item) {
            const int64_t before = group_of(lane, item) - 1;
            return item % 3 != 1 || before < 0 ||
                   lanes_.done(before % lanes_.count()) > before / lanes_.count() * 3 + 1;
        };
        team.follow(lanes_, ceil_div(count_, lanes_.count()) * 3, ready, [&](int64_t lane, int64_t item) {
            const int64_t group = group_of(lane, item);
            if (group >= count_) return;
            item % 3 == 0   ? summarize(lines_of(group))
            : item % 3 == 1 ? pass_on(lines_of(group))
                            : run(lines_of(group));
        });
    }

private:
    int64_t all_, size_, count_;
    Lanes lanes_;
};

// The states before `count` lines that follow on one whose state is known: a scan of its own, over what the lines do.
// Going backwards, the gradients of the states after them.
template <class T>
void pass_on(const Kernels<T>& kernels, const Scan<T>& scan, const ScanSummary<T>& summary, T* states, int64_t known,
             int64_t count, bool backwards) {
    const int64_t C = scan.C, stride = backwards ? -C : C;
    const ScanLine line{known * C, count};
    T* from = states + known * C;
    kernels.scan({C, scan.is_complex, false, stride, &line, summary.product, summary.sum, states + stride, from,
                  from + count * stride},
                 {0, 1}, {0, C});
}

// Zeros at padded steps of a series.
template <class T>
void clear_padding(const LinearScan<T>& call, int64_t n, T* series) {
    if (!call.lengths) return;
    std::fill(series + (n * call.T_ + call.lengths[n]) * call.C, series + (n + 1) * call.T_ * call.C, T{0});
}

template <class T>
const T* row_or_null(const T* rows, int64_t row, int64_t columns) {
    return rows ? rows + row * columns : nullptr;
}

}  // namespace

template <class T>
void linear_scan(const KernelTable& table, const LinearScan<T>& call, const T* b, T* y, T* last) {
    const Kernels<T>& kernels = precision<T>(table);
    const Lines lines(call);
    const int64_t C = call.C, L = lines.count();
    const int threads = threads_of(call, 3);
    Scan<T> scan{C, call.is_complex, call.constant, lines.stride(), lines.data(), call.a, b, y, call.first, last};
    if (!lines.cut()) {
        return run_team(threads, [&](Member& team) {
            each_part(team, kernels, L, C, [&](Span some, Span channels) { kernels.scan(scan, some, channels); });
            team.each(call.lengths ? call.N : 0, [&](int64_t n) { clear_padding(call, n, y); });
        });
    }

    T *before, *after;
    ScanSummary<T> summary{};
    Arrays<T> workspace;
    workspace.add(before, L * C);
    workspace.add(after, L * C);
    workspace.add(summary.product, L * C);
    workspace.add(summary.sum, L * C);
    workspace.allocate();
    scan.first = before, scan.last = after;
    Groups<T> groups(kernels, call, lines, threads);
    run_team(threads, [&](Member& team) {
        const Span channels{0, C};
        groups.each(
            team, false, [&](Span some) { kernels.summarize_scan(scan, summary, some, channels); },
            [&](Span some) {
                for (int64_t line = some.begin, next; line < some.end; line = next) {
                    next = line + 1;
                    if (lines.begins(line)) {
                        copy_row(before + line * C, row_or_null(call.first, lines.sequence(line), C), C);
                        continue;
                    }
                    while (next < some.end && !lines.begins(next)) ++next;
                    pass_on(kernels, scan, summary, before, line - 1, next - line, false);
                }
            },
            [&](Span some) {
                kernels.scan(scan, some, channels);
                for (int64_t line = some.begin; line < some.end; ++line) {
                    if (!lines.ends(line)) continue;
                    std::copy_n(after + line * C, C, last + lines.sequence(line) * C);
                    clear_padding(call, lines.sequence(line), y);
                }
            });
    });
}

template <class T>
void linear_scan_backward(const KernelTable& table, const LinearScan<T>& call, const T* y, const T* dy, const T* dlast,
                          const LinearScanGradients<T>& gradients) {
    const Kernels<T>& kernels = precision<T>(table);
    const Lines lines(call);
    const int64_t C = call.C, L = lines.count();
    const int threads = threads_of(call, 5);
    const int64_t between_lines = lines.cut() ? L * C : 0;
    T *before, *sums, *dafter, *dbefore;
    ScanSummary<T> summary{};
    Arrays<T> workspace;
    workspace.add(before, L * C);
    workspace.add(sums, call.constant ? L * C : 0);
    workspace.add(dafter, between_lines);
    workspace.add(dbefore, between_lines);
    workspace.add(summary.product, between_lines);
    workspace.add(summary.sum, between_lines);
    workspace.allocate();
    ScanGradient<T> task{{C, call.is_complex, call.constant, lines.stride(), lines.data(), call.a, nullptr,
                          const_cast<T*>(y), before, nullptr},
                         dy,
                         dlast,
                         call.constant ? sums : gradients.a,
                         gradients.b,
                         gradients.first};
    if (lines.cut()) task.dlast = dafter, task.dfirst = dbefore;
    const auto copy_state_before = [&](int64_t line) {
        const bool begins = !lines.cut() || lines.begins(line);
        const int64_t n = lines.cut() ? lines.sequence(line) : line;
        const T* from = begins ? row_or_null(call.first, n, C) : y + lines[line].first - lines.stride();
        copy_row(before + line * C, from, C);
    };
    const auto clear = [&](int64_t n) {
        clear_padding(call, n, gradients.b);
        if (!call.constant) clear_padding(call, n, gradients.a);
    };
    std::vector<int64_t> all_to_one(call.constant ? static_cast<size_t>(L) : 0);
    const auto add_sums = [&](Member& team) {
        team.each(call.constant ? 1 : 0, [&](int64_t) {
            std::fill_n(gradients.a, C, T{0});
            kernels.add_rows(L, C, {0, C}, sums, all_to_one.data(), gradients.a);
        });
    };
    if (!lines.cut()) {
        return run_team(threads, [&](Member& team) {
            team.each(call.N, [&](int64_t n) {
                copy_state_before(n);
                clear(n);
            });
            each_part(team, kernels, L, C,
                      [&](Span some, Span channels) { kernels.scan_gradient(task, some, channels); });
            add_sums(team);
        });
    }

    Groups<T> groups(kernels, call, lines, threads);
    run_team(threads, [&](Member& team) {
        const Span channels{0, C};
        groups.each(
            team, true, [&](Span some) { kernels.summarize_scan_gradient(task, summary, some, channels); },
            [&](Span some) {
                for (int64_t line = some.end - 1, next; line >= some.begin; line = next) {
                    next = line - 1;
                    if (lines.ends(line)) {
                        copy_row(dafter + line * C, row_or_null(dlast, lines.sequence(line), C), C);
                        continue;
                    }
                    while (next >= some.begin && !lines.ends(next)) --next;
                    pass_on(kernels, task.scan, summary, dafter, line + 1, line - next, true);
                }
            },
            [&](Span some) {
                for (int64_t line = some.begin; line < some.end; ++line) copy_state_before(line);
                kernels.scan_gradient(task, some, channels);
                for (int64_t line = some.begin; line < some.end; ++line) {
                    if (!lines.begins(line)) continue;
                    std::copy_n(dbefore + line * C, C, gradients.first + lines.sequence(line) * C);
                    clear(lines.sequence(line));
                }
            });
        add_sums(team);
    });
}

template void linear_scan(const KernelTable&, const LinearScan<float>&, const float*, float*, float*);
template void linear_scan(const KernelTable&, const LinearScan<double>&, const double*, double*, double*);
template void linear_scan_backward(const KernelTable&, const LinearScan<float>&, const float*, const float*,
                                   const float*, const LinearScanGradients<float>&);
template void linear_scan_backward(const KernelTable&, const LinearScan<double>&, const double*, const double*,
                                   const double*, const LinearScanGradients<double>&);

}  // namespace rnncore
