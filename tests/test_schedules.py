"""Schedules: torch's schedulers where torch can be imported, ends and states, configurations, errors."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore import schedules
from rnncore.schedules import Constant, Cosine, MultiStep, OneCycle, OnPlateau, Step, WarmUp

SCHEDULES = {
    "constant": lambda: Constant(0.1),
    "step": lambda: Step(0.1, 7, 0.5),
    "exponential": lambda: Step(0.1, 1, 0.97),
    "multistep": lambda: MultiStep(0.1, [3, 3, 20], 0.5),
    "cosine": lambda: Cosine(0.1, 60, 0.01),
    "warm_up": lambda: WarmUp(9, Step(0.1, 10)),
    "one_cycle": lambda: OneCycle(0.1, 60, 0.25, 10.0, 100.0),
    "on_plateau": lambda: OnPlateau(0.1),
}


@pytest.fixture(params=SCHEDULES)
def make(request):
    return SCHEDULES[request.param]


def rates_of(scheduler, optimizer, steps):
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "peer", "steps"),
    [
        (Step(0.3, 7, 0.5), lambda s, o: s.StepLR(o, 7, 0.5), 40),
        (Step(0.3, 1, 0.9), lambda s, o: s.ExponentialLR(o, 0.9), 40),
        (MultiStep(0.3, [3, 3, 20], 0.5), lambda s, o: s.MultiStepLR(o, [3, 3, 20], 0.5), 40),
        (Cosine(0.3, 50, 0.01), lambda s, o: s.CosineAnnealingLR(o, 50, 0.01), 51),
        (OneCycle(0.3, 100), lambda s, o: s.OneCycleLR(o, 0.3, 100), 100),
        (OneCycle(0.3, 57, 0.4, 5, 30), lambda s, o: s.OneCycleLR(o, 0.3, 57, pct_start=0.4, div_factor=5,
                                                                  final_div_factor=30), 57),
        (WarmUp(9, Constant(0.3)), lambda s, o: s.LinearLR(o, start_factor=0.1, total_iters=9), 30),
        (
            WarmUp(9, Cosine(0.3, 20)),
            lambda s, o: s.SequentialLR(
                o, [s.LinearLR(o, start_factor=0.1, total_iters=9), s.CosineAnnealingLR(o, 20)], milestones=[9]
            ),
            30,
        ),
    ],
    ids=lambda value: repr(value) if isinstance(value, schedules.Schedule) else "",
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, in SequentialLR
def test_rates_are_those_of_torch(schedule, peer, steps):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3, momentum=0.9)
    expected = rates_of(peer(torch.optim.lr_scheduler, optimizer), optimizer, steps)
    np.testing.assert_allclose([schedule(step) for step in range(steps)], expected, rtol=1e-12, atol=1e-16)


def test_cosine_is_the_closed_form_of_torch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    peer = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50, 0.01)
    for step in range(51):
        peer.last_epoch = step
        assert Cosine(0.3, 50, 0.01)(step) == pytest.approx(peer._get_closed_form_lr()[0], rel=1e-13)


@given(
    losses=st.lists(st.sampled_from([0.0, 0.5, 0.9, 0.99995, 1.0, 2.0, float("nan")]), max_size=40),
    patience=st.integers(0, 4),
    threshold=st.sampled_from([0.0, 1e-4, 0.2]),
    minimum=st.sampled_from([0.0, 0.02]),
)
def test_on_plateau_is_that_of_torch(losses, patience, threshold, minimum):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    peer = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience, threshold=threshold, min_lr=minimum, eps=0.0
    )
    schedule = OnPlateau(0.3, 0.5, patience, threshold, minimum)
    for step, loss in enumerate(losses):
        schedule.observe(loss)
        peer.step(loss)
        assert schedule(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-14)


def test_on_plateau_watches_what_is_negative():
    schedule = OnPlateau(1.0, factor=0.5, patience=0, threshold=0.1)
    rates = []
    for value in (-1.0, -1.05, -1.2, -1.19, -np.inf, np.inf, -2.0):
        schedule.observe(value)
        rates.append(schedule(0))
    assert rates == [1.0, 0.5, 0.5, 0.25, 0.125, 0.0625, 0.0625]


def test_on_plateau_never_raises_the_rate():
    schedule = OnPlateau(0.1, factor=0.5, patience=0, minimum=0.2)
    schedule.observe(1.0)
    schedule.observe(1.0)
    assert schedule(0) == 0.1


def test_ends():
    assert Cosine(0.3, 10, 0.01)(10) == Cosine(0.3, 10, 0.01)(10**9) == 0.01
    assert OneCycle(0.3, 10)(9) == OneCycle(0.3, 10)(10**9) == pytest.approx(0.3 / 25e4)
    assert Step(0.3, 10)(10**9) == 0.0
    assert WarmUp(1, Constant(0.3))(0) == 0.15
    for steps in (1, 2, 3, 4, 10):  # the peak may lie before the first step
        rates = [OneCycle(0.3, steps)(step) for step in range(steps)]
        assert all(0 <= rate <= 0.3 for rate in rates)
        assert rates[-1] == pytest.approx(0.3 / 25e4)
    assert OneCycle(0.3, 10, 0.1)(0) == 0.3  # just there


def test_rates_are_pure_functions_of_the_step(make):
    schedule = make()
    forwards = [schedule(step) for step in range(70)]
    assert [schedule(step) for step in reversed(range(70))] == forwards[::-1]
    assert all(type(rate) is float for rate in forwards)


def test_states_and_copies(make):
    schedule = make()
    for value in (3.0, 2.0, 2.5):
        schedule.observe(value)
    state = json.loads(json.dumps(schedule.state_dict()))
    assert bool(state) == isinstance(schedule, OnPlateau)
    twins = make(), pickle.loads(pickle.dumps(schedule))
    twins[0].load_state_dict(state)
    for _ in range(10):
        for one in (schedule, *twins):
            one.observe(2.0)
    for twin in twins:
        assert twin.state_dict() == schedule.state_dict()
        assert [twin(step) for step in range(70)] == [schedule(step) for step in range(70)]


def test_warm_up_passes_on_what_is_observed():
    schedule, bare = WarmUp(4, OnPlateau(0.8, 0.5, patience=0)), WarmUp(4, lambda step: 0.1)
    for _ in range(2):
        schedule.observe(1.0)
        bare.observe(1.0)
    assert schedule(4) == 0.4
    resumed = WarmUp(4, OnPlateau(0.8, 0.5, patience=0))
    resumed.load_state_dict(schedule.state_dict())
    assert resumed(4) == 0.4
    assert bare.state_dict() == {}
    with pytest.raises(ValueError, match="state of WarmUp: expected the keys"):
        bare.load_state_dict(schedule.state_dict())


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (None, TypeError, "state of OnPlateau: expected a mapping, got NoneType"),
        ({}, ValueError, r"expected the keys \['current', 'best', 'waited'\], got \[\]"),
        ({"current": -1, "best": None, "waited": 0}, ValueError, "current.*got -1"),
        ({"current": 0.1, "best": np.nan, "waited": 0}, ValueError, "best.*got nan"),
        ({"current": 0.1, "best": 1.0, "waited": 0.5}, TypeError, "waited.*got float"),
    ],
)
def test_a_bad_state_changes_nothing(state, error, message):
    schedule = OnPlateau(0.3)
    schedule.observe(2.0)
    before = schedule.state_dict()
    with pytest.raises(error, match=message):
        schedule.load_state_dict(state)
    assert schedule.state_dict() == before


def test_configurations_come_back(make):
    config = json.loads(json.dumps(make().config()))
    again = schedules.from_config(config)
    assert again.config() == make().config() == config
    assert repr(again) == repr(make())
    assert eval(repr(again), vars(schedules)).config() == config
    assert [again(step) for step in range(70)] == [make()(step) for step in range(70)]


def test_repr_shows_what_is_not_default():
    assert repr(WarmUp(5, OnPlateau(0.1, patience=3))) == "WarmUp(5, OnPlateau(0.1, patience=3))"
    assert repr(MultiStep(0.1, [3, 4])) == "MultiStep(0.1, (3, 4))"


@pytest.mark.parametrize(
    ("construct", "error", "message"),
    [
        (lambda: Constant(-1), ValueError, "rate: expected a number finite and >= 0, got -1"),
        (lambda: Constant(np.nan), ValueError, "rate: .*got nan"),
        (lambda: Constant(None), TypeError, "rate: .*got NoneType"),
        (lambda: Step(0.1, 0), ValueError, "every: expected an integer >= 1, got 0"),
        (lambda: Step(0.1, 2.5), TypeError, "every: expected an integer >= 1, got float"),
        (lambda: Step(0.1, 2, -1), ValueError, "factor: "),
        (lambda: MultiStep(0.1, [4, 3]), ValueError, r"milestones: expected ascending numbers, got \[4, 3\]"),
        (lambda: MultiStep(0.1, [0]), ValueError, "milestones: expected an integer >= 1, got 0"),
        (lambda: Cosine(0.1, 0), ValueError, "steps: "),
        (lambda: Cosine(0.1, 10, -1), ValueError, "final: "),
        (lambda: WarmUp(0, Constant(0.1)), ValueError, "steps: "),
        (lambda: WarmUp(3, 0.1), TypeError, "then: expected a schedule, got float"),
        (lambda: OneCycle(0.1, 10, 1.0), ValueError, r"pct_start: expected a number in \(0, 1\), got 1.0"),
        (lambda: OneCycle(0.1, 10, div_factor=0), ValueError, "div_factor: "),
        (lambda: OneCycle(0.1, 10, final_div_factor=0), ValueError, "final_div_factor: "),
        (lambda: OnPlateau(0.1, 1.0), ValueError, r"factor: expected a number in \(0, 1\), got 1.0"),
        (lambda: OnPlateau(0.1, patience=-1), ValueError, "patience: expected an integer >= 0, got -1"),
        (lambda: OnPlateau(0.1, threshold=-1), ValueError, "threshold: "),
        (lambda: OnPlateau(0.1, minimum=-1), ValueError, "minimum: "),
        (lambda: schedules.from_config({"type": "Adam"}), ValueError, r"config\['type'\]: expected one of .*'Adam'"),
        (lambda: schedules.Schedule()(0), NotImplementedError, "Schedule does not define __call__"),
    ],
)
def test_bad_arguments(construct, error, message):
    with pytest.raises(error, match=message):
        construct()
