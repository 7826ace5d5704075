// What some cores of a machine can do at best: fused multiply-adds a second, and bytes read a second from working sets
// of several sizes. Prints one line of JSON; README.md says what it is for.
//
//   limits THREADS
//
// All threads work at the same time, each on data of its own; rates are those of all together, sizes those of one.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#if defined(__aarch64__)
#define IN_A_REGISTER "w"
#else
#define IN_A_REGISTER "x"
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// Neighbours on the same machine slow some rounds: the best of many short ones, spread over several sweeps.
constexpr int kSweeps = 4;
constexpr int kMinRounds = 3;
constexpr double kSecondsInSweep = 0.04;

constexpr int64_t kPage = int64_t{1} << 21;
constexpr int64_t kBytesInRound = int64_t{1} << 28;
constexpr int64_t kSteps = 500000;
constexpr int kKibibytes[] = {16, 32, 64, 128, 256, 512, 1024, 1536, 2048, 4096, 8192, 16384, 32768, 65536};
constexpr int64_t kLargest = int64_t{65536} << 10;

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Operations, two for each multiply-add on vectors of B bytes. Twelve independent chains hide the latency of two units.
template <class T, int B>
double multiply_adds() {
    typedef T V __attribute__((vector_size(B)));
    constexpr int kChains = 12;
    V acc[kChains], a = V{} + T(0.999), b = V{} + T(0.001);
    for (int c = 0; c < kChains; ++c) acc[c] = V{} + T(c);
    for (int64_t i = 0; i < kSteps; ++i) {
#pragma GCC unroll 16
        for (int c = 0; c < kChains; ++c) acc[c] = acc[c] * a + b;
        __asm__ volatile("" : "+" IN_A_REGISTER(a), "+" IN_A_REGISTER(b));
    }
    V sum{};
    for (int c = 0; c < kChains; ++c) sum += acc[c];
    volatile T keep = sum[0];
    (void)keep;
    return 2.0 * kChains * (B / sizeof(T)) * kSteps;
}

// Bytes read: the data from begin to end, again and again.
double read(const char* data, int64_t bytes) {
    typedef int64_t V __attribute__((vector_size(kVectorBytes)));
    const int64_t passes = std::max<int64_t>(1, kBytesInRound / bytes);
    for (int64_t pass = 0; pass < passes; ++pass) {
        for (int64_t i = 0; i < bytes; i += 8 * kVectorBytes) {
#pragma GCC unroll 8
            for (int c = 0; c < 8; ++c) {
                const V v = *reinterpret_cast<const V*>(data + i + c * kVectorBytes);
                __asm__ volatile("" : : IN_A_REGISTER(v));
            }
        }
    }
    return static_cast<double>(bytes) * static_cast<double>(passes);
}

// The rate of one round, in which every thread i does work(i), which returns how much that was.
template <class F>
double round_rate(int threads, const F& work) {
    std::atomic<int> ready{0};
    std::vector<double> amount(threads), begin(threads), end(threads);
    std::vector<std::thread> team;
    for (int i = 0; i < threads; ++i) {
        team.emplace_back([&, i] {
            for (++ready; ready < threads;) std::this_thread::yield();
            begin[i] = now();
            amount[i] = work(i);
            end[i] = now();
        });
    }
    for (std::thread& thread : team) thread.join();
    double all = 0;
    for (double a : amount) all += a;
    return all / (*std::max_element(end.begin(), end.end()) - *std::min_element(begin.begin(), begin.end()));
}

struct Quantity {
    std::string name;
    std::function<double(int)> work;
    double rate = 0;

    void sweep(int threads) {
        const double begin = now();
        for (int round = 0; round < kMinRounds || now() - begin < kSecondsInSweep; ++round) {
            rate = std::max(rate, round_rate(threads, work));
        }
    }
};

void print(const std::vector<Quantity>& quantities) {
    const char* separator = "";
    for (const Quantity& quantity : quantities) {
        std::printf("%s\"%s\": %.4g", separator, quantity.name.c_str(), quantity.rate);
        separator = ", ";
    }
}

}  // namespace

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
    std::vector<char*> data(threads);
    for (char*& d : data) d = static_cast<char*>(std::aligned_alloc(kPage, kLargest));
    if (std::find(data.begin(), data.end(), nullptr) != data.end()) return EXIT_FAILURE;
    round_rate(threads, [&](int i) {  // each thread touches its own first
        std::fill_n(data[i], kLargest, char{1});
        return 0.0;
    });

    std::vector<Quantity> rates{
        {"float32", [](int) { return multiply_adds<float, kVectorBytes>(); }},
        {"float64", [](int) { return multiply_adds<double, kVectorBytes>(); }},
        {"float32_half_width", [](int) { return multiply_adds<float, kVectorBytes / 2>(); }},
    };
    std::vector<Quantity> reads;
    for (int kibibytes : kKibibytes) {
        const int64_t bytes = int64_t{kibibytes} << 10;
        reads.push_back({std::to_string(bytes), [&data, bytes](int i) { return read(data[i], bytes); }});
    }
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
        for (Quantity& quantity : rates) quantity.sweep(threads);
        for (Quantity& quantity : reads) quantity.sweep(threads);
    }

    std::printf("{\"threads\": %d, \"vector_bytes\": %d, ", threads, kVectorBytes);
    print(rates);
    std::printf(", \"read\": {");
    print(reads);
    std::printf("}}\n");
    for (char* d : data) std::free(d);
}
