#include "threads.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

namespace rnncore {
namespace {

// A positive integer in an environment variable (OMP_NUM_THREADS may be a list: its first), or 0.
int threads_from(const char* variable) {
    const char* text = std::getenv(variable);
    return text ? std::max(0, std::atoi(text)) : 0;
}

int initial_num_threads() {
    if (const int n = threads_from("RNNCORE_NUM_THREADS")) return n;
    if (const int n = threads_from("OMP_NUM_THREADS")) return n;
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return std::max(1, CPU_COUNT(&allowed));
#endif
    return std::max(1u, std::thread::hardware_concurrency());
}

std::atomic<int>& configured_threads() {
    static std::atomic<int> n{initial_num_threads()};
    return n;
}

// Whether this thread is in a team of several: what a task calls runs alone.
thread_local bool in_team = false;

struct Job {
    Team team;
    void (*body)(void*, Member&);
    void* context;
    int joined = 1;   // members so far; the caller is member 0
    int running = 0;  // workers in body
};

// Workers sleep on a condition variable until a job wants members. They are never joined: the pool lives as long as the
// process, and a forked child starts a pool of its own.
class Pool {
public:
    void run(int threads, void (*body)(void*, Member&), void* context) {
        Job job{Team(threads), body, context};
        {
            std::lock_guard lock(mutex_);
            for (; workers_ < threads - 1; ++workers_) std::thread(&Pool::work, this).detach();
            job_ = &job;
            ++serial_;
        }
        wake_.notify_all();
        Member member(job.team, 0);
        in_team = true;
        body(context, member);
        in_team = false;
        std::unique_lock lock(mutex_);
        job_ = nullptr;
        left_.wait(lock, [&] { return job.running == 0; });
    }

    std::mutex one_job;  // held while a job runs

private:
    void work() {
        in_team = true;
        std::unique_lock lock(mutex_);
        for (uint64_t seen = 0;;) {  // a worker joins a job once
            wake_.wait(lock, [&] { return job_ && serial_ != seen && job_->joined < job_->team.size(); });
            Job& job = *job_;
            seen = serial_;
            Member member(job.team, job.joined++);
            ++job.running;
            lock.unlock();
            job.body(job.context, member);
            lock.lock();
            if (--job.running == 0) left_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, left_;
    Job* job_ = nullptr;
    uint64_t serial_ = 0;  // of the job
    int workers_ = 0;
};

Pool* pool_of_this_process = nullptr;

Pool& pool() {
    static std::once_flag once;
    std::call_once(once, [] {
        pool_of_this_process = new Pool;
        // The threads of the parent do not exist in the child, and its locks may be held forever: forget them.
        pthread_atfork(nullptr, nullptr, [] { pool_of_this_process = new Pool; });
    });
    return *pool_of_this_process;
}

}  // namespace

int num_threads() {
    return in_team ? 1 : configured_threads().load(std::memory_order_relaxed);
}

void set_num_threads(int n) {
    if (n < 1) throw std::invalid_argument("n: expected at least 1 thread, got " + std::to_string(n));
    configured_threads().store(n, std::memory_order_relaxed);
}

void Member::pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int64_t Member::claim(int64_t tasks) {
    uint64_t ticket = team_.ticket_.load(std::memory_order_acquire);
    for (;;) {
        if (static_cast<uint32_t>(ticket >> 32) != phase_) return -1;  // over already
        const int64_t task = static_cast<int64_t>(ticket & 0xffffffffu);
        if (task >= tasks) return -1;
        if (team_.ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) return task;
    }
}

void Member::complete(int64_t tasks) {
    if (team_.done_.fetch_add(1, std::memory_order_acq_rel) + 1 < tasks) return;
    team_.done_.store(0, std::memory_order_relaxed);
    team_.ticket_.store(static_cast<uint64_t>(phase_ + 1) << 32, std::memory_order_release);
    // (seq_cst: notify_all reads whether somebody sleeps, and must not do so before others see the new phase)
    team_.phase_.store(phase_ + 1, std::memory_order_seq_cst);
    team_.phase_.notify_all();
}

void Member::wait() {
    uint32_t phase = team_.phase_.load(std::memory_order_acquire);
    for (int spin = 0; static_cast<int32_t>(phase - phase_) <= 0; ++spin) {
        if (spin < kSpins) {
            pause();
        } else {
            team_.phase_.wait(phase, std::memory_order_acquire);
        }
        phase = team_.phase_.load(std::memory_order_acquire);
    }
    ++phase_;
}

void run_team(int threads, void (*body)(void*, Member&), void* context) {
    if (threads > 1) {
        Pool& workers = pool();
        std::unique_lock alone(workers.one_job, std::try_to_lock);
        if (alone) return workers.run(threads, body, context);
    }
    Team team(1);
    Member member(team, 0);
    body(context, member);
}

}  // namespace rnncore
