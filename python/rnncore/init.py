"""Initialisation: functions that refill the parameters of layers in place.

They take anything with a `parameters` mapping, a layer or a model, and go by the last part of each name:
``weight_ih*``, ``weight_hh*``, ``bias_ih*``, ``bias_hh*`` are of a recurrent layer, ``weight`` (out, in) and ``bias``
of a linear one, and so are ``weight_input1*``, ``weight_output1*`` and so on, with their biases, of a recurrent layer.
Embeddings, normalisations and the parameters of options keep what they have. The number of gates G is read off the
shape (G*H, H) of ``weight_hh*``; the matrices of further transitions, ``weight_transition*``, are as that one. Random
ones need their `rng`, a generator or a seed, and draw in the order of the parameters, so a seed means the same values,
in any dtype.

Layers come initialised as `uniform` does it.
"""

from __future__ import annotations  # np.random in annotations would import it

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rnncore.attention import Attention
from rnncore.feedforward import Embedding
from rnncore.models import Container
from rnncore.recurrent import _Recurrent
from rnncore.rowwise import LayerNorm
from rnncore.trees import BinaryTreeLSTM

__all__ = ["Parameterised", "forget_bias", "glorot", "identity", "orthogonal", "uniform"]

Array = NDArray[Any]

_RECURRENT = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_LINEAR = ("weight", "bias")


class Parameterised(Protocol):
    """What can be initialised: a layer, or a model of layers."""

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Writable arrays by name."""


class _Parameter(NamedTuple):
    """A parameter and what its name says."""

    name: str
    kind: str  # weight_ih, ..., weight or bias
    array: Array
    size: int  # hidden units of a recurrent layer, inputs of a linear one
    gates: int = 1  # in the rows of a recurrent layer's

    @property
    def recurrent(self) -> bool:
        return self.kind in _RECURRENT


def _read(layer: Parameterised) -> list[_Parameter]:
    """Return all parameters but those of embeddings and normalisations, which are neither recurrent nor linear.

    ValueError if there is one that this module does not know.
    """
    if isinstance(layer, Container):
        inner = ((f"{index}.", part) for index, part in layer.distinct() if part.parameters)
        return [parameter._replace(name=prefix + parameter.name) for prefix, part in inner for parameter in _read(part)]
    if isinstance(layer, Embedding | LayerNorm):
        return []
    if isinstance(layer, Attention):
        return _read_attention(layer)
    if isinstance(layer, BinaryTreeLSTM) or (isinstance(layer, _Recurrent) and not layer._plain):
        return _read_recurrent(layer)
    parameters = getattr(layer, "parameters", None)
    if not isinstance(parameters, Mapping):
        raise TypeError(f"layer: expected something with a mapping `parameters`, got {type(layer).__name__}")
    found = []
    for name, array in parameters.items():
        path, dot, last = name.rpartition(".")
        kind = last if last in _LINEAR else next((kind for kind in _RECURRENT if last.startswith(kind)), None)
        if kind is None:
            raise ValueError(f"parameters[{name!r}]: expected names that begin or end in {_RECURRENT + _LINEAR}")
        weight = path + dot + ("weight" if kind in _LINEAR else "weight_hh" + last.removeprefix(kind))
        if weight not in parameters:
            raise ValueError(f"parameters[{name!r}]: expected {weight!r} beside it, got {list(parameters)}")
        of_networks: Any = [...] if getattr(layer, "models", None) is None else range(len(array))
        shape = parameters[weight][of_networks[0]].shape
        if len(shape) != 2 or (kind in _RECURRENT and (shape[1] == 0 or shape[0] % shape[1])):
            expected = "(G*H, H)" if kind in _RECURRENT else "(out, in)"
            raise ValueError(f"parameters[{name!r}]: expected a weight {expected} with it, got {shape}")
        gates = shape[0] // shape[1] if kind in _RECURRENT else 1
        found += [_Parameter(name, kind, array[m], shape[1], gates) for m in of_networks]
    return found


def _read_recurrent(layer: _Recurrent | BinaryTreeLSTM) -> list[_Parameter]:
    """Return the matrices and biases of a layer that may have more than those, which keep what they have."""
    H, found = layer.hidden_size, []
    for name, array in layer.parameters.items():
        kind = "_".join(name.split("_")[:2])
        kind = "weight_hh" if kind.startswith("weight_transition") else kind
        linear = re.match(r"(weight|bias)(_(?:in|out)put\d.*)", name)
        if linear is not None:
            found.append(_Parameter(name, linear[1], array, layer.parameters["weight" + linear[2]].shape[1]))
            continue
        if kind not in _RECURRENT or (kind == "weight_hh" and array.ndim == 1):
            continue
        found.append(_Parameter(name, kind, array, H, len(array) // H))
    return found


def _read_attention(layer: Attention) -> list[_Parameter]:
    """Return the matrices and biases of an attention, which are those of affine maps; not the vector of scores."""
    p = layer.parameters
    found = [_Parameter(name, "weight", array, array.shape[1]) for name, array in p.items() if array.ndim == 2]
    for bias, weight in (("bias_combine", "weight_combine"), ("bias_attention", "weight_memory")):
        if bias in p:
            found.append(_Parameter(bias, "bias", p[bias], p[weight].shape[1]))
    return found


def _generator(rng: np.random.Generator | int) -> np.random.Generator:
    if isinstance(rng, np.random.Generator | int | np.integer) and not isinstance(rng, bool):
        return np.random.default_rng(rng)
    raise TypeError(f"rng: expected a numpy.random.Generator or a seed, got {type(rng).__name__}")


def _finite(name: str, value: float) -> float:
    if not np.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def _some(parameters: list[_Parameter], layer: Parameterised, expected: str) -> list[_Parameter]:
    if not parameters:
        names = {name: array.shape for name, array in layer.parameters.items()}
        raise ValueError(f"layer: expected {expected}, got {names}")
    return parameters


def uniform(layer: Parameterised, rng: np.random.Generator | int) -> None:
    """Draw every parameter from a uniform distribution, as torch.nn and the constructors here do.

    Those of recurrent layers in +-1/sqrt(H), those of linear layers in +-1/sqrt(in).

    Parameters
    ----------
    layer : layer or model
        Its parameters are overwritten.
    rng : numpy.random.Generator or int
        Source of the values.

    Raises
    ------
    ValueError, TypeError
        If a parameter is neither of a recurrent layer nor of a linear one, or `rng` is None.

    Examples
    --------
    >>> import rnncore as rc
    >>> layer = rc.GRU(3, 4)
    >>> rc.init.uniform(layer, rng=0)
    >>> bool((layer.flat_parameters == rc.GRU(3, 4, rng=0).flat_parameters).all())
    True
    """
    generator = _generator(rng)
    for parameter in _some(_read(layer), layer, "parameters"):
        bound = 1.0 / np.sqrt(parameter.size)
        parameter.array[...] = generator.uniform(-bound, bound, parameter.array.shape)


def glorot(layer: Parameterised, rng: np.random.Generator | int, recurrent: bool = True) -> None:
    """Draw weights from uniform distributions that keep the variance of signals; biases are zero.

    In +-sqrt(6 / (in + out)) (Glorot & Bengio 2010), each gate's block of a recurrent layer by itself: out = H, and in
    is I for ``weight_ih`` and H for ``weight_hh``.

    Parameters
    ----------
    layer : layer or model
        Its parameters are overwritten.
    rng : numpy.random.Generator or int
        Source of the values.
    recurrent : bool
        Whether ``weight_hh`` is drawn too; it is left as it is otherwise, for `orthogonal` or `identity`.

    Raises
    ------
    ValueError, TypeError
        If a parameter is neither of a recurrent layer nor of a linear one, or `rng` is None.

    Examples
    --------
    >>> import rnncore as rc
    >>> layer = rc.LSTM(3, 4)
    >>> rc.init.glorot(layer, rng=0)
    >>> bool(abs(layer.parameters["weight_ih_l0"]).max() <= (6 / 7) ** 0.5)
    True
    >>> layer.parameters["bias_ih_l0"].any()
    np.False_
    """
    generator = _generator(rng)
    for parameter in _some(_read(layer), layer, "parameters"):
        if parameter.kind.startswith("bias"):
            parameter.array[...] = 0
        elif recurrent or parameter.kind != "weight_hh":
            rows, columns = parameter.array.shape
            bound = np.sqrt(6.0 / (columns + rows // parameter.gates))
            parameter.array[...] = generator.uniform(-bound, bound, parameter.array.shape)


def orthogonal(layer: Parameterised, rng: np.random.Generator | int, gain: float = 1.0) -> None:
    """Make each gate's H x H block of ``weight_hh`` a random orthogonal matrix times `gain` (Saxe et al. 2013).

    Nothing else is touched. The blocks are uniformly distributed: the Q of normal matrices, with the signs that make
    the diagonal of R positive.

    Parameters
    ----------
    layer : layer or model
        The recurrent weights of every recurrent layer in it are overwritten.
    rng : numpy.random.Generator or int
        Source of the values.
    gain : float
        All singular values of a block.

    Raises
    ------
    ValueError, TypeError
        If there are no recurrent weights, `gain` is not finite, or `rng` is None.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.GRU(3, 4, dtype="float64")
    >>> rc.init.orthogonal(layer, rng=0)
    >>> block = layer.parameters["weight_hh_l0"][:4]
    >>> np.allclose(block @ block.T, np.eye(4))
    True
    """
    generator, gain = _generator(rng), _finite("gain", gain)
    weights = [parameter for parameter in _read(layer) if parameter.kind == "weight_hh"]
    for parameter in _some(weights, layer, "a recurrent layer's weight_hh"):
        rows, columns = parameter.size, parameter.array.shape[1]  # fewer columns if h is projected
        for block in parameter.array.reshape(parameter.gates, rows, columns):
            q, r = np.linalg.qr(generator.standard_normal((rows, columns)))
            block[...] = gain * q * np.where(np.diagonal(r) < 0, -1.0, 1.0)


def forget_bias(layer: Parameterised, value: float = 1.0) -> None:
    """Set the bias of the forget gates of LSTMs and Tree-LSTMs: they begin by remembering (Gers et al. 2000).

    The two biases of a gate are added, so that of ``bias_ih`` becomes `value` and that of ``bias_hh`` zero. Nothing
    else is touched.

    Parameters
    ----------
    layer : layer or model
        The forget biases of every LSTM layer in it are overwritten.
    value : float
        Of the sum of both.

    Raises
    ------
    ValueError
        If there are no biases of an LSTM layer, or `value` is not finite.

    Examples
    --------
    >>> import rnncore as rc
    >>> layer = rc.LSTM(3, 2)
    >>> rc.init.forget_bias(layer)
    >>> layer.parameters["bias_ih_l0"][2:4]
    array([1., 1.], dtype=float32)
    """
    value = _finite("value", value)
    biases = [p for p in _read(layer) if p.kind in ("bias_ih", "bias_hh") and p.gates in (4, 5)]
    for parameter in _some(biases, layer, "biases of an LSTM layer, (4*H,)"):
        H = parameter.size
        # (five are those of what children make in a BinaryTreeLSTM, which has two forget gates)
        parameter.array[H : (parameter.gates - 2) * H] = value if parameter.kind == "bias_ih" else 0


def identity(layer: Parameterised, scale: float = 1.0) -> None:
    """Make ``weight_hh`` of RNN layers a multiple of the identity, and their biases zero (Le et al. 2015).

    With ``nonlinearity="relu"`` that is an IRNN, which begins by keeping its state. ``weight_ih`` is not touched.

    Parameters
    ----------
    layer : layer or model
        The recurrent weights and biases of every RNN layer in it are overwritten.
    scale : float
        The diagonal.

    Raises
    ------
    ValueError
        If there is no RNN layer, or `scale` is not finite.

    Examples
    --------
    >>> import rnncore as rc
    >>> layer = rc.RNN(3, 2, nonlinearity="relu")
    >>> rc.init.identity(layer)
    >>> layer.parameters["weight_hh_l0"]
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    scale = _finite("scale", scale)
    of_rnn = [p for p in _read(layer) if p.recurrent and p.gates == 1 and p.kind != "weight_ih"]
    for parameter in _some(of_rnn, layer, "an RNN layer, whose weight_hh is (H, H)"):
        parameter.array[...] = scale * np.eye(len(parameter.array)) if parameter.kind == "weight_hh" else 0
