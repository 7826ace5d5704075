#include "dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace rnncore {

// Each is defined in the object of its instruction set (kernels/table.cpp).
#if defined(__x86_64__)
namespace avx512 {
extern const KernelTable kernel_table;
}
namespace avx2 {
extern const KernelTable kernel_table;
}
#endif
#if defined(__aarch64__)
namespace neon {
extern const KernelTable kernel_table;
}
#else
namespace baseline {
extern const KernelTable kernel_table;
}
#endif

namespace {

struct Isa {
    const char* name;
    const KernelTable* table;
    bool supported;
};

// Best first. The features asked for are those the objects are compiled with (CMakeLists.txt). Never destroyed: a
// thread may still compute while the process exits.
const std::vector<Isa>& isas() {
    static const std::vector<Isa>& list = *new std::vector<Isa> {
#if defined(__x86_64__)
        {"avx512", &avx512::kernel_table,
         __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
            {"avx2", &avx2::kernel_table, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
#if defined(__aarch64__)
            {"neon", &neon::kernel_table, true},
#else
        {"baseline", &baseline::kernel_table, true},
#endif
    };
    return list;
}

const Isa& find_isa(std::string_view name) {
    std::string known;
    for (const Isa& isa : isas()) {
        if (!isa.supported) continue;
        if (name == isa.name) return isa;
        known += known.empty() ? "" : ", ";
        known += isa.name;
    }
    throw std::invalid_argument("isa: expected one of " + known + " on this CPU, got '" + std::string(name) + "'");
}

const Isa& initial_isa() {
    if (const char* name = std::getenv("RNNCORE_ISA"); name && *name) return find_isa(name);
    for (const Isa& isa : isas()) {
        if (isa.supported) return isa;
    }
    throw std::runtime_error("no instruction set of this build runs on this CPU");
}

std::atomic<const Isa*>& active() {
    static std::atomic<const Isa*> isa{&initial_isa()};
    return isa;
}

}  // namespace

template <>
const Kernels<float>& precision(const KernelTable& table) {
    return table.f32;
}
template <>
const Kernels<double>& precision(const KernelTable& table) {
    return table.f64;
}

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Isa& isa : isas()) {
        if (isa.supported) names.emplace_back(isa.name);
    }
    return names;
}

const KernelTable& kernels() {
    return *active().load(std::memory_order_relaxed)->table;
}
std::string active_isa() {
    return active().load(std::memory_order_relaxed)->name;
}
void use_isa(std::string_view name) {
    active().store(&find_isa(name), std::memory_order_relaxed);
}

}  // namespace rnncore
