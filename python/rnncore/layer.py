"""What every layer is: parameters in one flat vector, and a function with the one that pulls gradients back.

A layer maps an input and a state to an output and a new state. One without recurrence has no state: it is None then.
There is no tape and no graph: `Layer.vjp` returns the output together with the function that pulls gradients back, and
containers (`models.py`) compose those.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from rnncore import constructors, files
from rnncore.online import stream_of
from rnncore.streaming import Stages, States
from rnncore.views import Views

if TYPE_CHECKING:
    from rnncore.online import AnyStream

__all__ = ["Layer", "load"]

Array = NDArray[Any]
State = Any  # None, an array, or a tuple of states
PullBack = Callable[..., tuple[Any, State]]

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class Layer:
    """Base of all layers, to derive your own from.

    A layer without parameters of its own overrides `vjp` and `__call__` alone. One with parameters calls
    ``super().__init__(shapes, dtype)`` with the shapes of its arrays, and then fills `parameters`. Arguments of the
    constructor are kept as attributes of the same names: `repr` and files are made of them.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Names and shapes of the parameters, in their order in the flat vector.
    dtype : {float32, float64}, optional
        Of the parameters and of the computation. Default: float32.
    models : int, optional
        M, for M networks in one: parameters and gradients, flat ones too, have an axis of M in front. Default: none.

    Attributes
    ----------
    parameters, gradients : Views
        Arrays by name: views into `flat_parameters` and `flat_gradients`, of the same names and shapes. What is
        assigned, ``parameters["weight"] = w``, is copied into the vector.
    flat_parameters, flat_gradients : ndarray, (P,)
        All parameters, all gradients, in one contiguous vector each; (M, P) of M networks.
    input_size, output_size : int or None
        Size of the last axis of the input and of the output. None: whatever comes, and the same as the input.
    rng : numpy.random.Generator or None
        What a layer that draws random numbers in training draws them from.
    resets : bool
        Whether `run` and `vjp` take a `reset_mask` after the lengths: True for recurrent layers and models. False, the
        default, for layers that carry nothing from one step to the next.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> class Scale(rc.Layer):
    ...     def __init__(self, factor):
    ...         super().__init__()
    ...         self.factor = factor
    ...
    ...     def __call__(self, x, lengths=None):
    ...         return self.factor * x
    ...
    ...     def vjp(self, x, state=None, lengths=None):
    ...         return (self(x), None), lambda dy=None, dstate=None: (None if dy is None else self.factor * dy, None)
    >>> model = rc.Sequential(Scale(0.5), rc.GRU(3, 8, rng=0))
    >>> model
    Sequential(Scale(0.5), GRU(3, 8))
    """

    _kinds: ClassVar[dict[str, type[Layer]]] = {}  # by name, for files

    def __init_subclass__(cls) -> None:
        """Make the class known to `load`."""
        Layer._kinds[cls.__name__] = cls

    input_size: int | None = None
    output_size: int | None = None
    rng: np.random.Generator | None = None
    resets: bool = False
    models: int | None = None
    _in_python: bool = False  # whether there are steps in Python, which the core's streams cannot run
    _has_context: bool = False  # whether there are windows of steps, which those cannot run either

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        dtype: DTypeLike = np.float32,
        models: int | None = None,
    ) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype not in _DTYPES:
            raise TypeError(f"dtype: expected float32 or float64, got {self.dtype}")
        self._shapes = dict(shapes or {})
        self.models = None if models is None else _size("models", models)
        axes = () if self.models is None else (self.models,)
        size = *axes, sum(math.prod(shape) for shape in self._shapes.values())
        self._use(np.zeros(size, self.dtype), np.zeros(size, self.dtype))
        self._owned = False  # whether a model has the vectors that this layer's are parts of

    # ------------------------------------------------------------------------------------------- parameters

    def _use(self, flat_parameters: Array, flat_gradients: Array) -> None:
        """Take these as the flat vectors."""
        self.flat_parameters, self.flat_gradients = flat_parameters, flat_gradients
        self.parameters = Views(flat_parameters, self._shapes)
        self.gradients = Views(flat_gradients, self._shapes)

    def load_parameters(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Copy parameters in by name, such as the arrays of a torch state_dict.

        Parameters
        ----------
        parameters : mapping of str to array_like
            Every parameter of the layer and nothing else, each of its shape. Converted to the layer's dtype.

        Raises
        ------
        ValueError
            If a name is missing or unknown, or a shape is wrong; the layer is then unchanged.

        Examples
        --------
        >>> import rnncore as rc
        >>> source, target = rc.GRU(3, 4, rng=0), rc.GRU(3, 4, rng=1)
        >>> target.load_parameters(source.parameters)
        >>> bool((target.flat_parameters == source.flat_parameters).all())
        True
        """
        missing = [name for name in self.parameters if name not in parameters]
        unknown = [name for name in parameters if name not in self.parameters]
        if missing or unknown:
            raise ValueError(f"parameters: missing {missing}, unknown {unknown}")
        arrays = {name: np.asarray(value) for name, value in parameters.items()}
        for name, array in arrays.items():
            expected = self.parameters[name].shape
            if array.shape != expected or array.dtype.kind not in "biuf":
                raise ValueError(
                    f"parameters[{name!r}]: expected real numbers {expected}, got {array.dtype} {array.shape}"
                )
        for name, array in arrays.items():
            self.parameters[name][...] = array

    def zero_gradients(self) -> None:
        """Set every gradient to zero."""
        self.flat_gradients.fill(0)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has of this layer: all but the gradients, which are zero in a copy."""
        views = ("parameters", "gradients", "flat_gradients")
        return {name: value for name, value in vars(self).items() if name not in views} | {"_owned": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of another layer."""
        vars(self).update(state)
        self._use(self.flat_parameters, np.zeros_like(self.flat_parameters))

    # ------------------------------------------------------------------------------------------ computation

    # Run the layer on x, in inference. Returns y, or, if the layer has a state and is not made of others, (y, state).
    __call__: Callable[..., Any]

    def run(self, x: Any, state: State = None, lengths: ArrayLike | None = None) -> tuple[Any, State]:
        """Run the layer on x from a state: the output and the new state, None where there is none."""
        _no_state(self, state)
        return self(x, lengths), None

    def vjp(self, x: Any, state: State = None, lengths: ArrayLike | None = None) -> tuple[tuple[Any, State], PullBack]:
        """Run the layer on x for training, with the function that pulls gradients back.

        Parameters
        ----------
        x, state, lengths
            As for `run`. Leave x, the state and the parameters unchanged until the last pull-back.

        Returns
        -------
        output : (y, state)
            As `run` returns it, in the same bits if nothing is dropped out.
        pull_back : callable
            ``pull_back(dy=None, dstate=None)`` takes the gradients of a scalar loss with respect to y and the new
            state, None for zeros, **adds** those of the parameters to `gradients`, and returns those of x and of the
            initial state, ``(dx, dstate_0)``; None where there is none. May be called several times.
        """
        raise NotImplementedError

    def stream(
        self,
        batch_size: int | None = None,
        *,
        loss: Any = None,
        optimizer: Any = None,
        window: int = 20,
        clip_norm: float | None = None,
    ) -> AnyStream:
        """Pack the parameters as they are now, to take steps as they come, and to learn from them.

        Parameters
        ----------
        batch_size : int, optional
            Sequences at a time. Default: one, and no axis for them.
        loss, optimizer, window, clip_norm
            With a loss and an optimiser, the stream can `learn`: see `OnlineStream`. Default: it cannot.

        Returns
        -------
        Stream
            Gives the bits that the layer gives for whole sequences, and says which can be streamed. An `OnlineStream`
            if there is a loss, a `PythonStream` if a step is in Python, a `DelayedStream` if layers have windows.

        Examples
        --------
        >>> import numpy as np
        >>> import rnncore as rc
        >>> stream = rc.LSTM(3, 8, rng=0).stream()
        >>> stream.step(np.ones(3, dtype=np.float32)).shape
        (8,)
        """
        return stream_of(self, batch_size, loss, optimizer, window, clip_norm)

    def _stream_stages(self, stages: Stages) -> States:
        """Append what the layer is in a stream, and return where it has its states."""
        raise TypeError(f"model: expected layers that can be streamed, got {self!r}")

    def output_lengths(self, lengths: ArrayLike | None) -> ArrayLike | None:
        """Return the lengths that the output has if the input has these; None if it has no padded steps."""
        return lengths

    def output_resets(self, reset_mask: ArrayLike | None) -> ArrayLike | None:
        """Return the mask of resets that the output has if the input has this; None if its steps are others."""
        return reset_mask

    def input_shape(self) -> tuple[Any, ...]:
        """Return the shape of an input, with letters for the axes of any size."""
        return "N", "T", "C" if self.input_size is None else self.input_size

    def output_shape(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the shape of the output for one of the input, whose axes may be letters such as "N" and "T"."""
        return shape if self.output_size is None else (*shape[:-1], self.output_size)

    def generators(self) -> dict[str, np.random.Generator]:
        """Return what the layer draws from in training, by its path in the model: what exact resumption must keep."""
        return {} if self.rng is None else {"": self.rng}

    def on_step(self, step: int) -> None:
        """Be told by a trainer that `step` updates have been made, before the gradient of the next."""

    # ------------------------------------------------------------------------------------------ description

    @classmethod
    def _arguments(cls) -> dict[str, inspect.Parameter]:
        """Return the arguments of the constructor that make up a layer: all but the generator."""
        if cls.__init__ is Layer.__init__:
            return {}
        return {name: argument for name, argument in constructors.arguments(cls).items() if name != "rng"}

    def config(self) -> dict[str, Any]:
        """Return the arguments of the constructor that are not at their defaults, as JSON knows them.

        ``type(layer)(**layer.config())`` is a layer like this one, but for its parameters.
        """
        config = {}
        for name, parameter in self._arguments().items():
            value = getattr(self, name)
            if name == "dtype":
                value = value.name if value != parameter.default else parameter.default
            if parameter.default is inspect.Parameter.empty or value != parameter.default:
                config[name] = value
        return config

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)

    def description(self) -> dict[str, Any]:
        """Return the type and the config, from which `load` makes such a layer."""
        return {"type": type(self).__name__, **self.config()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the layer to a safetensors file, which any reader of that format can open.

        Parameters are tensors of their names; the architecture is JSON in the metadata. No pickle. A file that is
        there is replaced in one step, so that it is whole at any moment.

        Parameters
        ----------
        path : path-like
            By convention ending in ``.safetensors``.

        Raises
        ------
        OSError
            If it cannot be written; what was there is untouched then.

        See Also
        --------
        load : The way back.
        """
        files.write(path, "model", self.parameters, self.description())

    def __repr__(self) -> str:
        """Return what makes a layer like this one."""
        arguments = self._arguments()
        required = [name for name, argument in arguments.items() if argument.default is inspect.Parameter.empty]
        shown = [repr(value) if k in required else f"{k}={value!r}" for k, value in self.config().items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _frozen_copy(self) -> Self:
        """Copy the layer, with parameters of its own that cannot be written."""
        twin = type(self).__new__(type(self))
        state = self.__getstate__()
        state["flat_parameters"] = state["flat_parameters"].copy()
        state["flat_parameters"].flags.writeable = False
        twin.__setstate__(state)
        return twin


def load(path: str | os.PathLike[str]) -> Layer:
    """Read a layer or model that `Layer.save` wrote.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    Layer
        Of the type that was saved, with its parameters. Classes of your own must have been defined.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If the file is damaged, foreign or of a newer rnncore, or has a type of layer that is not known here.

    Examples
    --------
    >>> import tempfile
    >>> import rnncore as rc
    >>> model = rc.GRU(3, 8, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/gru.safetensors")
    ...     again = rc.load(f"{folder}/gru.safetensors")
    >>> again
    GRU(3, 8)
    >>> bool((again.flat_parameters == model.flat_parameters).all())
    True
    """
    arrays, description = files.read(path, "model")
    try:
        layer = _build(description)
        layer.load_parameters(arrays)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    return layer


def _build(description: Mapping[str, Any]) -> Layer:
    """Make a layer of a description."""
    config = dict(description)
    kind = config.pop("type")
    if kind not in Layer._kinds:  # the package has some that it imports when they are first asked for
        getattr(import_module("rnncore"), str(kind), None)
    if kind not in Layer._kinds:
        raise ValueError(f"expected a type of layer that is known here, got {kind!r}")
    return Layer._kinds[kind]._from_config(config)


def _no_state(layer: Layer, state: State) -> None:
    if state is not None:
        raise ValueError(f"state: expected None, since {layer!r} has no state, got {type(state).__name__}")


def _size(name: str, value: int, least: int = 1) -> int:
    """Check a size that a constructor was given."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: expected {'a positive integer' if least else 'an integer from 0'}, got {value!r}")
    return int(value)
