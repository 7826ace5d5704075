// Aligned, uninitialised memory that outlives a call: a freed block is kept for the next call of like size, since fresh
// pages cost more than the work of a small network.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "rounding.hpp"

namespace rnncore {

class Buffer {
public:
    Buffer() = default;
    explicit Buffer(size_t bytes);  // 64-byte aligned; throws std::bad_alloc
    ~Buffer();
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), capacity_(std::exchange(other.capacity_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(capacity_, other.capacity_);
        return *this;
    }
    void* data() const { return data_; }

private:
    void* data_ = nullptr;
    size_t capacity_ = 0;
};

// A buffer of n values of T.
template <class T>
class Array {
public:
    Array() = default;
    explicit Array(int64_t n) : buffer_(static_cast<size_t>(n) * sizeof(T)) {}
    operator T*() const { return static_cast<T*>(buffer_.data()); }

private:
    Buffer buffer_;
};

// Several arrays in one buffer, each aligned: add them all, then allocate, which sets their pointers.
template <class T, int most = 24>
class Arrays {
public:
    void add(T*& array, int64_t n) {
        places_[count_++] = {&array, size_};
        size_ += round_up(n, kAligned);
    }
    void allocate() {
        memory_ = Array<T>(size_);
        for (int i = 0; i < count_; ++i) *places_[i].array = memory_ + places_[i].offset;
    }

private:
    static constexpr int64_t kAligned = 64 / sizeof(T);
    struct Place {
        T** array;
        int64_t offset;
    };
    Place places_[most];
    int count_ = 0;
    int64_t size_ = 0;
    Array<T> memory_;
};

// to[0:n] = from, or zeros if that is null.
template <class T>
void copy_row(T* to, const T* from, int64_t n) {
    if (from) {
        std::copy_n(from, n, to);
    } else {
        std::fill_n(to, n, T{0});
    }
}

}  // namespace rnncore
