// The only threads. A team is a few threads that walk through the same sequence of phases; the tasks of a phase are
// claimed one by one, and a phase ends when its last task is done. A thread that the system does not schedule is not
// waited for unless it holds a task: the others do its share, and it skips the phases it missed.
//
// Nothing spins between calls. Results must not depend on which thread runs a task.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

namespace rnncore {

// Threads that a call may use. Initially RNNCORE_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs this process may run
// on. set_num_threads throws std::invalid_argument unless n >= 1.
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

private:
    int64_t claim(int64_t tasks);  // a task nobody has, or -1
    void complete(int64_t tasks);
    void wait();  // for the phase to end, then on to the next

    Team& team_;
    const int index_;
    uint32_t phase_ = 0;
};

// Runs body(member) on the calling thread and up to threads - 1 others, as many as come; returns when all that came
// have left. With threads == 1, or while another caller has the pool, the calling thread does everything.
void run_team(int threads, void (*body)(void* context, Member& member), void* context);

template <class Body>
void run_team(int threads, Body&& body) {
    using B = std::remove_reference_t<Body>;
    run_team(
        threads, [](void* context, Member& member) { (*static_cast<B*>(context))(member); }, &body);
}

}  // namespace rnncore
