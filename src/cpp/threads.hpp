// The only threads. A team is a few threads that walk through the same sequence of phases; the tasks of a phase are
// claimed one by one, and a phase ends when its last task is done. A thread that the system does not schedule is not
// waited for unless it holds a task: the others do its share, and it skips the phases it missed.
//
// Nothing spins between calls. Results must not depend on which thread runs a task.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace rnncore {

// Threads that a call may use. Initially RNNCORE_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs this process may run
// on; 1 for a call within a task of a team. set_num_threads throws std::invalid_argument unless n >= 1.
int num_threads();
void set_num_threads(int n);

class Team {
public:
    explicit Team(int size) : size_(size) {}
    int size() const { return size_; }

private:
    friend class Member;
    const int size_;
    std::atomic<uint64_t> ticket_{0};  // phase << 32 | next task
    std::atomic<uint32_t> done_{0};    // tasks of the phase that are done
    std::atomic<uint32_t> phase_{0};   // mirrors the ticket's: what waiting threads sleep on
};

// Work in lanes: the items of a lane are done in order, and an item may have to wait for items of other lanes. Each
// lane has an owner in the team, which keeps its data in its cache; but whoever waits too long for an item that nobody
// has begun does it himself.
class Lanes {
public:
    explicit Lanes(int64_t count)  // at least 2 if they are to be followed
        : count_(count), lanes_(count > 1 ? new Lane[static_cast<size_t>(count)] : nullptr) {}
    int64_t count() const { return count_; }
    int64_t done(int64_t lane) const { return lanes_[lane].state.load(std::memory_order_acquire) / 2; }
    bool all_done(int64_t items) const {  // in every lane
        for (int64_t lane = 0; lane < count_; ++lane) {
            if (done(lane) < items) return false;
        }
        return true;
    }

private:
    friend class Member;
    struct alignas(64) Lane {
        std::atomic<int64_t> state{0};  // twice the number of items done, and one more while the next is in work
    };
    const int64_t count_;
    std::unique_ptr<Lane[]> lanes_;
};

// One thread's place in a team.
class Member {
public:
    Member(Team& team, int index) : team_(team), index_(index) {}
    int index() const { return index_; }  // in [0, team size)
    int team_size() const { return team_.size(); }

    // Runs f(task) for every task in [0, tasks) somewhere in the team and returns when all are done. Every member must
    // make the same calls in the same order.
    template <class F>
    void each(int64_t tasks, F&& f) {
        if (tasks <= 0) return;
        if (team_.size() == 1) {
            for (int64_t task = 0; task < tasks; ++task) f(task);
            return;
        }
        for (int64_t task; (task = claim(tasks)) >= 0;) {
            f(task);
            complete(tasks);
        }
        wait();
    }

    // Runs work(lane, item) for the items up to `end` of every lane, somewhere in the team, and returns when all are
    // done. ready(lane, item) says whether what the item needs is done; going through the items, and through the lanes
    // of each, in ascending order must satisfy it. Every member must make the same calls in the same order.
    template <class Ready, class Work>
    void follow(Lanes& lanes, int64_t end, Ready&& ready, Work&& work) {
        // Time for the owner of a lane to come before another does its work; 0 while it does not come at all.
        int patience = kPatience;
        for (int idle = 0;;) {
            bool finished = true, worked = false;
            int64_t busy = -1, busy_state = 0;
            for (int64_t k = 0; k < lanes.count() && !worked; ++k) {
                const int64_t lane = (index_ + k) % lanes.count();
                const bool own = lane % team_.size() == index_;
                std::atomic<int64_t>& progress = lanes.lanes_[lane].state;
                int64_t state = progress.load(std::memory_order_acquire);
                if (state >= 2 * end) continue;
                finished = false;
                if (state % 2) {
                    busy = lane, busy_state = state, patience = kPatience;
                } else if ((own || idle >= patience) && ready(lane, state / 2) &&
                           progress.compare_exchange_strong(state, state + 1, std::memory_order_acq_rel)) {
                    work(lane, state / 2);
                    // (seq_cst: whether somebody sleeps on it must be read after this)
                    progress.store(state + 2, std::memory_order_seq_cst);
                    progress.notify_all();
                    if (!own) patience = 0;
                    worked = true;
                }
            }
            if (finished) return;
            idle = worked ? 0 : idle + 1;
            if (worked) continue;
            if (idle > kSpins && busy >= 0) {
                lanes.lanes_[busy].state.wait(busy_state, std::memory_order_acquire);
            } else {
                pause();
            }
        }
    }

private:
    // Tasks of a phase end within microseconds of each other; a thread that waits longer gives its core away.
    static constexpr int kSpins = 1000;
    static constexpr int kPatience = 50;
    static void pause();

    int64_t claim(int64_t tasks);  // a task nobody has, or -1
    void complete(int64_t tasks);
    void wait();  // for the phase to end, then on to the next

    Team& team_;
    const int index_;
    uint32_t phase_ = 0;
};

// Runs body(member) on the calling thread and up to threads - 1 others, as many as come; returns when all that came
// have left. With threads == 1, or while another caller has the pool, the calling thread does everything. The body must
// not throw.
void run_team(int threads, void (*body)(void* context, Member& member), void* context);

template <class Body>
void run_team(int threads, Body&& body) {
    using B = std::remove_reference_t<Body>;
    run_team(
        threads, [](void* context, Member& member) { (*static_cast<B*>(context))(member); }, &body);
}

}  // namespace rnncore
