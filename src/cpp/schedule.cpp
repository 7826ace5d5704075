#include "schedule.hpp"

#include <algorithm>

#include "rounding.hpp"
#include "threads.hpp"

namespace rnncore {
namespace {

// Of one core, roughly, between the machines that were measured (docs/performance.md, benchmarks/cuts.md).
constexpr double kFlopBytesPerNs = 300;  // bytes of U that can be multiplied with one row
constexpr double kL1BytesPerNs = 250, kL2BytesPerNs = 100, kL3BytesPerNs = 40;
constexpr double kL1Bytes = 32 << 10, kL2Bytes = 1 << 20;
constexpr double kL3Share = 0.3;  // of the time of reading from there that prefetching does not hide
constexpr double kStepNs = 60;    // calls, and the cell's formulas at small H
constexpr double kMeetNs = 600;   // for threads to see each other's results

// One step of `rows` rows on one thread: reading its share of U or multiplying it, whichever takes longer.
double step_ns(double rows, double weight_bytes) {
    const double read = weight_bytes / (weight_bytes <= kL1Bytes ? kL1BytesPerNs : kL2BytesPerNs);
    const double far = weight_bytes <= kL2Bytes ? 0 : kL3Share * weight_bytes / kL3BytesPerNs;
    return std::max(read, rows * weight_bytes / kFlopBytesPerNs) + far + kStepNs;
}

int worth(double work, double of_one_thread) {
    return static_cast<int>(std::clamp(work / of_one_thread, 1.0, static_cast<double>(num_threads())));
}

}  // namespace

// Waking a thread costs tens of microseconds, so it must have that much to do.
int threads_for(double multiply_adds) {
    return worth(multiply_adds, 2e6);
}
int threads_for_packing(int64_t elements) {
    return worth(static_cast<double>(elements), 1.5e5);
}
int threads_for_traffic(int64_t bytes) {
    return worth(static_cast<double>(bytes), 2e6);
}

Cut cut_pass(int threads, int64_t rows, double weight_bytes, int64_t panels) {
    const int row_slices = static_cast<int>(std::clamp<int64_t>(threads, 1, std::max<int64_t>(rows, 1)));
    const Cut by_rows{row_slices, 1, step_ns(static_cast<double>(ceil_div(rows, row_slices)), weight_bytes)};
    const int unit_slices = static_cast<int>(std::clamp<int64_t>(threads, 1, panels));
    const double share = static_cast<double>(ceil_div(panels, unit_slices)) / static_cast<double>(panels);
    const Cut by_units{1, unit_slices, step_ns(static_cast<double>(rows), share * weight_bytes) + kMeetNs};
    return unit_slices > 1 && by_units.step_ns < 0.95 * by_rows.step_ns ? by_units : by_rows;
}

}  // namespace rnncore
