"""Checks of gradients written by hand: of any vjp, of one step in Python, and of any layer like rnncore's.

Use them on your own layers too. They need NumPy alone, nothing of the compiled core, and raise
AssertionError, so they work under any test runner.
"""

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["check_cell", "check_gradients", "check_layer"]

Array = NDArray[Any]
State = Any  # None, one array (D*L, N, H), or a tuple of states


class Layer(Protocol):
    """What `check_layer` expects of a layer; its docstring says what it checks."""

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Named views into `flat_parameters`."""

    @property
    def gradients(self) -> Mapping[str, Array]:
        """Views into `flat_gradients`, of the names and at the places of the parameters."""

    @property
    def flat_parameters(self) -> Array:
        """All parameters, in one contiguous vector."""

    @property
    def flat_gradients(self) -> Array:
        """The gradients of all parameters, summed over the pullbacks called so far."""

    def run(self, x: Any, state: State = None, lengths: ArrayLike | None = None) -> tuple[Any, State]:
        """Return ``(y, state)``."""

    def vjp(
        self, x: Any, state: State = None, lengths: ArrayLike | None = None
    ) -> tuple[tuple[Any, State], Callable[..., tuple[Any, State]]]:
        """Return ``(y, state)`` and ``pullback(dy=None, dstate=None) -> (dx, dstate_0)``."""

    def output_lengths(self, lengths: ArrayLike | None) -> ArrayLike | None:
        """Return the lengths of the output; None if it has no padded steps."""

    def zero_gradients(self) -> None:
        """Set `flat_gradients` to zero."""


# -------------------------------------------------------------------------------------------------- gradients


class Tolerances(NamedTuple):
    """How far to step for a central difference, and how well it must then agree."""

    eps: float
    rtol: float
    atol: float


# The best step is near the cube root of the machine epsilon, where rounding and truncation err alike. In
# float32 it is taken shorter, so that fewer units of a piecewise linear function change sides within it.
_DOUBLE = Tolerances(eps=6e-6, rtol=1e-6, atol=1e-8)
_SINGLE = Tolerances(eps=2e-3, rtol=1e-2, atol=1e-3)


def check_gradients(
    function: Callable[..., tuple[Any, Callable[..., Any]]],
    arguments: Sequence[ArrayLike | None],
    *,
    names: Sequence[str] | None = None,
    rng: np.random.Generator | int | None = None,
    eps: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Check a vector-Jacobian product against central differences, by projection.

    For random directions v of the arguments and random cotangents u of the outputs, compares
    ``<u, (f(a + eps v) - f(a - eps v)) / (2 eps)>`` with ``<vjp(u), v>``: for each argument on its own, then
    for all together. The elements of v are standard normal; u has unit norm, so that tolerances do not depend
    on the size of the outputs.

    Parameters
    ----------
    function : callable, ``function(*arguments) -> (outputs, vjp)``
        `outputs` is an array or a tuple of arrays. `vjp` takes as many cotangents, and returns a gradient for
        each argument, or None for what has no gradient, as indices have none. More of None may follow.
    arguments : sequence of array_like or None
        Where to check. None is passed on, and its gradient not looked at.
    names : sequence of str, optional
        What to call the arguments in messages.
    rng : numpy.random.Generator or int, optional
        Source of the directions; a fixed seed by default, so that a failure repeats.
    eps, rtol, atol : float, optional
        Step and tolerances: the two projections may differ by ``atol + rtol * size``, where size is the
        larger of the expected projection and the norm of the gradient. The defaults go with the coarsest
        type among arguments and outputs: 6e-6, 1e-6, 1e-8 for float64 and 2e-3, 1e-2, 1e-3 for float32.

    Raises
    ------
    AssertionError
        If a gradient disagrees, naming the argument, what was expected and what was got.

    Examples
    --------
    >>> def scaled_sine(a, x):
    ...     return a * np.sin(x), lambda dy: (np.sum(dy * np.sin(x)), a * dy * np.cos(x))
    >>> check_gradients(scaled_sine, [2.0, [0.1, 0.2, 0.3]])

    >>> def wrong(a, x):
    ...     return a * np.sin(x), lambda dy: (np.sum(dy * np.sin(x)), a * dy * np.sin(x))
    >>> check_gradients(wrong, [2.0, [0.1, 0.2, 0.3]], names=["a", "x"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: gradient of x: expected a projection of ...
    """
    rng = np.random.default_rng(0 if rng is None else rng)
    point = [None if a is None else np.asarray(a) for a in arguments]
    names = [f"argument {i}" for i in range(len(point))] if names is None else names

    outputs, vjp = function(*point)
    outputs = [np.asarray(y) for y in _as_tuple(outputs)]
    u = [rng.standard_normal(y.shape) for y in outputs]
    scale = np.sqrt(sum(_dot(u_i, u_i) for u_i in u)) or 1.0  # or: every output is empty
    u = [(u_i / scale).astype(y.dtype) for u_i, y in zip(u, outputs, strict=True)]
    gradients = [None if g is None else np.asarray(g) for g in _as_tuple(vjp(*u))]
    while len(gradients) > len(point) and gradients[-1] is None:  # of what was not given
        gradients.pop()
    _require(len(gradients) == len(point), f"expected {len(point)} gradients from the vjp, got {len(gradients)}")

    start: dict[int, Array] = {}  # the arguments to vary, by their index
    slope: dict[int, Array] = {}  # their gradients
    for i, (a, gradient) in enumerate(zip(point, gradients, strict=True)):
        if a is None or gradient is None:
            continue
        _require(a.dtype.kind == "f", f"{names[i]}: expected floating point, got {a.dtype} with a gradient")
        _require(
            gradient.shape == a.shape,
            f"gradient of {names[i]}: expected shape {a.shape}, got {gradient.shape}",
        )
        start[i], slope[i] = a, gradient
    v = {i: rng.standard_normal(a.shape) for i, a in start.items()}

    default = _default_tolerances([*start.values(), *outputs])
    eps = default.eps if eps is None else eps
    rtol = default.rtol if rtol is None else rtol
    atol = default.atol if atol is None else atol

    subsets = [(names[i], [i]) for i in start]
    if len(start) > 1:
        subsets.append(("all arguments together", list(start)))
    for name, subset in subsets:
        ahead, behind = list(point), list(point)
        got = norm = 0.0
        for i in subset:
            ahead[i] = plus = (start[i] + eps * v[i]).astype(start[i].dtype)
            behind[i] = minus = (start[i] - eps * v[i]).astype(start[i].dtype)
            # Not v, but the step as it was taken, after rounding to the type of the argument.
            got += _dot(slope[i], _difference(plus, minus)) / (2 * eps)
            norm = np.hypot(norm, np.sqrt(_dot(slope[i], slope[i])))
        change = map(_difference, _as_tuple(function(*ahead)[0]), _as_tuple(function(*behind)[0]))
        expected = sum(map(_dot, u, change)) / (2 * eps)
        tolerance = atol + rtol * max(abs(expected), norm)
        _require(
            abs(got - expected) <= tolerance,  # false for NaN
            f"gradient of {name}: expected a projection of {expected:.9g} from central differences, "
            f"got {got:.9g} from the vjp (tolerance {tolerance:.2g})",
        )


def _dot(a: Array, b: Array) -> float:
    return float(np.sum(np.multiply(a, b, dtype=np.float64)))


def _difference(a: ArrayLike, b: ArrayLike) -> Array:
    return np.subtract(a, b, dtype=np.float64)


def _default_tolerances(arrays: Sequence[Array]) -> Tolerances:
    coarsest = max((np.finfo(a.dtype).eps for a in arrays), default=0.0)
    return _DOUBLE if coarsest <= np.finfo(np.float64).eps else _SINGLE


def _as_tuple(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _require(condition: bool | np.bool, message: str) -> None:
    """Assert, also under ``python -O``."""
    if not condition:
        raise AssertionError(message)


# ------------------------------------------------------------------------------------------------------ cells


class Cell(Protocol):
    """What `check_cell` expects of a cell, beside the sizes that are named there."""

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Writable arrays by name."""

    def step(self, x: Array, state: State) -> tuple[Array, State]:
        """Return ``(y, state)``."""

    def step_vjp(self, x: Array, state: State) -> tuple[tuple[Array, State], Callable[..., Any]]:
        """Return ``(y, state)`` and ``pull_back(dy, dstate) -> (dx, dstate, dparameters)``."""


def check_cell(
    cell: Cell,
    x: ArrayLike | None = None,
    state: State = None,
    *,
    rng: np.random.Generator | int | None = None,
    eps: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Check one step of a cell and its vjp, before they are run over time; the cell is left as it was found.

    - ``step_vjp`` returns the very output of ``step``; neither they nor the pull-back change what they are given, nor
      the parameters; and the pull-back gives the same again when it is called again.
    - Output, state and gradients have the shapes and the type of what they belong to, and there is a gradient of every
      parameter.
    - The gradients of x, of the state and of every parameter agree with central differences.
    - A row alone gives, but for rounding, what it gives in its batch.

    Parameters
    ----------
    cell : rnncore.Recurrent, or what has its ``step``, ``step_vjp`` and ``parameters``
        float64 finds errors that float32 hides.
    x : array_like, (n, I), optional
        Input of one step. Default: three rows of the cell's ``input_size`` and ``dtype``, at random.
    state : array_like (n, ...) or tuple of such, optional
        State before it. Default: at random, of the cell's ``state_size``.
    rng, eps, rtol, atol
        As for `check_gradients`.

    Raises
    ------
    AssertionError
        If something is not so, saying what, expected and got.

    Examples
    --------
    >>> import rnncore as rc
    >>> class Wrong(rc.Recurrent):
    ...     def __init__(self, size, **options):
    ...         self.size = size
    ...         super().__init__({"decay": (size,)}, size, size, **options)
    ...
    ...     def step_vjp(self, x, h):
    ...         d = self.parameters["decay"]
    ...         new = np.tanh(x + d * h)
    ...
    ...         def pull_back(dy, dh):
    ...             da = (dy + dh) * (1 - new)  # it is new * new
    ...             return da, d * da, {"decay": (da * h).sum(axis=0)}
    ...
    ...         return (new, new), pull_back
    >>> check_cell(Wrong(4, dtype="float64", rng=0))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: gradient of x: expected a projection of ...
    """
    rng = np.random.default_rng(0 if rng is None else rng)
    of: Any = cell  # has sizes too, if they are needed
    x = rng.standard_normal((3, of.input_size)).astype(of.dtype) if x is None else np.asarray(x)
    if state is None:
        sizes = of.state_size if isinstance(of.state_size, tuple | list) else (of.state_size,)
        shapes = [(len(x), *(size if isinstance(size, tuple | list) else (size,))) for size in sizes]
        parts = tuple(rng.uniform(-0.5, 0.5, shape).astype(x.dtype) for shape in shapes)
        state = parts if isinstance(of.state_size, tuple | list) else parts[0]
    parameters = dict(getattr(cell, "parameters", {}))
    saved = {name: parameter.copy() for name, parameter in parameters.items()}

    output, pull_back = _unchanged("step_vjp", cell.step_vjp, (x, state), parameters)
    _require_like("state from step_vjp", output[1], state)
    _require(np.ndim(output[0]) == 2, f"y from step_vjp: expected (n, O), got {np.shape(output[0])}")
    _require_like("y from step_vjp", output[0], np.empty((len(x), np.shape(output[0])[1]), x.dtype))
    O = getattr(cell, "output_size", None)
    _require(O in (None, output[0].shape[1]), f"y from step_vjp: expected {O} outputs, got {output[0].shape[1]}")
    _require_same(
        "the output of step_vjp and that of step", output, _unchanged("step", cell.step, (x, state), parameters)
    )

    dy, dstate = rng.standard_normal(output[0].shape).astype(x.dtype), _random_like(rng, output[1])
    pulled = _unchanged("the pull-back", pull_back, (dy, dstate), parameters)
    count = len(pulled) if isinstance(pulled, tuple) else type(pulled).__name__
    _require(
        count == 3 or (count == 2 and not saved), f"the pull-back: expected (dx, dstate, dparameters), got {count}"
    )
    _require_like("dx from the pull-back", pulled[0], x)
    _require_like("dstate from the pull-back", pulled[1], state)
    gradients = pulled[2] if count == 3 else {}
    _require(set(gradients) >= set(saved), f"dparameters: expected the names {list(saved)}, got {list(gradients)}")
    for name, parameter in saved.items():
        _require_like(f"dparameters[{name!r}]", gradients[name], parameter)
    again = pull_back(dy, dstate)
    _require_close("the pull-back, called again", [again[0], *_leaves(again[1])], [pulled[0], *_leaves(pulled[1])])

    def function(x: Array, *arrays: Array) -> tuple[tuple[Array, ...], Callable[..., tuple[Any, ...]]]:
        remaining = iter(arrays)
        given = _in_form_of(state, [next(remaining) for _ in _leaves(state)])
        for parameter in parameters.values():
            parameter[...] = next(remaining)
        (y, new), pull_back = cell.step_vjp(x, given)

        def vjp(dy: Array, *dnew: Array) -> tuple[Any, ...]:
            dx, dgiven, *dparameters = pull_back(dy, _in_form_of(new, dnew))
            return dx, *_leaves(dgiven), *(dparameters[0][name] for name in parameters)

        return (y, *_leaves(new)), vjp

    states = [f"state {i}" for i in range(len(_leaves(state)))]
    try:
        check_gradients(
            function,
            [x, *_leaves(state), *saved.values()],
            names=["x", *(states if len(states) > 1 else ["state"]), *saved],
            rng=rng,
            eps=eps,
            rtol=rtol,
            atol=atol,
        )
    finally:
        for name, parameter in parameters.items():
            parameter[...] = saved[name]
    for n in range(len(x)):
        of_row = [leaf[n : n + 1] for leaf in _leaves(state)]
        y, new = cell.step(x[n : n + 1], _in_form_of(state, of_row))
        in_batch = [leaf[n : n + 1] for leaf in (output[0], *_leaves(output[1]))]
        _require_close(f"row {n} alone and in its batch", [y, *_leaves(new)], in_batch)


def _unchanged(title: str, function: Callable[..., Any], arguments: Any, parameters: Mapping[str, Array]) -> Any:
    """Call a function, and require that its arguments and the parameters are then what they were."""
    given = [*_leaves(arguments), *parameters.values()]
    before = [array.copy() for array in given]
    result = function(*arguments)
    names = [f"argument {i}" for i in range(len(given) - len(parameters))] + [
        f"parameters[{name!r}]" for name in parameters
    ]
    for name, array, copied in zip(names, given, before, strict=True):
        _require(np.array_equal(array, copied, equal_nan=True), f"{title}: expected {name} unchanged, got other values")
    return result


def _random_like(rng: np.random.Generator, state: State) -> State:
    return _in_form_of(state, [rng.standard_normal(leaf.shape).astype(leaf.dtype) for leaf in _leaves(state)])


def _require_like(title: str, got: State, expected: State) -> None:
    """Require the form, the shapes and the types of another array or tuple of arrays."""
    described = [
        [
            (str(leaf.dtype), leaf.shape) if isinstance(leaf, np.ndarray) else type(leaf).__name__
            for leaf in _leaves(each)
        ]
        for each in (got, expected)
    ]
    same_form = isinstance(got, tuple) == isinstance(expected, tuple)
    _require(same_form and described[0] == described[1], f"{title}: expected {described[1]}, got {described[0]}")


# ----------------------------------------------------------------------------------------------------- layers


def check_layer(
    layer: Layer,
    x: Array,
    *,
    state: State = None,
    lengths: ArrayLike | None = None,
    causal: bool = True,
    batch_first: bool = True,
    rng: np.random.Generator | int | None = None,
    eps: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Check everything that is promised of a layer; it is left as it was found.

    - ``parameters`` and ``gradients`` are views that cover ``flat_parameters`` and ``flat_gradients``, each
      element once and at the same place in both.
    - ``layer.vjp(x)`` returns the very output of ``layer.run(x)``, and padded steps of it are zero, whatever is in
      those of the input.
    - The gradients of `x` (unless it holds integers), of the initial state and of every parameter agree with central
      differences.
    - A pullback adds into ``gradients``, a second call adds again, ``zero_gradients`` forgets; a cotangent of
      None is zero.
    - A row alone gives the very bits of the row in its batch, and a sequence cut in two those of the whole.
    - Copies by pickle and `copy.deepcopy` give the very same outputs, and keep all this for themselves.

    Parameters
    ----------
    layer : Layer
        The layer to check; any floating type, without dropout.
    x : ndarray, (N, T, ...), or (T, N, ...) if not `batch_first`
        Its input. Keep it small: the layer is run a few times per parameter array and per row.
    state : None, ndarray or tuple of ndarray, each (D*L, N, H), optional
        The initial state; random by default.
    lengths : array_like of int, (N,), optional
        Valid steps of each row; all by default.
    causal : bool, default True
        Whether outputs depend on no later input. False for a bidirectional layer: it cannot be cut in time.
    batch_first : bool, default True
        Whether `x` begins with N or with T.
    rng, eps, rtol, atol
        As for `check_gradients`.

    Raises
    ------
    AssertionError
        If a promise is broken, saying which.

    Examples
    --------
    >>> import rnncore as rc
    >>> x = np.random.default_rng(0).standard_normal((2, 5, 3))
    >>> check_layer(rc.GRU(3, 4, num_layers=2, dtype="float64", rng=0), x, lengths=[5, 3])
    """
    rng = np.random.default_rng(0 if rng is None else rng)
    lengths = None if lengths is None else np.asarray(lengths)
    if state is None:
        final = layer.run(x, None, lengths)[1]
        state = _in_form_of(final, [rng.uniform(-0.5, 0.5, s.shape).astype(s.dtype) for s in _leaves(final)])
    case = _Case(x, state, lengths, batch_axis=0 if batch_first else 1)
    with _restored(layer):
        _check_views(layer)
    with _restored(layer):
        _check_inference(layer, case)
        _check_accumulation(layer, case, rng)
        _check_layer_gradients(layer, case, rng, eps, rtol, atol)
        _check_rows(layer, case)
        if causal:
            _check_chunks(layer, case)
        _check_copies(layer, case)


class _Case(NamedTuple):
    """Arguments for a layer."""

    x: Array
    state: State
    lengths: Array | None
    batch_axis: int

    @property
    def time_axis(self) -> int:
        return 1 - self.batch_axis

    def run(self, layer: Layer) -> tuple[Array, State]:
        return layer.run(self.x, self.state, self.lengths)

    def vjp(self, layer: Layer) -> tuple[tuple[Array, State], Callable[..., tuple[Array | None, State]]]:
        return layer.vjp(self.x, self.state, self.lengths)

    def row(self, n: int) -> "_Case":
        """Return the row alone, as a batch of one."""
        state = _in_form_of(self.state, [s[:, n : n + 1] for s in _leaves(self.state)])
        lengths = None if self.lengths is None else self.lengths[n : n + 1]
        return self._replace(x=self.x.take([n], axis=self.batch_axis), state=state, lengths=lengths)

    def steps(self, start: int, stop: int, state: State) -> "_Case":
        """Return the steps from `start` to `stop`, beginning in `state`."""
        lengths = None if self.lengths is None else np.clip(self.lengths - start, 0, stop - start)
        return self._replace(x=self.x.take(range(start, stop), axis=self.time_axis), state=state, lengths=lengths)


def _leaves(state: State) -> tuple[Array, ...]:
    """Return the arrays of a state, in order."""
    if state is None:
        return ()
    if isinstance(state, tuple):
        return tuple(leaf for part in state for leaf in _leaves(part))
    return (state,)


def _in_form_of(state: State, arrays: Sequence[Array]) -> State:
    """Return `arrays` in the form of `state`: None, one array, or a tuple of such."""
    remaining = iter(arrays)

    def formed(part: State) -> State:
        if part is None:
            return None
        return tuple(map(formed, part)) if isinstance(part, tuple) else next(remaining)

    return formed(state)


@contextmanager
def _restored(layer: Layer) -> Iterator[None]:
    saved = layer.flat_parameters.copy(), layer.flat_gradients.copy()
    try:
        yield
    finally:
        layer.flat_parameters[...], layer.flat_gradients[...] = saved


def _check_views(layer: Layer) -> None:
    for kind in ("parameters", "gradients"):
        flat, views = getattr(layer, f"flat_{kind}"), getattr(layer, kind)
        _require(flat.ndim == 1 and flat.flags.c_contiguous, f"flat_{kind}: expected 1-D and contiguous")
        flat[...] = np.arange(flat.size)  # each element gets its own value, which must show in the views
        shown = np.concatenate([flat[:0], *(view.ravel() for view in views.values())])
        _require(
            np.array_equal(np.sort(shown), flat),
            f"{kind}: expected views that cover flat_{kind}, each element once",
        )
    _require(
        list(layer.parameters) == list(layer.gradients),
        f"gradients: expected the names {list(layer.parameters)}, got {list(layer.gradients)}",
    )
    for name, parameter in layer.parameters.items():
        _require(
            np.array_equal(parameter, layer.gradients[name]),
            f"gradients[{name!r}]: expected the shape and the place of parameters[{name!r}]",
        )


def _check_inference(layer: Layer, case: _Case) -> None:
    y, final = case.run(layer)
    _require_same("the output of vjp and that of inference", case.vjp(layer)[0], (y, final))
    if case.lengths is None:
        return
    if layer.output_lengths(case.lengths) is not None:
        rows = np.moveaxis(y, case.batch_axis, 0)
        for n, length in enumerate(case.lengths):
            _require(not np.any(rows[n, length:]), f"padded steps of y: expected zero, got others in row {n}")
    rubbish = case.x.copy()
    for n, length in enumerate(case.lengths):
        np.moveaxis(rubbish, case.batch_axis, 0)[n, length:] = np.nan if case.x.dtype.kind == "f" else -1
    _require_same("outputs with and without rubbish at padded steps", case._replace(x=rubbish).run(layer), (y, final))


def _check_accumulation(layer: Layer, case: _Case, rng: np.random.Generator) -> None:
    (y, final), pullback = case.vjp(layer)
    dy = rng.standard_normal(y.shape).astype(y.dtype)
    dstate = _in_form_of(final, [rng.standard_normal(s.shape).astype(s.dtype) for s in _leaves(final)])

    def pulled(*cotangents: Any) -> list[Array]:
        dx, dstate_0 = pullback(*cotangents)
        inputs = [*_leaves(dx), *_leaves(dstate_0)]
        return [*inputs, layer.flat_gradients.copy()]

    def pulled_afresh(*cotangents: Any) -> list[Array]:
        layer.zero_gradients()
        _require(not layer.flat_gradients.any(), "zero_gradients: expected zero gradients")
        return pulled(*cotangents)

    once = pulled_afresh(dy, dstate)
    *inputs, total = pulled(dy, dstate)
    _require_close("a second call of the pullback", inputs, once[:-1])
    _require_close("gradients after a second call, which adds again", [total], [2 * once[-1]])
    # A pullback is linear, so the parts of a cotangent, each with None for the other, add up to the whole.
    parts = zip(pulled_afresh(dy, None), pulled_afresh(None, dstate), strict=True)
    _require_close("None as a cotangent, which stands for zero", [a + b for a, b in parts], once)
    _require_close("a pullback of nothing", pulled_afresh(), [np.zeros_like(d) for d in once])


def _check_layer_gradients(
    layer: Layer,
    case: _Case,
    rng: np.random.Generator,
    eps: float | None,
    rtol: float | None,
    atol: float | None,
) -> None:
    initial = _leaves(case.state)
    inputs = [case.x] if case.x.dtype.kind == "f" else []  # integers have no gradient

    def function(*arrays: Array) -> tuple[tuple[Array, ...], Callable[..., tuple[Any, ...]]]:
        remaining = iter(arrays)
        x = next(remaining) if inputs else case.x
        state = _in_form_of(case.state, [next(remaining) for _ in initial])
        for parameter in layer.parameters.values():
            parameter[...] = next(remaining)
        (y, final), pullback = case._replace(x=x, state=state).vjp(layer)

        def vjp(dy: Array, *dstate: Array) -> tuple[Any, ...]:
            layer.zero_gradients()
            dx, dstate_0 = pullback(dy, _in_form_of(final, dstate))
            gradients = (gradient.copy() for gradient in layer.gradients.values())
            return *_leaves(dx), *_leaves(dstate_0), *gradients

        return (y, *_leaves(final)), vjp

    with _restored(layer):
        check_gradients(
            function,
            [*inputs, *initial, *(parameter.copy() for parameter in layer.parameters.values())],
            names=[
                *("x" for _ in inputs),
                *(f"initial state {i}" for i in range(len(initial))),
                *layer.parameters,
            ],
            rng=rng,
            eps=eps,
            rtol=rtol,
            atol=atol,
        )


def _check_rows(layer: Layer, case: _Case) -> None:
    y, final = case.run(layer)
    for n in range(case.x.shape[case.batch_axis]):
        # An output has the axes of an input, so it is cut into rows in the same way.
        row = case._replace(x=y, state=final).row(n)
        _require_same(f"row {n} alone and in its batch", case.row(n).run(layer), (row.x, row.state))


def _check_chunks(layer: Layer, case: _Case) -> None:
    T = case.x.shape[case.time_axis]
    for cut in sorted({T // 2, T - 1} - {-1, 0}):
        y_1, state = case.steps(0, cut, case.state).run(layer)
        y_2, final = case.steps(cut, T, state).run(layer)
        y = np.concatenate([y_1, y_2], axis=case.time_axis)
        _require_same(f"a sequence cut after {cut} steps and the whole", (y, final), case.run(layer))


def _check_copies(layer: Layer, case: _Case) -> None:
    for kind, twin in (("pickle", pickle.loads(pickle.dumps(layer))), ("deepcopy", copy.deepcopy(layer))):
        _require_same(f"a copy by {kind} and its original", case.run(twin), case.run(layer))
        _require(
            not np.shares_memory(twin.flat_parameters, layer.flat_parameters),
            f"a copy by {kind}: expected parameters of its own",
        )
        _check_views(twin)


def _require_same(title: str, got: tuple[Array, State], expected: tuple[Array, State]) -> None:
    """Require two outputs (y, state) of a layer to be equal, bit by bit."""
    for part, a, b in (
        ("y", (got[0],), (expected[0],)),
        ("state", _leaves(got[1]), _leaves(expected[1])),
    ):
        for a_i, b_i in zip(a, b, strict=True):
            np.testing.assert_array_equal(a_i, b_i, err_msg=f"{title}: {part} differs", strict=True)


def _require_close(title: str, got: Sequence[Array], expected: Sequence[Array]) -> None:
    """Require equality but for rounding: the order of a sum may differ."""
    for a, b in zip(got, expected, strict=True):
        atol = 1e3 * np.finfo(b.dtype).eps * max(1.0, float(np.max(np.abs(b), initial=0.0)))
        np.testing.assert_allclose(a, b, rtol=0.0, atol=atol, err_msg=title)
