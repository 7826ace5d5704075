"""Data sets: what batches contain, what an epoch visits, that it can be gone on with, and what is refused."""

import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnncore as rc
from rnncore.data import Epoch, Sequences, Streams, Windows, split, split_series


def generator(seed=0):
    return np.random.default_rng(seed)


def ragged(lengths, C=2, dtype=np.float32):
    """One sequence of each length, none of whose elements is zero or found in another."""
    ends = np.cumsum(lengths)
    values = 1 + np.arange(ends[-1] * C).reshape(-1, C).astype(dtype)
    return np.split(values, ends[:-1])


def unpadded(batch, values):
    lengths = [values.shape[1]] * len(values) if batch.lengths is None else batch.lengths
    return [row[:length] for row, length in zip(values, lengths, strict=True)]


def padding(epoch):
    return sum(batch.x.shape[0] * batch.x.shape[1] for batch in epoch)


def same(a, b):
    """Whether two batches are equal in every bit and dtype."""
    return pickle.dumps(a) == pickle.dumps(b)


several = settings(deadline=None, max_examples=60)  # a time limit would fail on a busy machine
LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=40)
SIZES = st.integers(1, 9)
DATA_SETS = {
    "sequences": lambda **options: Sequences(ragged(range(1, 30)), np.arange(29), batch_size=4, bucket=3, **options),
    "windows": lambda **options: Windows(np.arange(50.0), length=6, horizon=2, batch_size=7, **options),
    "streams": lambda **options: Streams(np.arange(50), batch_size=3, steps=5, **options),
}


# ------------------------------------------------------------------------------------------------------- epochs


@pytest.mark.parametrize("name", DATA_SETS)
def test_an_epoch_is_a_function_of_the_state_of_rng(name):
    data, rng = DATA_SETS[name](), generator(3)
    for _ in range(2):
        state = rng.bit_generator.state
        epoch = data.epoch(rng)
        rng_after = rng.bit_generator.state
        batches = [epoch[i] for i in range(len(epoch))]
        assert rng.bit_generator.state == rng_after  # nothing is drawn by indexing

        again = generator()  # of a process that was started again
        again.bit_generator.state = state
        resumed = pickle.loads(pickle.dumps(DATA_SETS[name]())).epoch(again)
        assert len(resumed) == len(batches)
        for i in reversed(range(len(epoch))):  # in any order
            assert same(resumed[i], batches[i])
        assert again.bit_generator.state == rng_after


@pytest.mark.parametrize("name", ["sequences", "windows"])
def test_epochs_differ_unless_nothing_is_shuffled(name):
    rng = generator()
    first, second = (np.concatenate([b.targets.ravel() for b in DATA_SETS[name]().epoch(rng)]) for _ in range(2))
    assert not np.array_equal(first, second)
    assert np.array_equal(np.sort(first), np.sort(second))
    plain = DATA_SETS[name](shuffle=False)
    for a, b, c in zip(plain.epoch(rng), DATA_SETS[name]().epoch(), plain, strict=True):
        assert same(a, b)
        assert same(a, c)


@pytest.mark.parametrize("name", DATA_SETS)
def test_drop_last(name):
    whole, dropped = DATA_SETS[name]().epoch(generator()), DATA_SETS[name](drop_last=True).epoch(generator())
    assert len(dropped) == len(whole) - 1
    shapes = {batch.x.shape for batch in dropped} if name != "sequences" else {len(batch.x) for batch in dropped}
    assert len(shapes) == 1


def test_an_epoch_is_a_sequence():
    epoch = Epoch(lambda start: rc.data.Batch(np.full((1, 1), start)), range(0, 10, 3))
    assert [int(batch.x.item()) for batch in epoch] == [0, 3, 6, 9]
    assert [int(batch.x.item()) for batch in epoch[1:][::-1]] == [9, 6, 3]
    assert int(epoch[-1].x.item()) == 9
    with pytest.raises(IndexError):
        epoch[4]


def test_an_index_error_in_a_batch_does_not_end_the_epoch():
    with pytest.raises(IndexError):
        list(Epoch(lambda start: [][start], range(3)))


# ---------------------------------------------------------------------------------------------------- sequences


@several
@given(lengths=LENGTHS, batch_size=SIZES, bucket=st.integers(1, 4), seed=st.none() | st.integers(0, 9))
def test_every_sequence_comes_once_whole_and_padded_with_zeros(lengths, batch_size, bucket, seed):
    x = ragged(lengths)
    numbers = np.arange(len(x), dtype=np.int16)
    steps = [np.arange(length, dtype=np.int8) + 1 for length in lengths]
    data = partial(Sequences, x, batch_size=batch_size, bucket=bucket, weights=numbers / 2)
    seen = []
    for by_number, by_step in zip(
        data(numbers).epoch(seed if seed is None else generator(seed)),
        data(steps, per_step=True).epoch(seed if seed is None else generator(seed)),
        strict=True,
    ):
        assert by_number.x.dtype == np.float32
        assert by_number.targets.dtype == np.int16
        assert by_step.targets.dtype == np.int8
        assert np.array_equal(by_number.weights, by_number.targets / 2)
        assert not by_number.carry
        rows = by_number.targets
        own = np.array(lengths)[rows]
        assert by_number.x.shape == (len(rows), own.max(), 2)  # its own longest
        if len(set(lengths)) == 1:
            assert by_number.lengths is None
        else:
            assert by_number.lengths.dtype == np.int64
            assert np.array_equal(by_number.lengths, own)
        for row, got, got_steps in zip(
            rows, unpadded(by_number, by_number.x), unpadded(by_step, by_step.targets), strict=True
        ):
            assert np.array_equal(got, x[row])
            assert np.array_equal(got_steps, steps[row])
        assert np.count_nonzero(by_number.x) == 2 * own.sum()
        assert np.count_nonzero(by_step.targets) == own.sum()
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(x)))
    if seed is None:
        assert seen == sorted(seen)


@several
@given(lengths=LENGTHS, batch_size=SIZES, seed=st.integers(0, 9))
def test_an_array_gives_the_batches_of_the_list(lengths, batch_size, seed):
    x = ragged(lengths)
    steps = max(lengths)
    array = np.full((len(x), steps, 2), np.nan, np.float32)  # the caller's padding shows nowhere
    tags = np.full((len(x), steps), -1)
    for i, sequence in enumerate(x):
        array[i, : len(sequence)] = sequence
        tags[i, : len(sequence)] = i
    before = array.copy()
    tag_list = [row[:length] for row, length in zip(tags, lengths, strict=True)]
    options = {"per_step": True, "batch_size": batch_size, "bucket": 2}
    of_array = Sequences(array, tags, lengths=lengths, weights=tags, **options).epoch(generator(seed))
    of_list = Sequences(x, tag_list, weights=tag_list, **options).epoch(generator(seed))
    assert [same(a, b) for a, b in zip(of_array, of_list, strict=True)] == [True] * len(of_array)
    assert np.array_equal(array, before, equal_nan=True)
    assert all(batch.x.flags.c_contiguous for batch in of_array)


@several
@given(lengths=LENGTHS, batch_size=SIZES, bucket=st.integers(2, 5), seed=st.integers(0, 9))
def test_buckets_never_pad_more(lengths, batch_size, bucket, seed):
    x = ragged(lengths)
    plain = Sequences(x, batch_size=batch_size, bucket=1).epoch(generator(seed))
    bucketed = Sequences(x, batch_size=batch_size, bucket=bucket).epoch(generator(seed))
    assert padding(bucketed) <= padding(plain)


def test_buckets_pad_little_in_random_order():
    lengths = generator().integers(1, 101, 5000)
    data = Sequences(ragged(lengths), lengths, batch_size=32)
    epoch = data.epoch(generator())
    assert lengths.sum() / padding(epoch) > 0.95  # 0.5 without
    means = np.array([batch.targets.mean() for batch in epoch])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3
    members = [{tuple(sorted(batch.targets)) for batch in data.epoch(generator(seed))} for seed in range(2)]
    assert len(members[0] & members[1]) < 0.5 * len(members[0])


def test_zero_length_sequences_are_kept():
    batch = Sequences([[], [3, 1], []], [0, 1, 2], batch_size=3).epoch()[0]
    assert batch.x.dtype == np.int64  # not of the empty lists
    assert batch.x.tolist() == [[0, 0], [3, 1], [0, 0]]
    assert batch.lengths.tolist() == [0, 2, 0]
    nothing, something = Sequences([np.zeros((0, 3), np.float32), np.ones((1, 3), np.float32)], batch_size=1)
    assert nothing.x.shape == (1, 0, 3)
    y, _ = rc.GRU(3, 4)(nothing.x, lengths=nothing.lengths)
    assert y.shape == (1, 0, 4)
    assert something.x.shape == (1, 1, 3)


@pytest.mark.parametrize("form", [list, np.array], ids=["list", "array"])
def test_floats_without_features_are_one_channel_and_integers_are_tokens(form):
    assert Sequences(form([[1.0, 2.0]]), batch_size=1).epoch()[0].x.shape == (1, 2, 1)
    assert Sequences(form([[1, 2]]), batch_size=1).epoch()[0].x.shape == (1, 2)


def test_targets_of_all_kinds():
    x = np.zeros((3, 4, 2))
    batch = partial(lambda targets, **options: Sequences(x, targets, batch_size=2, **options).epoch()[0].targets)
    assert batch(None) is None
    assert batch([5, 6, 7]).tolist() == [5, 6]
    assert batch(np.zeros((3, 7))).shape == (2, 7)
    assert batch(np.zeros((3, 4)), per_step=False).shape == (2, 4)
    assert batch(np.zeros((3, 4, 5)), per_step=True).shape == (2, 4, 5)
    assert batch(np.zeros((3, 4, 5, 6)), per_step=True).shape == (2, 4, 5, 6)
    labels = batch([[1, 2], [3], [4, 5]], per_step=False)
    assert [label.tolist() for label in labels] == [[1, 2], [3]]
    objects = np.empty(3, object)  # as Keras has its ragged data
    objects[:] = [[1, 2], [3], [4, 5]]
    assert [label.tolist() for label in batch(objects, per_step=False)] == [[1, 2], [3]]
    assert [x.tolist() for x, *_ in Sequences(objects, batch_size=2)] == [[[1, 2], [3, 0]], [[4, 5]]]


def test_rows_choose_sequences():
    x = ragged([3, 5, 3, 2])
    data = Sequences(x, np.arange(4), weights=np.arange(4), rows=[2, 0], batch_size=1)
    assert sorted(batch.targets.item() for batch in data.epoch(generator())) == [0, 2]
    assert [batch.weights.item() for batch in data] == [2, 0]
    assert all(batch.lengths is None for batch in data)  # those chosen are of equal length


def test_dtypes_of_one_kind_are_joined():
    x = [np.ones((2, 3), np.float32), np.ones((1, 3), np.float64)]
    assert [batch.x.dtype for batch in Sequences(x, batch_size=1)] == [np.float64] * 2


LIST = [np.zeros((length, 3)) for length in (4, 2, 5)]
ARRAY = np.zeros((3, 5, 3))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([],), {}, ValueError, "x: expected at least one sequence, got none"),
        ((np.zeros((0, 5, 3)),), {}, ValueError, "x: expected at least one sequence"),
        ((np.zeros(5),), {}, ValueError, r"x: expected a list of sequences or an array \(N, T, ...\), got \(5,\)"),
        (([1, 2],), {}, ValueError, r"x\[0\]: expected an array \(T, ...\), got a single number"),
        (([[1], [[1], [1, 2]]],), {}, ValueError, r"x\[1\]: expected an array of numbers, got a ragged list"),
        ((["abc"],), {}, TypeError, r"x\[0\]: expected real numbers, got <U3"),
        ((ARRAY * 1j,), {}, TypeError, "x: expected real numbers, got complex128"),
        (
            ([*LIST, np.zeros((4, 2))],),
            {},
            ValueError,
            r"x\[3\]: expected steps of shape \(3,\) as in x\[0\], got \(2,",
        ),
        (([*LIST, np.ones((4, 3), int)],), {}, TypeError, r"x\[3\]: expected a kind of float64 as x\[0\], got int64"),
        ((LIST,), {"lengths": [4, 2, 5]}, ValueError, "lengths: expected None"),
        ((ARRAY,), {"lengths": [4, 2]}, ValueError, r"lengths: expected \(3,\), got \(2,\)"),
        ((ARRAY,), {"lengths": [4, 6, 5]}, ValueError, r"lengths\[1\]: expected 0 to 5, got 6"),
        ((ARRAY,), {"lengths": [4, 5, -1]}, ValueError, r"lengths\[2\]: expected 0 to 5, got -1"),
        ((ARRAY,), {"lengths": [4.0, 5.0, 1.0]}, TypeError, "lengths: expected integers, got float64"),
        ((LIST, [1, 2]), {}, ValueError, "targets: expected one for each of the 3 sequences, got 2"),
        ((LIST, 1), {}, ValueError, "targets: expected one for each of the 3 sequences, got 0"),
        ((LIST, []), {}, ValueError, "targets: expected one for each of the 3 sequences, got 0"),
        ((LIST, LIST[:2]), {"per_step": True}, ValueError, "targets: expected one for each of the 3 sequences, got 2"),
        ((LIST, LIST), {}, ValueError, "targets: say per_step=True"),
        ((LIST, [[1], [2], [3]]), {}, ValueError, "targets: say per_step=True"),
        ((ARRAY, np.zeros((3, 5))), {}, ValueError, r"targets: say per_step=True if axis 1 of \(3, 5\) is the 5 steps"),
        ((LIST, ARRAY), {}, ValueError, "targets: say per_step=True"),
        ((LIST, [1, 2, 3]), {"per_step": True}, ValueError, r"targets: expected \(3, 5, ...\) for the .*, got \(3,\)"),
        ((ARRAY, ARRAY[:, 1:]), {"per_step": True}, ValueError, r"targets: expected \(3, 5, ...\) .* got \(3, 4, 3\)"),
        (
            (LIST, [*LIST[:2], LIST[0]]),
            {"per_step": True},
            ValueError,
            r"targets\[2\]: expected 5 steps as x\[2\] has, got 4",
        ),
        ((LIST, ["a", "b", "c"]), {}, TypeError, "targets(.0.)?: expected real numbers"),
        ((LIST,), {"weights": [1.0]}, ValueError, "weights: expected one for each of the 3 sequences, got 1"),
        ((LIST,), {"weights": ARRAY}, ValueError, r"weights: expected \(N,\), \(N, T\) or a list .*, got 3 axes"),
        ((LIST,), {"weights": LIST}, ValueError, r"weights: expected \(N,\), \(N, T\) or a list .*, got 3 axes"),
        ((LIST,), {"weights": 1.0}, ValueError, r"weights: expected \(N,\)"),
        ((ARRAY,), {"weights": np.ones((3, 4))}, ValueError, r"weights: expected \(3, 5, ...\)"),
        ((LIST,), {"rows": [0, 3]}, ValueError, r"rows\[1\]: expected 0 to 2, got 3"),
        ((LIST,), {"rows": np.array([], int)}, ValueError, r"rows: expected at least one index, \(K,\), got \(0,\)"),
        ((LIST,), {"rows": [True, False, True]}, TypeError, "rows: expected integers, got bool"),
        ((LIST,), {"batch_size": 0}, ValueError, "batch_size: expected a positive integer, got 0"),
        ((LIST,), {"batch_size": 2.0}, ValueError, "batch_size: expected a positive integer, got 2.0"),
        ((LIST,), {"bucket": 0}, ValueError, "bucket: expected a positive integer, got 0"),
        ((LIST,), {"batch_size": 4, "drop_last": True}, ValueError, "drop_last: expected at least one whole batch"),
    ],
)
def test_wrong_sequences_are_refused(arguments, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        Sequences(*arguments, **{"batch_size": 2, **options})


def test_a_seed_is_no_generator():
    for data in (DATA_SETS["sequences"](), DATA_SETS["windows"]()):
        with pytest.raises(TypeError, match=r"^rng: expected a numpy.random.Generator or None, got int"):
            data.epoch(0)


# ------------------------------------------------------------------------------------------------------ windows


@several
@given(
    steps=st.lists(st.integers(8, 30), min_size=1, max_size=4),
    length=st.integers(1, 5),
    horizon=st.integers(1, 3),
    stride=st.integers(1, 12),
    batch_size=SIZES,
    per_step=st.booleans(),
    seed=st.none() | st.integers(0, 9),
)
def test_windows_are_those_of_numpy(steps, length, horizon, stride, batch_size, per_step, seed):
    series = ragged(steps)
    data = Windows(series, length=length, horizon=horizon, stride=stride, batch_size=batch_size, per_step=per_step)
    batches = list(data.epoch(seed if seed is None else generator(seed)))
    x, targets = (np.concatenate([batch[k] for batch in batches]) for k in range(2))
    order = np.argsort(x[:, 0, 0])  # the elements of the series are in order
    if seed is None:
        assert np.array_equal(order, np.arange(len(x)))
    whole = np.concatenate(
        [
            np.lib.stride_tricks.sliding_window_view(array, length + horizon, axis=0)[::stride].swapaxes(1, 2)
            for array in series
        ]
    )
    assert x.dtype == targets.dtype == np.float32
    assert np.array_equal(x[order], whole[:, :length])
    assert np.array_equal(targets[order], whole[:, horizon:] if per_step else whole[:, length:])
    assert {len(batch.x) for batch in batches[:-1]} <= {batch_size}
    assert all(batch.lengths is None and not batch.carry for batch in batches)


def test_windows_with_targets_of_another_series():
    series, targets = np.arange(20.0), np.arange(20) * 10
    batch = Windows(series, targets=targets, length=3, horizon=2, batch_size=4).epoch()[1]
    assert batch.x[:, :, 0].tolist() == [[s, s + 1, s + 2] for s in range(4, 8)]
    assert batch.targets.tolist() == [[10 * (s + 3), 10 * (s + 4)] for s in range(4, 8)]
    assert batch.targets.dtype == targets.dtype
    at_last_step = Windows(series[1:], targets=targets[:-1], length=3, batch_size=4).epoch()[0]
    assert np.array_equal(at_last_step.targets[:, 0], 10 * at_last_step.x[:, -1, 0])


@pytest.mark.parametrize(
    ("series", "options", "error", "message"),
    [
        (np.zeros(9), {}, ValueError, r"series: expected at least 10 steps, window and targets, got 9"),
        ([np.zeros(10), np.zeros(9)], {}, ValueError, r"series\[1\]: expected at least 10 steps"),
        ([], {}, ValueError, "series: expected at least one sequence, got none"),
        (1.0, {}, ValueError, r"series: expected \(T, ...\), got a single number"),
        ([np.zeros((10, 2)), np.zeros((10, 3))], {}, ValueError, r"series\[1\]: expected steps of shape \(2,\)"),
        (np.zeros(10), {"targets": np.zeros(9)}, ValueError, r"targets\[0\]: expected 10 steps as series\[0\] has"),
        (np.zeros(10), {"targets": [np.zeros(10)] * 2}, ValueError, "targets: expected one for each of the 1 series"),
        (np.zeros(10), {"length": 0}, ValueError, "length: expected a positive integer, got 0"),
        (np.zeros(10), {"horizon": 0}, ValueError, "horizon: expected a positive integer, got 0"),
        (np.zeros(10), {"horizon": 1.5}, ValueError, "horizon: expected a positive integer, got 1.5"),
        (np.zeros(10), {"stride": -1}, ValueError, "stride: expected a positive integer, got -1"),
        (np.zeros(10), {"batch_size": None}, ValueError, "batch_size: expected a positive integer, got None"),
        (np.zeros(10), {"drop_last": True}, ValueError, "drop_last: expected at least one whole batch, got 1 of 2"),
    ],
)
def test_wrong_windows_are_refused(series, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        Windows(series, **{"length": 8, "horizon": 2, "batch_size": 2, **options})


# ------------------------------------------------------------------------------------------------------ streams


@several
@given(steps=st.integers(2, 60), batch_size=st.integers(1, 6), piece=st.integers(1, 20), own=st.booleans())
def test_streams_put_together_are_the_series(steps, batch_size, piece, own):
    series = ragged([steps])[0][::-1]  # of any strides
    targets = -np.arange(steps)
    length = (steps - (not own)) // batch_size
    if not length:
        return
    epoch = Streams(series, targets if own else None, batch_size=batch_size, steps=piece).epoch(generator())
    x, y = (np.concatenate([batch[k] for batch in epoch], axis=1) for k in range(2))
    used = batch_size * length
    assert x.shape[:2] == y.shape[:2] == (batch_size, length)
    assert np.array_equal(x.reshape(-1, 2), series[:used])
    assert np.array_equal(y.ravel() if own else y.reshape(-1, 2), targets[:used] if own else series[1 : used + 1])
    assert steps - used <= batch_size
    assert [batch.carry for batch in epoch] == [False] + [True] * (len(epoch) - 1)
    assert [batch.x.shape[1] for batch in epoch[:-1]] == [piece] * (len(epoch) - 1)
    assert all(batch.lengths is None for batch in epoch)


def test_carried_state_reads_a_stream_as_one():
    series = generator().standard_normal((41, 3), dtype=np.float32)
    layer, state, outputs = rc.LSTM(3, 5, rng=0), None, []
    for batch in Streams(series, batch_size=2, steps=6):
        y, state = layer(batch.x, state if batch.carry else None)
        outputs.append(y)
    assert np.array_equal(np.concatenate(outputs, axis=1), layer(series[:40].reshape(2, 20, 3))[0])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.arange(4),), {}, ValueError, "series: expected at least 5 steps for 4 lanes, got 4"),
        ((np.arange(3), np.arange(3)), {}, ValueError, "series: expected at least 4 steps for 4 lanes, got 3"),
        ((np.arange(9), np.arange(8)), {}, ValueError, "targets: expected 9 steps as series has, got 8"),
        ((3,), {}, ValueError, r"series: expected \(T, ...\), got a single number"),
        ((["a"],), {}, TypeError, "series: expected real numbers"),
        ((np.arange(9),), {"steps": 0}, ValueError, "steps: expected a positive integer, got 0"),
        ((np.arange(9),), {"batch_size": 0}, ValueError, "batch_size: expected a positive integer, got 0"),
        ((np.arange(9),), {"drop_last": True}, ValueError, "drop_last: expected at least one whole batch, got 2 of 3"),
    ],
)
def test_wrong_streams_are_refused(arguments, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        Streams(*arguments, **{"batch_size": 4, "steps": 3, **options})


# ------------------------------------------------------------------------------------------------------- memory


def test_memory_maps_are_read_a_batch_at_a_time(tmp_path):
    rows, steps = 1 << 20, 1 << 16  # 1 TiB, all but the end a hole: reading it would not end, copying it would not fit
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(rows, steps, 4))
    x[-1] = 7
    some = [5, rows - 1, 9, 2]
    data = Sequences(x, x, per_step=True, rows=some, batch_size=2)
    for batch in data.epoch(generator()):
        assert type(batch.x) is np.ndarray
        assert batch.x.shape == batch.targets.shape == (2, steps, 4)
    assert (data.epoch()[0].x[1] == 7).all()
    series = x.reshape(rows * steps, 4)
    windows = Windows(series, length=64, stride=1 << 12, batch_size=2, shuffle=False).epoch()
    assert windows[-1].x.shape == (2, 64, 4)
    streams = Streams(series, batch_size=8, steps=64).epoch()
    assert (streams[-1].x[-1] == 7).all()
    train, validation = split_series(series)
    assert np.shares_memory(train, series)
    assert (validation[-1] == 7).all()


@pytest.mark.parametrize("name", DATA_SETS)
def test_batches_can_be_written_to(name):
    epoch = DATA_SETS[name]().epoch()
    before = pickle.dumps(epoch[0])
    batch = epoch[0]
    batch.x[...] = -1
    batch.targets[...] = -1
    assert pickle.dumps(epoch[0]) == before


# ------------------------------------------------------------------------------------------------------- splits


@several
@given(count=st.integers(2, 60), validation=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_split_parts_the_sequences(count, validation, seed):
    x, targets = ragged(range(1, count + 1)), np.arange(count)
    x_train, x_val, targets_train, targets_val = split(x, targets, validation=validation, rng=seed)
    assert sorted([*targets_train, *targets_val]) == list(range(count))
    assert list(targets_train) == sorted(targets_train)
    assert abs(len(targets_val) - validation * count) <= 1
    assert 0 < len(targets_val) < count
    for part, numbers in ((x_train, targets_train), (x_val, targets_val)):
        assert isinstance(part, list)
        assert all(a is x[i] for a, i in zip(part, numbers, strict=True))
    again = split(targets, validation=validation, rng=generator(seed))
    assert np.array_equal(again[1], targets_val)


@several
@given(groups=st.lists(st.sampled_from("abcdefg"), min_size=8, max_size=40), seed=st.integers(0, 9))
def test_split_keeps_groups_together(groups, seed):
    if len(set(groups)) == 1:
        return
    train, validation = split(groups, validation=0.3, groups=groups, rng=seed)
    assert set(train) | set(validation) == set(groups)
    assert not set(train) & set(validation)
    assert len(set(validation)) == max(1, round(0.3 * len(set(groups))))


@several
@given(steps=st.integers(3, 60), validation=st.floats(0.01, 0.5), gap=st.integers(0, 5))
def test_split_series_in_order_of_time(steps, validation, gap):
    series = np.arange(steps)
    aside = max(1, round(validation * steps))
    if steps - aside - gap < 1:
        with pytest.raises(ValueError, match=r"^gap: expected at most"):
            split_series(series, validation=validation, gap=gap)
        return
    train, held_out, same_train, _ = split_series(series, series * 2, validation=validation, gap=gap)
    assert train.tolist() == list(range(steps - aside - gap))
    assert held_out.tolist() == list(range(steps - aside, steps))
    assert np.array_equal(same_train, 2 * train)
    assert np.shares_memory(train, series)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split(rng=0), "data: expected at least one list or array, got none"),
        (lambda: split([1, 2], [1, 2, 3], rng=0), r"data\[1\]: expected 2 sequences as data\[0\] has, got 3"),
        (lambda: split([1, 2], 3, rng=0), r"data\[1\]: expected 2 sequences as data\[0\] has, got 0"),
        (lambda: split([1], rng=0), "validation: expected at least 2 sequences or groups to split, got 1"),
        (lambda: split([], rng=0), "validation: expected at least 2 sequences or groups to split, got 0"),
        (lambda: split([1, 2], groups="aa", rng=0), r"groups: expected \(2,\), got \(\)"),
        (lambda: split([1, 2], groups=["a", "a"], rng=0), "validation: expected at least 2 sequences or groups"),
        (lambda: split([1, 2], validation=1, rng=0), "validation: expected a fraction between 0 and 1, got 1"),
        (lambda: split([1, 2], validation=float("nan"), rng=0), "validation: expected a fraction"),
        (lambda: split_series(), "series: expected at least one list or array, got none"),
        (lambda: split_series([1, 2], [1]), r"series\[1\]: expected 2 steps as series\[0\] has, got 1"),
        (lambda: split_series([1]), "validation: expected at least 2 steps to split, got 1"),
        (lambda: split_series([1, 2], validation=0), "validation: expected a fraction between 0 and 1, got 0"),
        (lambda: split_series([1, 2, 3], gap=-1), "gap: expected a number of steps from 0, got -1"),
        (lambda: split_series([1, 2, 3], gap=0.5), "gap: expected a number of steps from 0, got 0.5"),
        (lambda: split_series(range(10), gap=9), "gap: expected at most 8 of 10 steps, 1 set aside, got 9"),
    ],
)
def test_wrong_splits_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
