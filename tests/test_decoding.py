"""Decoding: beams against enumeration and a plain search, draws against probabilities, batches against rows alone."""

import itertools

import numpy as np
import pytest

import rnncore as rc
from rnncore.decoding import beam_search, greedy, rows_on_axis, sample, sampling_distribution

V, END = 4, 3


class Chain:
    """A random network that is fed its tokens: logits depend on the whole past. Counts the rows of every step."""

    def __init__(self, seed=0, V=V, H=5, attention=False, end_bias=0.0):
        rng = np.random.default_rng(seed)
        self.embedding, self.recurrent = rng.normal(size=(V + 1, H)), rng.normal(size=(H, H))
        self.out, self.bias = 1.5 * rng.normal(size=(V, H)), end_bias * (np.arange(V) == END)
        self.attention, self.rows = attention, []

    def state(self, N, seed=0):
        return np.random.default_rng(seed).normal(size=(N, 5)), (np.zeros(N, int), None)

    def step(self, tokens, state):
        h, (steps, _) = state
        assert tokens.dtype == np.int64
        assert len(tokens) == len(h) == len(steps)
        self.rows.append(len(tokens))
        # summed row by row, whatever the number of rows
        h = np.tanh(self.embedding[tokens] + np.einsum("rh,gh->rg", h, self.recurrent))
        logits = np.einsum("rh,vh->rv", h, self.out) + self.bias
        state = h, (steps + 1, None)
        return (logits, state, np.stack([steps, tokens], axis=1)) if self.attention else (logits, state)

    def log_probability(self, tokens, h):
        """Of tokens in turn from a state (5,), step by step."""
        total, state, last = 0.0, (h[None], (np.zeros(1, int), None)), V
        for token in tokens:
            logits, state, *_ = self.step(np.array([last]), state)
            total += logits[0, token] - np.log(np.exp(logits[0]).sum())
            last = token
        return total


def starts(N):
    return np.full(N, V)


def whole(found):
    """Return the tokens of a hypothesis with its end."""
    return (*found.tokens.tolist(), END) if found.ended else tuple(found.tokens.tolist())


def assert_same(got, expected):
    assert np.array_equal(got.tokens, expected.tokens)
    assert got[1:4] == expected[1:4]
    assert (got.attention is None) == (expected.attention is None)
    assert got.attention is None or np.array_equal(got.attention, expected.attention)


# ------------------------------------------------------------------------------------------------------ greedy


def test_greedy_follows_the_largest_logit():
    chain = Chain(1)
    state = chain.state(6)
    out = greedy(chain.step, state, starts(6), END, 7)
    assert len({len(found.tokens) for found in out}) > 1  # they end at different times
    for n, found in enumerate(out):
        assert found.tokens.dtype == np.int64
        assert found.log_probability == pytest.approx(chain.log_probability(whole(found), state[0][n]), abs=1e-12)
        assert found.score == found.log_probability
        assert found.ended or len(found.tokens) == 7
        for t in range(len(whole(found))):  # no other token is more probable
            others = [chain.log_probability((*whole(found)[:t], token), state[0][n]) for token in range(V)]
            assert np.argmax(others) == whole(found)[t]


def test_rows_that_ended_cost_nothing():
    chain = Chain(1)
    out = greedy(chain.step, chain.state(6), starts(6), END, 7)
    steps = [len(whole(found)) for found in out]
    assert chain.rows == [sum(t < n for n in steps) for t in range(max(steps))]


def test_without_an_end_all_steps_are_taken():
    out = greedy(Chain().step, Chain().state(3), starts(3), None, 5)
    assert [(len(found.tokens), found.ended) for found in out] == [(5, False)] * 3


def test_equal_logits_take_the_first():
    (found,) = greedy(lambda tokens, state: (np.zeros((1, 3)), None), None, [0], 2, 4)
    assert found.tokens.tolist() == [0] * 4


# ----------------------------------------------------------------------------------------------------- sampling


def test_sampling_distribution_is_softmax(rng):
    logits = 5 * rng.normal(size=(6, 9))
    for temperature in (0.5, 1.0, 3.0):
        expected = np.exp(logits / temperature)
        got = sampling_distribution(logits, temperature)
        np.testing.assert_allclose(got, expected / expected.sum(axis=1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 8, 9, 20])
def test_top_k_keeps_the_k_largest(k, rng):
    logits = rng.normal(size=(20, 9))
    p = sampling_distribution(logits, top_k=k)
    softmax = sampling_distribution(logits)
    for row, of_all in zip(p, softmax, strict=True):
        kept = np.argsort(-of_all)[:k]
        np.testing.assert_allclose(row[kept], of_all[kept] / of_all[kept].sum(), rtol=1e-12)
        assert np.count_nonzero(row) == min(k, 9)


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.7, 0.95, 1.0])
def test_nucleus_is_the_smallest_set(top_p, rng):
    logits = 2 * rng.normal(size=(50, 7))
    softmax = sampling_distribution(logits)
    for row, of_all in zip(sampling_distribution(logits, top_p=top_p), softmax, strict=True):
        kept = np.flatnonzero(row)
        sums = [of_all[list(c)].sum() for c in itertools.combinations(range(7), len(kept) - 1)]
        assert of_all[kept].sum() >= top_p - 1e-12
        assert max(sums) < top_p  # none with one token less will do
        np.testing.assert_allclose(row[kept], of_all[kept] / of_all[kept].sum(), rtol=1e-12)


def test_cuts_of_equal_logits_keep_the_first_and_what_is_forbidden_stays_so():
    logits = np.array([[0.0, 0.0, 0.0, -np.inf]])
    assert sampling_distribution(logits, top_k=2).tolist() == [[0.5, 0.5, 0.0, 0.0]]
    assert sampling_distribution(logits, top_p=0.5).tolist() == [[0.5, 0.5, 0.0, 0.0]]
    assert sampling_distribution(logits, top_k=4)[0, 3] == 0.0
    # temperature comes first, then top_k, then the nucleus of what is left
    logits = np.log([[0.5, 0.25, 0.25]])
    np.testing.assert_allclose(sampling_distribution(logits, 0.5, 2, 0.75), [[1.0, 0.0, 0.0]])
    np.testing.assert_allclose(sampling_distribution(logits, 1.0, 2, 0.75), [[2 / 3, 1 / 3, 0.0]])


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 2.0}, {"top_k": 3}, {"top_p": 0.8, "temperature": 4.0}], ids=str
)
def test_frequencies_are_the_probabilities(options):
    """Sequences of two tokens, by chi-square: 5 standard deviations over its mean at most."""
    chain, N = Chain(3), 20000
    h = chain.state(1)[0]
    out = sample(chain.step, (np.repeat(h, N, axis=0), (np.zeros(N, int), None)), starts(N), None, 2, rng=0, **options)
    counts = np.zeros((V, V))
    np.add.at(counts, tuple(np.array([found.tokens for found in out]).T), 1)
    logits, state = chain.step(np.array([V]), (h, (np.zeros(1, int), None)))
    first = sampling_distribution(logits, **options)[0]
    logits, _ = chain.step(np.arange(V), (np.repeat(state[0], V, axis=0), (np.zeros(V, int), None)))
    expected = N * first[:, None] * sampling_distribution(logits, **options)
    assert (counts[expected == 0] == 0).all()
    cells = expected > 0
    chi_square = ((counts - expected)[cells] ** 2 / expected[cells]).sum()
    degrees = np.count_nonzero(cells) - 1
    assert degrees > 2
    assert chi_square < degrees + 5 * np.sqrt(2 * degrees)
    found = out[0]
    assert found.log_probability == pytest.approx(chain.log_probability(found.tokens, h[0]), abs=1e-12)


def test_top_k_of_one_is_greedy():
    chain, state = Chain(1), Chain(1).state(6)
    for options in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-4}):
        drawn = sample(chain.step, state, starts(6), END, 7, rng=5, **options)
        for got, expected in zip(drawn, greedy(chain.step, state, starts(6), END, 7), strict=True):
            assert_same(got, expected)


def test_a_seed_says_what_is_drawn_whenever_others_end():
    chain, state = Chain(1), Chain(1).state(6)
    out = sample(chain.step, state, starts(6), END, 9, rng=5)
    shorter = sample(chain.step, state, starts(6), END, 4, rng=np.random.default_rng(5))
    endless = sample(chain.step, state, starts(6), None, 9, rng=5)
    for found, cut, other in zip(out, shorter, endless, strict=True):
        assert whole(cut) == whole(found)[:4]
        assert whole(found) == tuple(other.tokens[: len(whole(found))])


# -------------------------------------------------------------------------------------------------- beam search


def sequences(T):
    """Return all that can be decoded in T steps."""
    for L in range(T):
        for tokens in itertools.product(range(V - 1), repeat=L):
            yield (*tokens, END)
    yield from itertools.product(range(V - 1), repeat=T)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("n_best", [1, 5])
def test_a_beam_that_holds_all_finds_the_best(alpha, n_best):
    T, chain = 4, Chain(2, end_bias=-1.0)
    state = chain.state(3)
    out = beam_search(chain.step, state, starts(3), END, T, beam_width=V**T, n_best=n_best, length_penalty=alpha)
    for n, of_sentence in enumerate(out):
        scores = {}
        for tokens in sequences(T):
            log_p = chain.log_probability(tokens, state[0][n])
            scores[tokens] = log_p / ((5 + len(tokens)) / 6) ** alpha
        expected = sorted(scores, key=scores.get, reverse=True)[:n_best]
        assert [whole(found) for found in of_sentence] == expected
        assert [found.score for found in of_sentence] == pytest.approx([scores[t] for t in expected], abs=1e-12)
        log_ps = [chain.log_probability(t, state[0][n]) for t in expected]
        assert [found.log_probability for found in of_sentence] == pytest.approx(log_ps, abs=1e-12)


def plain_beam(chain, h, T, width, alpha):
    """Beam search of one sentence, as it is told: everything is scored from its beginning."""
    live, finished = [()], []
    for _ in range(T):
        scored = [(chain.log_probability((*t, v), h), (*t, v)) for t in live for v in range(V)]
        taken = [t for _, t in sorted(scored, reverse=True)[: width - len(finished)]]
        finished += [t for t in taken if t[-1] == END]
        live = [t for t in taken if t[-1] != END]
    scores = {t: chain.log_probability(t, h) / ((5 + len(t)) / 6) ** alpha for t in finished + live}
    return sorted(scores, key=scores.get, reverse=True)


@pytest.mark.parametrize("width", [2, 3, 7])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_beams_are_those_of_a_plain_search(width, alpha):
    chain, T = Chain(4), 6
    state = chain.state(4)
    out = beam_search(chain.step, state, starts(4), END, T, beam_width=width, n_best=width, length_penalty=alpha)
    for n, of_sentence in enumerate(out):
        assert [whole(found) for found in of_sentence] == plain_beam(chain, state[0][n], T, width, alpha)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_beam_of_one_is_greedy(alpha):
    chain, state = Chain(1, attention=True), Chain(1).state(8)
    out = beam_search(chain.step, state, starts(8), END, 7, beam_width=1, length_penalty=alpha)
    for (got,), expected in zip(out, greedy(chain.step, state, starts(8), END, 7), strict=True):
        steps = len(whole(expected))
        assert got.score == pytest.approx(expected.score / ((5 + steps) / 6) ** alpha)
        assert_same(got._replace(score=expected.score), expected)


def test_a_search_stops_when_nothing_can_win():
    chain = Chain(2, end_bias=6.0)  # ends soon, with hardly a doubt
    out = beam_search(chain.step, chain.state(5), starts(5), END, 50, beam_width=4)
    assert len(chain.rows) < 10
    assert all(found.ended for (found,) in out)


def test_what_is_impossible_is_not_found():
    def step(tokens, state):  # one way alone: 1, then the end
        logits = np.full((len(tokens), 3), -np.inf)
        logits[tokens == 0, 1] = 0.0
        logits[tokens == 1, 2] = 0.0
        return logits, state

    ((found,),) = beam_search(step, None, [0], 2, 5, beam_width=4, n_best=4)
    assert (found.tokens.tolist(), found.log_probability, found.ended) == ([1], 0.0, True)


# ---------------------------------------------------------------------------------------------------------- all

METHODS = {
    "greedy": lambda *a, **o: [[found] for found in greedy(*a, **o)],
    "beams": lambda *a, **o: beam_search(*a, beam_width=3, n_best=2, length_penalty=0.5, **o),
    "sample": lambda *a, **o: [[found] for found in sample(*a, rng=0, **o)],
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@pytest.mark.parametrize("method", [METHODS["greedy"], METHODS["beams"]], ids=["greedy", "beams"])
def test_a_batch_is_each_row_alone(method):
    """A model of layers, whose states have their rows on axis 1."""
    model = rc.Sequential(rc.Embedding(V + 1, 6, rng=0), rc.LSTM(6, 9, num_layers=2, rng=1), rc.Linear(9, V, rng=2))
    model.flat_parameters[...] *= 6
    model.flat_parameters[-V + END] += 3.0  # the end's bias
    _, state = model.run(np.arange(15).reshape(5, 3) % V)

    def step(tokens, state):
        logits, state = model.run(tokens[:, None], state)
        return logits[:, 0], state

    select = rows_on_axis(1)
    together = method(step, state, starts(5), END, 12, select=select)
    assert len({len(found.tokens) for of_row in together for found in of_row}) > 1
    for n, of_row in enumerate(together):
        (alone,) = method(step, select(state, np.array([n])), starts(1), END, 12, select=select)
        for got, expected in zip(of_row, alone, strict=True):
            assert_same(got, expected)


@each_method
def test_attention_is_that_of_each_token(method):
    chain = Chain(1, attention=True)
    for of_row in method(chain.step, chain.state(6), starts(6), END, 7):
        for found in of_row:
            # this step gives its own number and the token that it read
            assert found.attention.shape == (len(found.tokens), 2)
            np.testing.assert_array_equal(found.attention[:, 0], np.arange(len(found.tokens)))
            np.testing.assert_array_equal(found.attention[:, 1], [V, *found.tokens][: len(found.tokens)])


@each_method
def test_no_rows_take_no_step(method):
    assert method(Chain().step, Chain().state(0), starts(0), END, 7) == []
    assert method(Chain().step, None, [], END, 7) == []


@each_method
@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros(4), r"step: expected logits \(2, V\)"),
        (np.zeros((3, 4)), r"step: expected logits \(2, V\)"),
        (np.zeros((2, 3)), "end: expected a token below V = 3, got 3"),
        (np.full((2, 4), np.nan), "step: expected a finite largest logit"),
        (np.full((2, 4), -np.inf), "step: expected a finite largest logit"),
        (np.full((2, 4), np.inf), "step: expected a finite largest logit"),
    ],
)
def test_what_the_step_returns_is_checked(method, logits, message):
    with pytest.raises(ValueError, match=message):
        method(lambda tokens, state: (logits, state), None, starts(2), END, 3)


@each_method
def test_arguments_are_checked(method):
    def step(tokens, state):
        return np.zeros((len(tokens), 4)), state

    with pytest.raises(ValueError, match=r"start: expected integers \(N,\)"):
        method(step, None, [0.5], END, 3)
    with pytest.raises(ValueError, match=r"start: expected integers \(N,\)"):
        method(step, None, 0, END, 3)
    with pytest.raises(ValueError, match="max_steps: expected an integer >= 1, got 0"):
        method(step, None, [0], END, 0)
    with pytest.raises(ValueError, match="end: expected an integer >= 0, got -1"):
        method(step, None, [0], -1, 3)
    with pytest.raises(TypeError, match="step: expected"):
        method(lambda tokens, state: np.zeros((1, 4)), None, [0], END, 3)
    with pytest.raises(ValueError, match=r"step: expected attention \(1, ...\)"):
        method(lambda tokens, state: (np.zeros((1, 4)), None, np.zeros((2, 3))), None, [0], END, 3)


def test_options_are_checked():
    def step(tokens, state):
        return np.zeros((len(tokens), 4)), state

    for options, error in (
        ({"temperature": 0.0}, ValueError), ({"temperature": "hot"}, TypeError), ({"top_k": 0}, ValueError),
        ({"top_k": 1.5}, TypeError), ({"top_p": 0.0}, ValueError), ({"top_p": 1.5}, ValueError),
    ):  # fmt: skip
        with pytest.raises(error, match=f"{next(iter(options))}: expected"):
            sample(step, None, [0], END, 3, rng=0, **options)
    with pytest.raises(TypeError, match="rng: expected"):
        sample(step, None, [0], END, 3, rng=None)
    with pytest.raises(ValueError, match="n_best: expected at most beam_width = 2, got 3"):
        beam_search(step, None, [0], END, 3, beam_width=2, n_best=3)
    with pytest.raises(ValueError, match="length_penalty: expected"):
        beam_search(step, None, [0], END, 3, length_penalty=-1.0)
    with pytest.raises(ValueError, match=r"logits: expected shape \(R, V\)"):
        sampling_distribution([0.0, 1.0])


def test_states_are_checked():
    def step(tokens, state):
        logits = np.zeros((len(tokens), 4))
        logits[:1, END] = 1.0  # the first row ends, so that rows are taken
        return logits, state

    with pytest.raises(ValueError, match=r"state: expected 3 rows or more on axis 0, got shape \(1, 3, 2\)"):
        greedy(step, np.zeros((1, 3, 2)), starts(3), END, 3)
    with pytest.raises(TypeError, match="state: expected None, arrays, or tuples of them, got dict"):
        greedy(step, {"h": 1}, starts(3), END, 3)
