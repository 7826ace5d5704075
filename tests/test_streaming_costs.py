"""What a step costs beside its arithmetic: no memory from the heap and no lock, counted in a process of its own.

A library that is loaded before all others counts the calls of malloc and its kin and of locks. In that process Python
takes each of its objects from malloc too, so what is counted is everything.
"""

import json
import os
import platform
import shutil
import subprocess
import sys

import pytest

COUNTERS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stddef.h>

static long allocations, locks;
#define COUNT(what) __atomic_fetch_add(&what, 1, __ATOMIC_RELAXED)
long count_allocations(void) { return allocations; }
long count_locks(void) { return locks; }

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

void *malloc(size_t n) { COUNT(allocations); return __libc_malloc(n); }
void *calloc(size_t n, size_t size) { COUNT(allocations); return __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { COUNT(allocations); return __libc_realloc(p, n); }
void *memalign(size_t a, size_t n) { COUNT(allocations); return __libc_memalign(a, n); }
void *aligned_alloc(size_t a, size_t n) { COUNT(allocations); return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) {
    COUNT(allocations);
    *p = __libc_memalign(a, n);
    return *p ? 0 : 12;
}
void free(void *p) { if (p) COUNT(allocations); __libc_free(p); }

// (whoever waits for a condition has locked its mutex before)
#define LOCK(function, type)                                                  \
    int function(type *lock) {                                                \
        static int (*next)(type *);                                           \
        if (!next) next = (int (*)(type *))dlsym(RTLD_NEXT, #function);       \
        COUNT(locks);                                                         \
        return next(lock);                                                    \
    }
LOCK(pthread_mutex_lock, pthread_mutex_t)
LOCK(pthread_mutex_trylock, pthread_mutex_t)
LOCK(pthread_rwlock_rdlock, pthread_rwlock_t)
LOCK(pthread_rwlock_wrlock, pthread_rwlock_t)
LOCK(sem_wait, sem_t)
LOCK(sem_trywait, sem_t)
"""

CHILD = r"""
import ctypes, gc, itertools, json, sys
import numpy as np
import rnncore as rc

counters = ctypes.PyDLL(sys.argv[1])  # which keeps the GIL: releasing it takes a lock
calls = int(sys.argv[2])
counts = (counters.count_allocations, counters.count_locks)
for count in counts:
    count.restype = ctypes.c_long

def counted(function, *arguments):
    for _ in range(3):  # what is made once is made before
        function(*arguments)
    before = [count() for count in counts]
    for _ in itertools.repeat(None, calls):
        function(*arguments)
    return [count() - number for count, number in zip(counts, before)]

def come_and_go(stream):
    stream.detach(stream.attach() // 2)

rc.set_num_threads(1)
gc.disable()
rng = np.random.default_rng(0)
models = {
    "lstm": rc.LSTM(6, 8, num_layers=2, rng=0),
    "gru": rc.GRU(6, 8, num_layers=2, rng=0),
    "model": rc.Sequential(
        rc.Embedding(11, 5, rng=0), rc.LSTM(5, 8, rng=1), rc.Activation("tanh"), rc.Linear(8, 3, rng=2)
    ),
}
found = {}
for name, model in models.items():
    for rows in (1, 8, 64):
        steps = max(1, 64 // rows)
        if name == "model":
            x = rng.integers(0, 11, (rows, steps))
        else:
            x = rng.standard_normal((rows, steps, 6), dtype=np.float32)
        stream = model.stream(rows)
        x_t, block = np.ascontiguousarray(x[:, 0]), stream.process(x)
        found[f"{name} step {rows}"] = counted(stream.step, x_t, stream.step(x_t))
        found[f"{name} process {rows}"] = counted(stream.process, x, block)
        stream.attach()
        found[f"{name} rows {rows}"] = counted(come_and_go, stream)
stream = models["lstm"].stream(8)
found["step without out"] = counted(stream.step, np.zeros((8, 6), np.float32))
found["call of a layer"] = counted(models["lstm"], np.zeros((1, 20, 6), np.float32))
large = rc.LSTM(64, 128, rng=0).stream(32)
x = np.zeros((32, 64), np.float32)
found["large step"] = counted(large.step, x, large.step(x))
print(json.dumps(found))
"""

CALLS = 2000
FEW = 20  # for all calls together: of a loop, and of counting
MODELS = ("lstm", "gru", "model")
SIZES = (1, 8, 64)


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """Calls of the heap and of locks in 2000 of everything."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler or platform.libc_ver()[0] != "glibc":
        pytest.skip("needs a C compiler and glibc")
    folder = tmp_path_factory.mktemp("counters")
    source, library = folder / "counters.c", folder / "counters.so"
    source.write_text(COUNTERS)
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    settings = {"LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc", "OPENBLAS_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, library, str(CALLS)], env=os.environ | settings, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def test_counting_sees_what_there_is(counts):
    for name in ("step without out", "call of a layer"):
        assert counts[name][0] >= 2 * CALLS, "memory that comes and goes"
    assert counts["call of a layer"][1] >= CALLS
    assert counts["large step"][1] >= CALLS, "it lets other threads of Python run"


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("what", ["step", "process", "rows"])
def test_nothing_is_allocated_or_locked(counts, name, what, rows):
    """In a step, a block, and where rows come and go within what there is room for."""
    assert max(counts[f"{name} {what} {rows}"]) < FEW


def test_a_large_step_allocates_nothing(counts):
    assert counts["large step"][0] < FEW
