// The linear scan's kernel alone, compiled for this machine, beside plain reads of as many bytes: what it reaches of
// the bandwidth of the level of cache that holds its data. Calls from Python take longer by a microsecond or two, which
// is more than the scan of data in L1. Prints one line of JSON; README.md says what it is for.
//
//   scan THREADS
//
// All threads work at the same time, each on data of its own; rates are those of all together, sizes those of one.
#include "../src/cpp/kernels/scan.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

namespace {

using namespace rnncore;
namespace kernels = rnncore::RNNCORE_ISA;

constexpr int kRounds = 12;
constexpr int64_t kBytesInRound = int64_t{1} << 26;
constexpr int64_t kMost = int64_t{64} << 20;

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void read(const char* data, int64_t bytes) {
    typedef kernels::Vec<float> V;
    for (int64_t i = 0; i + 8 * static_cast<int64_t>(sizeof(V)) <= bytes; i += 8 * sizeof(V)) {
#pragma GCC unroll 8
        for (int c = 0; c < 8; ++c) {
            const V v = *reinterpret_cast<const V*>(data + i + c * sizeof(V));
            __asm__ volatile("" : : "x"(v));
        }
    }
}

// A scan of N sequences of T steps. Arrays of one call begin at different places of their pages.
template <class T>
struct Case {
    const char* name;
    int64_t N, steps, C;
    bool is_complex, constant;

    int64_t elements() const { return N * steps * C; }
    int64_t bytes() const {  // that have to be read or written
        return ((constant ? C : elements()) + 2 * elements()) * static_cast<int64_t>(sizeof(T));
    }
    void run(char* data) const {
        constexpr int64_t kPage = 4096, kApart = 1344;
        char* place = data;
        const auto next = [&](int64_t n) {
            T* array = reinterpret_cast<T*>(place);
            place += (n * static_cast<int64_t>(sizeof(T)) + kPage - 1) / kPage * kPage + kApart;
            return array;
        };
        const T* a = next(constant ? C : elements());
        const T* b = next(elements());
        T* y = next(elements());
        T* last = next(N * C);
        ScanLine lines[64];
        for (int64_t n = 0; n < N; ++n) lines[n] = {n * steps * C, steps};
        kernels::scan<T>({C, is_complex, constant, C, lines, a, b, y, nullptr, last}, {0, N}, {0, C});
    }
};

// Bytes a second of all threads, the best of some rounds.
double rate(const std::vector<char*>& data, int64_t bytes, const std::function<void(char*)>& work) {
    const int64_t passes = std::max<int64_t>(1, kBytesInRound / bytes);
    double best = 0;
    for (int round = 0; round < kRounds; ++round) {
        std::atomic<size_t> ready{0};
        std::vector<double> begin(data.size()), end(data.size());
        std::vector<std::thread> team;
        for (size_t i = 0; i < data.size(); ++i) {
            team.emplace_back([&, i] {
                work(data[i]);
                for (++ready; ready < data.size();) std::this_thread::yield();
                begin[i] = now();
                for (int64_t pass = 0; pass < passes; ++pass) work(data[i]);
                end[i] = now();
            });
        }
        for (std::thread& thread : team) thread.join();
        const double seconds =
            *std::max_element(end.begin(), end.end()) - *std::min_element(begin.begin(), begin.end());
        best = std::max(best, static_cast<double>(data.size()) * static_cast<double>(passes * bytes) / seconds);
    }
    return best;
}

template <class T>
void measure(const std::vector<char*>& data, const std::vector<Case<T>>& cases, const char*& separator) {
    for (const Case<T>& c : cases) {
        const double scan = rate(data, c.bytes(), [&](char* d) { c.run(d); });
        const double reads = rate(data, c.bytes(), [&](char* d) { read(d, c.bytes()); });
        std::printf(
            "%s{\"name\": \"%s\", \"N\": %d, \"T\": %d, \"C\": %d, \"bytes\": %d, \"scan\": %.4g, \"read\": %.4g}",
            separator, c.name, static_cast<int>(c.N), static_cast<int>(c.steps), static_cast<int>(c.C),
            static_cast<int>(c.bytes()), scan, reads);
        separator = ", ";
    }
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<char*> data(static_cast<size_t>(argc > 1 ? std::max(1, std::atoi(argv[1])) : 1));
    for (char*& d : data) {
        d = static_cast<char*>(std::aligned_alloc(size_t{1} << 21, kMost));
        if (!d) return EXIT_FAILURE;
        std::memset(d, 0, kMost);
    }
    const char* separator = "[";
    measure<float>(data,
                   {{"float32", 1, 50, 64, false, false},
                    {"float32", 1, 400, 64, false, false},
                    {"float32", 8, 1000, 64, false, false},
                    {"float32", 1, 20, 128, false, false},
                    {"float32", 1, 250, 128, false, false},
                    {"float32", 8, 600, 128, false, false},
                    {"float32", 2, 300, 1024, false, false},
                    {"float32", 32, 60, 16, false, false},
                    {"float32, constant a", 1, 80, 64, false, true},
                    {"float32, constant a", 1, 400, 128, false, true},
                    {"float32, constant a", 8, 800, 128, false, true},
                    {"complex64", 1, 50, 64, true, false},
                    {"complex64", 1, 250, 128, true, false},
                    {"complex64", 8, 600, 128, true, false}},
                   separator);
    measure<double>(data,
                    {{"float64", 1, 40, 32, false, false},
                     {"float64", 1, 250, 64, false, false},
                     {"float64", 8, 600, 64, false, false}},
                    separator);
    std::printf("]\n");
    for (char* d : data) std::free(d);
}
