#include "memory.hpp"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace rnncore {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kKeptBytes = size_t{256} << 20;  // freed memory held for later calls, at most
constexpr size_t kKeptBlocks = 64;

struct Block {
    void* data;
    size_t capacity;
};

Block allocate(size_t bytes) {
    const bool huge = bytes >= 2 * kHugePage;
    const size_t alignment = huge ? kHugePage : kAlignment;
    const size_t capacity = (bytes + alignment - 1) / alignment * alignment;
    void* data = std::aligned_alloc(alignment, capacity);
    if (!data) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    if (huge) madvise(data, capacity, MADV_HUGEPAGE);
#endif
    return {data, capacity};
}

class Cache {
public:
    // The smallest kept block that fits and wastes at most as much again, or a new one.
    Block take(size_t bytes) {
        {
            std::lock_guard lock(mutex_);
            auto best = blocks_.end();
            for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
                if (block->capacity < bytes || block->capacity > 2 * bytes) continue;
                if (best == blocks_.end() || block->capacity < best->capacity) best = block;
            }
            if (best != blocks_.end()) {
                const Block found = *best;
                blocks_.erase(best);
                kept_ -= found.capacity;
                return found;
            }
        }
        return allocate(bytes);
    }

    void give(Block block) {
        std::lock_guard lock(mutex_);
        blocks_.push_back(block);
        kept_ += block.capacity;
        while (kept_ > kKeptBytes || blocks_.size() > kKeptBlocks) {  // the oldest go first
            kept_ -= blocks_.front().capacity;
            std::free(blocks_.front().data);
            blocks_.erase(blocks_.begin());
        }
    }

private:
    std::mutex mutex_;
    std::vector<Block> blocks_;
    size_t kept_ = 0;
};

Cache* cache_of_this_process = nullptr;

Cache& cache() {
    static std::once_flag once;
    std::call_once(once, [] {
        cache_of_this_process = new Cache;
        pthread_atfork(nullptr, nullptr, [] { cache_of_this_process = new Cache; });  // its lock may be held forever
    });
    return *cache_of_this_process;
}

}  // namespace

Buffer::Buffer(size_t bytes) {
    if (bytes == 0) return;
    const Block block = cache().take(bytes);
    data_ = block.data;
    capacity_ = block.capacity;
}

Buffer::~Buffer() {
    if (data_) cache().give({data_, capacity_});
}

}  // namespace rnncore
