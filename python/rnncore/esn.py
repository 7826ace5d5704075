"""Echo state networks: a fixed random reservoir, and a linear read-out of its states that is solved for.

The reservoir (Jaeger 2001; with leaky units Jaeger, Lukosevicius, Popovici & Siewert 2007) has H units, in float64:

    x_t = (1 - leak) x_{t-1} + leak tanh(W_in u_t + W x_{t-1} + b),    y_t = W_out x_t + c

W is sparse. Only W_out and c are learnt, by ridge regression (Lukosevicius 2012): in one pass over the data, whose
states are never all in memory.
"""

from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from rnncore import _core
from rnncore._arguments import count, number
from rnncore._conversion import Array, as_array
from rnncore._estimator import as_series, as_targets, finite
from rnncore.affine import linear
from rnncore.sparse import CSR, as_csr, random_csr, spectral_radius

__all__ = ["ESN"]

_FLOAT64 = np.dtype(np.float64)
_CHUNK_ROWS = 2048  # states at a time: 8 MB with 500 units
_TOPOLOGIES = ("diagonals", "random")


class ESN:
    """Echo state network, an estimator: `fit` and `predict` series of any lengths.

    Arguments of the constructor are kept as they are and looked at by `fit`, as scikit-learn's `clone` and its searches
    need it; scikit-learn itself is not needed.

    Parameters
    ----------
    units : int
        H. Of weights that are given, their own number counts.
    spectral_radius : float
        Largest magnitude of an eigenvalue of W, at least 0.
    leak : float
        Share of a unit's state that is new at each step, in (0, 1].
    density : float
        Share of W that is not zero, in (0, 1]. Every unit hears from equally many, at least one.
    input_scaling : float
        W_in is uniform from minus this to this.
    bias_scaling : float
        And b from minus this to this.
    input_density : float
        Share of W_in that is not zero, in (0, 1].
    ridge : float
        Penalty of the square of W_out in the sum of squared errors, at least 0. c has none.
    intercept : bool
        Whether there is a c.
    washout : int
        First steps of every series that `fit` does not learn from, since their states tell of the start, at least 0.
    topology : {"random", "diagonals"}
        Where W is not zero: at random places of each row, or at random cyclic diagonals, so that unit i hears from
        units i + d modulo H for a set of random d that all share. The numbers are random in both. See Notes.
    w_in : array_like, (H, I), optional
        W_in. Weights that are given are taken as they are, whatever the parameters above. Default: drawn.
    w : array_like (H, H), or (data, indices, indptr), or a SciPy CSR matrix, optional
        W. Default: drawn.
    bias : array_like, (H,), optional
        b. Default: drawn.
    rng : int, numpy.random.Generator or None
        Where drawn weights come from; those of a number are the same every time.

    Attributes
    ----------
    w_in_ : ndarray, (H, I)
    w_ : CSR
        ``(data, indices, indptr)``: row i has ``data[indptr[i]:indptr[i + 1]]``.
    bias_ : ndarray, (H,)
    coef_ : ndarray, (O, H)
        W_out.
    intercept_ : ndarray, (O,)
        c.
    n_features_in_ : int
        I.

    Notes
    -----
    Diagonals let a step go through W without a look-up for each of its numbers, which makes it several times as fast.
    They make networks as good as random places do (`benchmarks/esn.py` has the errors of both), as Rodan & Tino (2011)
    found of reservoirs with still less chance in them.

    A series gives the same bits alone or among others, in one call or in several that hand on the state, on one thread
    or many. Several series run on several threads.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> u = np.random.default_rng(0).uniform(-1, 1, (1000, 1))
    >>> y = np.roll(u[:, 0], 3)  # what was three steps ago
    >>> esn = rc.ESN(100, input_scaling=0.1, ridge=1e-8, washout=50, rng=0).fit(u[:800], y[:800])
    >>> before, state = esn.predict(u[:800], return_state=True)
    >>> bool(np.abs(esn.predict(u[800:], state=state) - y[800:]).max() < 0.01)
    True
    """

    n_features_in_: int
    w_in_: Array
    w_: CSR
    bias_: Array
    coef_: Array
    intercept_: Array

    def __init__(
        self,
        units: int = 500,
        *,
        spectral_radius: float = 0.9,
        leak: float = 1.0,
        density: float = 0.1,
        input_scaling: float = 1.0,
        bias_scaling: float = 0.0,
        input_density: float = 1.0,
        ridge: float = 1e-6,
        intercept: bool = True,
        washout: int = 100,
        topology: str = "random",
        w_in: ArrayLike | None = None,
        w: Any = None,
        bias: ArrayLike | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self.units = units
        self.spectral_radius = spectral_radius
        self.leak = leak
        self.density = density
        self.input_scaling = input_scaling
        self.bias_scaling = bias_scaling
        self.input_density = input_density
        self.ridge = ridge
        self.intercept = intercept
        self.washout = washout
        self.topology = topology
        self.w_in = w_in
        self.w = w
        self.bias = bias
        self.rng = rng

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments of the constructor by name; `deep` changes nothing."""
        return {name: getattr(self, name) for name in signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Set arguments of the constructor, for the next `fit`; ValueError if there is none of a name."""
        names = signature(type(self)).parameters
        for name, value in params.items():
            if name not in names:
                raise ValueError(f"{name}: expected one of {list(names)}")
            setattr(self, name, value)
        return self

    def draw(self, inputs: int) -> Self:
        """Draw the weights of the reservoir, or take those that were given, without learning anything.

        Parameters
        ----------
        inputs : int
            I.

        Returns
        -------
        ESN
            Itself, ready for `states`.

        Raises
        ------
        ValueError, TypeError
            If an argument of the constructor does not fit, naming it.
        """
        I, H = count("inputs", inputs), count("units", self.units)
        leak, density = number("leak", self.leak, "in (0, 1]"), number("density", self.density, "in (0, 1]")
        input_density = number("input_density", self.input_density, "in (0, 1]")
        radius = number("spectral_radius", self.spectral_radius, "finite and >= 0")
        input_scaling = number("input_scaling", self.input_scaling, "finite and >= 0")
        bias_scaling = number("bias_scaling", self.bias_scaling, "finite and >= 0")
        if self.topology not in _TOPOLOGIES:
            raise ValueError(f"topology: expected one of {_TOPOLOGIES}, got {self.topology!r}")
        w = None if self.w is None else as_csr("w", self.w)
        w_in = None if self.w_in is None else finite("w_in", as_array("w_in", self.w_in, _FLOAT64))
        bias = None if self.bias is None else finite("bias", as_array("bias", self.bias, _FLOAT64))
        if w is not None:
            H = w.indptr.size - 1
        elif w_in is not None and w_in.ndim == 2:
            H = w_in.shape[0]
        if w_in is not None and w_in.shape != (H, I):
            raise ValueError(f"w_in: expected ({H}, {I}), got {w_in.shape}")
        if bias is not None and bias.shape != (H,):
            raise ValueError(f"bias: expected ({H},), got {bias.shape}")

        rng = np.random.default_rng(self.rng)
        if w is None:
            w = random_csr(H, density, self.topology, rng)
            drawn = spectral_radius(w)
            w = w._replace(data=w.data * (radius / drawn if drawn > 0 else 0.0))
        if w_in is None:
            w_in = rng.uniform(-input_scaling, input_scaling, (H, I))
            w_in[rng.random((H, I)) >= input_density] = 0
        if bias is None:
            bias = rng.uniform(-bias_scaling, bias_scaling, H)
        self.n_features_in_, self.w_in_, self.w_, self.bias_ = I, w_in, w, bias
        self._leak = leak
        self._packed: tuple[str, _core.Reservoir] | None = None
        return self

    def fit(self, X: ArrayLike | Sequence[ArrayLike], y: ArrayLike | Sequence[ArrayLike]) -> Self:
        """Draw the reservoir, or take the weights that were given, run it, and solve for the read-out.

        Parameters
        ----------
        X : array_like, (T, I) or (N, T, I), or a list of N arrays (T_n, I)
            One series, or several. Finite numbers.
        y : array_like, (T, O) or (N, T, O), or a list of N arrays (T_n, O); or each without its last axis
            Targets of all steps.

        Returns
        -------
        ESN
            Itself.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit, here or in the constructor, naming it, what was expected and what came; or if
            no step is left after the washout.
        """
        ridge, washout = number("ridge", self.ridge, "finite and >= 0"), count("washout", self.washout, 0)
        series, kind = as_series(X)
        targets, flat = as_targets(y, series, kind)
        self.draw(series[0].shape[1])
        O, H = targets[0].shape[1], self.bias_.size

        # Sums over steps of z z' and z y' with z = (x, 1).
        squares, products, steps = np.zeros((H + 1, H + 1)), np.zeros((H + 1, O)), 0
        for begin, lengths, states, _ in self._run(series, None):
            part = [target[begin : begin + n] for target, n in zip(targets, lengths, strict=True)]
            wanted = np.concatenate(part)
            if begin < washout:
                kept = np.concatenate([np.arange(begin, begin + n) >= washout for n in lengths])
                states, wanted = states[kept], wanted[kept]
            squares[:H, :H] += states.T @ states
            squares[:H, H] += states.sum(axis=0)
            products[:H] += states.T @ wanted
            products[H] += wanted.sum(axis=0)
            steps += len(states)
        if steps == 0:
            raise ValueError(f"washout: expected fewer steps than the longest series has, got {washout}")
        squares[H, :H], squares[H, H] = squares[:H, H], steps
        squares[np.arange(H), np.arange(H)] += ridge
        size = H + bool(self.intercept)
        solution = np.zeros((H + 1, O))
        try:
            solution[:size] = np.linalg.solve(squares[:size, :size], products[:size])
        except np.linalg.LinAlgError:  # without a ridge, where units do all the same: the smallest of the solutions
            solution[:size] = np.linalg.lstsq(squares[:size, :size], products[:size])[0]
        self._flat_targets = flat
        self.coef_, self.intercept_ = np.ascontiguousarray(solution[:H].T), solution[H].copy()
        return self

    def predict(
        self, X: ArrayLike | Sequence[ArrayLike], *, state: ArrayLike | None = None, return_state: bool = False
    ) -> Any:
        """Return what the read-out makes of every step, those of the washout included.

        Parameters
        ----------
        X : array_like, (T, I) or (N, T, I), or a list of N arrays (T_n, I)
            One series, or several.
        state : array_like, (H,), or (N, H) for several series, optional
            The state before the first step, as an earlier call returned it. Default: zeros.
        return_state : bool
            Whether to return the state after the last step, too.

        Returns
        -------
        y : ndarray, (T, O) or (N, T, O), or a list of N arrays (T_n, O)
            As X came; without the last axis if the targets of `fit` had none.
        state : ndarray, (H,) or (N, H)
            If wanted.

        Raises
        ------
        AttributeError
            If there has been no `fit`.
        ValueError, TypeError
            If an argument does not fit, naming it, what was expected and what came.
        """
        coef, intercept = self.coef_, self.intercept_
        return self._mapped(X, state, return_state, lambda states: linear(states, coef, intercept), self._flat_targets)

    def states(
        self, X: ArrayLike | Sequence[ArrayLike], *, state: ArrayLike | None = None, return_state: bool = False
    ) -> Any:
        """Return the states after every step, (T, H) or (N, T, H) or a list; otherwise as `predict` does.

        Raises
        ------
        AttributeError
            If there has been neither `fit` nor `draw`.
        ValueError, TypeError
            If an argument does not fit, naming it, what was expected and what came.
        """
        return self._mapped(X, state, return_state, None, False)

    def _mapped(self, X: Any, state: Any, return_state: bool, read_out: Any, flat: bool) -> Any:
        series, kind = as_series(X)
        if series[0].shape[1] != self.n_features_in_:
            raise ValueError(f"X: expected I = {self.n_features_in_} inputs, got {series[0].shape[1]}")
        H = self.bias_.size
        first = None if state is None else finite("state", as_array("state", state, _FLOAT64))
        wanted = (H,) if kind == "one" else (len(series), H)
        if first is not None and first.shape != wanted:
            raise ValueError(f"state: expected {wanted}, got {first.shape}")
        last = np.zeros((len(series), H)) if first is None else first.reshape(len(series), H).copy()
        lengths = np.array([len(x) for x in series], np.int64)
        results: Any
        if read_out is None:  # all at once, as they come from the core
            states, last = self._reservoir().run(np.concatenate(series), lengths, last)
            if kind == "batch":
                states = states.reshape(len(series), -1, H)
            results = list(np.split(states, np.cumsum(lengths)[:-1])) if kind == "list" else states
        else:
            results = [np.empty((n, self.coef_.shape[0])) for n in lengths]
            for begin, counts, states, after in self._run(series, last):
                last = after
                for result, part in zip(results, np.split(read_out(states), np.cumsum(counts)[:-1]), strict=True):
                    result[begin : begin + len(part)] = part
            if flat:
                results = [result[:, 0] for result in results]
            results = results[0] if kind == "one" else results if kind == "list" else np.stack(results)
        return (results, last[0] if kind == "one" else last) if return_state else results

    def _run(self, series: list[Array], state: Array | None) -> Iterator[tuple[int, list[int], Array, Array]]:
        """Take all series through the reservoir, so many steps at a time.

        Yields the first of these steps, how many there are of each series, their states one series after the other,
        and the states of all series after them.
        """
        reservoir, steps = self._reservoir(), max(1, _CHUNK_ROWS // len(series))
        for begin in range(0, max(map(len, series)), steps):
            parts = [x[begin : begin + steps] for x in series]
            lengths = [len(part) for part in parts]
            rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
            states, state = reservoir.run(rows, np.array(lengths, np.int64), state)
            yield begin, lengths, states, state

    def _reservoir(self) -> _core.Reservoir:
        """Return the reservoir packed for the instruction set that is in use."""
        isa = _core.active_isa()
        if self._packed is None or self._packed[0] != isa:
            self._packed = isa, _core.Reservoir(self.w_in_, self.bias_, *self.w_, self._leak)
        return self._packed[1]

    def __getstate__(self) -> dict[str, Any]:
        """Return all but what is packed."""
        state = self.__dict__.copy()
        if "_packed" in state:
            state["_packed"] = None
        return state

    def __repr__(self) -> str:
        """Return the constructor's call, with what is not at its default."""
        defaults = {name: parameter.default for name, parameter in signature(type(self)).parameters.items()}
        shown = {name: value for name, value in self.get_params().items() if value is not defaults[name]}
        return f"ESN({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
