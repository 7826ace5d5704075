"""Models: layers made of layers, with all their parameters in one flat vector."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from rnncore import embedded, folded
from rnncore._conversion import as_lengths, valid_steps
from rnncore.layer import Array, Layer, PullBack, State, _build, _no_state
from rnncore.ragged import Ragged, apart, is_list, run_list, side_by_side, vjp_list
from rnncore.streaming import Stages, States, stages_of

__all__ = ["Concat", "Residual", "Sequential"]


class Container(Layer):
    """Layers and what they share: flat vectors, whose parts the layers use from then on."""

    resets = True

    def __init__(self, *layers: Layer) -> None:
        if not layers:
            raise ValueError("layers: expected at least one")
        for index, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layers: expected layers, got {type(layer).__name__} at index {index}")
            if layer._owned:
                raise ValueError(f"layer {index}, {layer!r}, is part of another model; give this one a copy of it")
            if not getattr(layer, "batch_first", True):
                raise ValueError(f"layer {index}, {layer!r}: expected batch_first=True in a model")
        self.layers = layers
        own = [(f"{index}.", layer) for index, layer in self.distinct() if layer.flat_parameters.size]
        dtypes = {layer.dtype for _, layer in own}
        if len(dtypes) > 1:
            raise TypeError(f"layers: expected one dtype, got {sorted(str(dtype) for dtype in dtypes)}")
        networks = {layer.models for _, layer in own}
        if len(networks) > 1:
            described = ", ".join(f"{layer!r}" for _, layer in own)
            raise ValueError(f"layers: expected the same models=M, or none, of all with parameters, got {described}")
        values = [layer.flat_parameters for _, layer in own]
        shapes = {prefix + name: shape for prefix, layer in own for name, shape in layer._shapes.items()}
        super().__init__(shapes, dtypes.pop() if dtypes else np.float32, networks.pop() if networks else None)
        if values:
            np.concatenate(values, axis=-1, out=self.flat_parameters)
        self._in_python = any(layer._in_python for layer in layers)
        self._has_context = any(layer._has_context for layer in layers)

    def distinct(self) -> Iterator[tuple[int, Layer]]:
        """Each layer once, with its first index: one used twice shares its parameters with itself."""
        seen = set()
        for index, layer in enumerate(self.layers):
            if id(layer) not in seen:
                seen.add(id(layer))
                yield index, layer

    def _use(self, flat_parameters: Array, flat_gradients: Array) -> None:
        super()._use(flat_parameters, flat_gradients)
        begin = 0
        for _, layer in self.distinct():
            end = begin + layer.flat_parameters.shape[-1]
            layer._use(flat_parameters[..., begin:end], flat_gradients[..., begin:end])
            layer._owned = True
            begin = end

    def __copy__(self) -> Self:
        """Return a deep copy: the layers use parts of one model's vectors."""
        return copy.deepcopy(self)

    def generators(self) -> dict[str, np.random.Generator]:
        """Return what the layers draw from in training, by the path of the layer, as in the names of parameters."""
        found: dict[str, np.random.Generator] = {}
        for index, layer in self.distinct():
            found |= {f"{index}.{path}" if path else str(index): rng for path, rng in layer.generators().items()}
        return found

    def on_step(self, step: int) -> None:
        """Be told of an update, and tell the layers."""
        for _, layer in self.distinct():
            layer.on_step(step)

    def config(self) -> dict[str, Any]:
        """Return the descriptions of the layers; the index of the first, for one that occurs again."""
        first = {id(layer): index for index, layer in self.distinct()}
        return {
            "layers": [
                layer.description() if first[id(layer)] == index else first[id(layer)]
                for index, layer in enumerate(self.layers)
            ]
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        layers: list[Layer] = []
        for description in config["layers"]:
            layers.append(layers[description] if isinstance(description, int) else _build(description))
        return cls(*layers)

    def __repr__(self) -> str:
        """Return what makes a model like this one."""
        return f"{type(self).__name__}({', '.join(map(repr, self.layers))})"

    def input_shape(self) -> tuple[Any, ...]:
        """Return the shape that the first layer takes."""
        return self.layers[0].input_shape()

    def _state_of(self, name: str, state: State) -> tuple[State, ...]:
        """Return the states of the layers."""
        if state is None:
            return (None,) * len(self.layers)
        if not isinstance(state, tuple | list) or len(state) != len(self.layers):
            got = f"{len(state)}" if isinstance(state, tuple | list) else type(state).__name__
            raise ValueError(f"{name}: expected a tuple of {len(self.layers)} states, one for each layer, got {got}")
        return tuple(state)

    def __call__(self, x: ArrayLike, lengths: ArrayLike | None = None, reset_mask: ArrayLike | None = None) -> Array:
        """Run the model on x, from zero states. Nothing is kept and nothing is dropped out.

        Parameters
        ----------
        x : array_like, (N, T, input_size)
            What the first layer takes. Or a list of N arrays (T_n, input_size), or a `Packed`.
        lengths : array_like of int (N,) or of bool (N, T), optional
            Valid steps of each sequence, 0 to T, or a mask, True at the first steps of each row. Default: T for all.
        reset_mask : array_like of bool, (N, T), optional
            True where a new episode starts: there recurrent layers go back to zero states before the step. A list or a
            `Packed` if x is one.

        Returns
        -------
        y : ndarray
            Of the last layer; a list or a `Packed` if x is one and y has steps. `run` returns the states too.
        """
        y: Array = self.run(x, None, lengths, *embedded.resets_of(self, reset_mask))[0]
        return y


class Sequential(Container):
    """Layers one after the other: each takes the output of the one before.

    Parameters
    ----------
    *layers : Layer
        From the input to the output. A layer that occurs twice has one set of parameters. From now on the layers'
        parameters are parts of the model's flat vector.

    Attributes
    ----------
    layers : tuple of Layer
        The layers.
    parameters, gradients : Views
        Those of the layers, with their indices in front: ``"1.weight_hh_l0"``.
    flat_parameters, flat_gradients : ndarray, (P,)
        All of them in one contiguous vector each.

    Notes
    -----
    Layers of many networks, with the same ``models=M``, make M models: parameters, gradients and outputs have an axis
    of M in front, flat vectors are (M, P), and layers without parameters may stand between them.

    Lengths go through: padded steps are neither computed nor counted anywhere. The state of a model is a tuple of the
    states of its layers, None for those that have none.

    A reset mask goes through likewise: `run` and `vjp` hand it to recurrent layers and models, which go back to zero
    states there. It ends at `Last`, `MeanPool` and `Repeat`, since what follows has no such steps. For states other
    than zero after a reset, call a recurrent layer by itself.

    An `Embedding` right before a recurrent layer runs as one with it, in the same bits: the vectors of the tokens are
    not copied into a series, and where there are fewer rows in the table than a quarter of the steps in the batch, the
    product with the input weights is made once for each row.

    Examples
    --------
    One to one, one to many, many to one, and many to many:

    >>> import numpy as np
    >>> import rnncore as rc
    >>> one_to_one = rc.Sequential(rc.Linear(3, 8, activation="tanh", rng=0), rc.Linear(8, 2, rng=1))
    >>> one_to_one(np.ones((4, 3))).shape
    (4, 2)
    >>> one_to_many = rc.Sequential(rc.Repeat(10), rc.GRU(3, 8, rng=0), rc.Linear(8, 2, rng=1))
    >>> one_to_many(np.ones((4, 3))).shape
    (4, 10, 2)
    >>> many_to_one = rc.Sequential(rc.GRU(3, 8, rng=0), rc.Last(), rc.Linear(8, 2, rng=1))
    >>> many_to_one(np.ones((4, 10, 3)), lengths=[10, 7, 1, 3]).shape
    (4, 2)
    >>> many_to_many = rc.Sequential(rc.LSTM(3, 8, rng=0), rc.Linear(8, 2, rng=1))
    >>> many_to_many(np.ones((4, 10, 3))).shape
    (4, 10, 2)
    >>> print(many_to_many.summary())
    layer            output      parameters
    0 LSTM(3, 8)     (N, T, 8)          416
    1 Linear(8, 2)   (N, T, 2)           18
    total                               434

    Training by hand:

    >>> x, target = np.ones((4, 10, 3)), np.zeros((4, 10, 2))
    >>> (y, state), pull_back = many_to_many.vjp(x)
    >>> dx, _ = pull_back(2 * (y - target))
    >>> many_to_many.flat_parameters -= 0.1 * many_to_many.flat_gradients
    """

    def __init__(self, *layers: Layer) -> None:
        super().__init__(*layers)
        size: int | None = None
        for index, layer in enumerate(layers):
            if index and layer.input_size is not None and size is not None and layer.input_size != size:
                raise ValueError(
                    f"layer {index}, {layer!r}, takes {layer.input_size} values a step, but layer {index - 1}, "
                    f"{layers[index - 1]!r}, gives {size}"
                )
            size = size if layer.output_size is None else layer.output_size
        self.input_size = layers[0].input_size
        self.output_size = size
        self._stages = embedded.stages(layers) if self.models is None else folded.stages(layers, self.models)

    def input_shape(self) -> tuple[Any, ...]:
        """Return the shape that the first layer takes."""
        return self.layers[0].input_shape()

    def run(
        self, x: Any, state: State = None, lengths: ArrayLike | None = None, reset_mask: ArrayLike | None = None
    ) -> tuple[Any, State]:
        """Run the model on x from a state: the output, and the new states of the layers."""
        if is_list(x, self.input_shape):
            return run_list(self.run, x, state, lengths, reset_mask)
        states = self._states(state)
        for index, stage in self._stages:
            x, states[index] = stage.run(x, states[index], lengths, *embedded.resets_of(stage, reset_mask))
            lengths, reset_mask = stage.output_lengths(lengths), stage.output_resets(reset_mask)
        return x, tuple(states)

    def vjp(
        self, x: Any, state: State = None, lengths: ArrayLike | None = None, reset_mask: ArrayLike | None = None
    ) -> tuple[tuple[Any, State], PullBack]:
        """Run the model on x for training, with the function that pulls gradients back; see `Layer.vjp`."""
        if is_list(x, self.input_shape):
            return vjp_list(self.vjp, x, state, lengths, reset_mask)
        states, pull_backs = self._states(state), []
        for index, stage in self._stages:
            (x, states[index]), pull_back = stage.vjp(x, states[index], lengths, *embedded.resets_of(stage, reset_mask))
            lengths, reset_mask = stage.output_lengths(lengths), stage.output_resets(reset_mask)
            pull_backs.append((index, pull_back))

        def pull_back_all(dy: Any = None, dstate: State = None) -> tuple[Any, State]:
            given = self._state_of("dstate", dstate)
            dstates: list[State] = [None] * len(given)
            for index, pull_back in reversed(pull_backs):
                dy, dstates[index] = pull_back(dy, given[index])
            return dy, tuple(dstates)

        return (x, tuple(states)), pull_back_all

    def _states(self, state: State) -> list[State]:
        """Return the states of the layers, of which an embedding that runs with the next layer has none."""
        states = list(self._state_of("state", state))
        of_stages = {index for index, _ in self._stages}
        for index, layer in enumerate(self.layers):
            if index not in of_stages:
                _no_state(layer, states[index])
        return states

    def _stream_stages(self, stages: Stages) -> States:
        return tuple(stages_of(layer, stages) for layer in self.layers)

    def output_lengths(self, lengths: ArrayLike | None) -> ArrayLike | None:
        """Return the lengths that the output of the last layer has."""
        for layer in self.layers:
            lengths = layer.output_lengths(lengths)
        return lengths

    def output_resets(self, reset_mask: ArrayLike | None) -> ArrayLike | None:
        """Return the mask of resets that the output of the last layer has."""
        for layer in self.layers:
            reset_mask = layer.output_resets(reset_mask)
        return reset_mask

    def output_shape(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the shape of the output of the last layer."""
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def summary(self, shape: tuple[Any, ...] | None = None) -> str:
        """Return a table of the layers: what each is, the shape of its output, and how many parameters it has.

        Parameters
        ----------
        shape : tuple, optional
            Of the input; axes may be letters. Default: what the first layer takes.
        """
        if shape is None:
            shape = self.layers[0].input_shape()
        rows = [("layer", "output", "parameters")]
        counted = {index for index, _ in self.distinct()}
        for index, layer in enumerate(self.layers):
            shape = layer.output_shape(shape)
            count = layer.flat_parameters.shape[-1] if index in counted else 0
            rows.append((f"{index} {layer!r}", f"({', '.join(map(str, shape))})", f"{count:,}"))
        total = "total" if self.models is None else f"total, of each of {self.models:,} networks"
        rows.append((total, "", f"{self.flat_parameters.shape[-1]:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(f"{a:<{widths[0]}}   {b:<{widths[1]}}   {c:>{widths[2]}}" for a, b, c in rows)


class Residual(Container):
    """Add the input of a layer to its output: y = x + layer(x). He et al. 2015.

    Parameters
    ----------
    layer : Layer
        Of as many outputs as inputs; a `Sequential`, for several.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> block = rc.Residual(rc.Sequential(rc.LayerNorm(8), rc.GRU(8, 8, rng=0)))
    >>> block(np.ones((2, 5, 8))).shape
    (2, 5, 8)
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        _one_network(self)
        if layer.output_size is not None and layer.input_size not in (None, layer.output_size):
            raise ValueError(
                f"layer: expected as many outputs as inputs, got {layer!r} of {layer.input_size} and "
                f"{layer.output_size}"
            )
        self.input_size = self.output_size = layer.output_size

    def run(
        self, x: Any, state: State = None, lengths: ArrayLike | None = None, reset_mask: ArrayLike | None = None
    ) -> tuple[Any, State]:
        """Run the layer on x from a state: its output plus x, and its new state."""
        if is_list(x, self.input_shape):
            return run_list(self.run, x, state, lengths, reset_mask)
        (initial,) = self._state_of("state", state)
        y, new = self.layers[0].run(x, initial, lengths, *embedded.resets_of(self.layers[0], reset_mask))
        return y + _kept(x, y, lengths), (new,)

    def vjp(
        self, x: Any, state: State = None, lengths: ArrayLike | None = None, reset_mask: ArrayLike | None = None
    ) -> tuple[tuple[Any, State], PullBack]:
        """Run the layer on x for training, with the function that pulls gradients back; see `Layer.vjp`."""
        if is_list(x, self.input_shape):
            return vjp_list(self.vjp, x, state, lengths, reset_mask)
        (initial,) = self._state_of("state", state)
        (y, new), pull_back = self.layers[0].vjp(x, initial, lengths, *embedded.resets_of(self.layers[0], reset_mask))

        def pull_back_sum(dy: Any = None, dstate: State = None) -> tuple[Any, State]:
            (dnew,) = self._state_of("dstate", dstate)
            dx, dinitial = pull_back(dy, dnew)
            return dx if dy is None else dx + _kept(dy, y, lengths), (dinitial,)

        return (y + _kept(x, y, lengths), (new,)), pull_back_sum

    def output_lengths(self, lengths: ArrayLike | None) -> ArrayLike | None:
        """Return the lengths that the layer's output has."""
        return self.layers[0].output_lengths(lengths)

    def output_resets(self, reset_mask: ArrayLike | None) -> ArrayLike | None:
        """Return the mask of resets that the layer's output has."""
        return self.layers[0].output_resets(reset_mask)


def _one_network(container: Container) -> None:
    if container.models is not None:
        kind = type(container).__name__
        raise ValueError(f"layers: expected one network in a {kind}, got models={container.models}")


def _kept(x: Any, y: Any, lengths: ArrayLike | None) -> Any:
    """Return x with zeros at padded steps, where it may hold anything."""
    if isinstance(y, Ragged):
        return x
    array = np.asarray(x)
    if array.shape != y.shape:
        raise ValueError(f"x: expected the shape of the layer's output, {y.shape}, got {array.shape}")
    if lengths is None:
        return array
    return np.where(valid_steps(as_lengths(lengths, *array.shape[:2]), array.shape[1])[..., None], array, 0)


class Concat(Container):
    """Branches side by side: each takes the input, and their outputs are joined along the last axis.

    Parameters
    ----------
    *layers : Layer
        The branches.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> both = rc.Concat(rc.GRU(3, 8, rng=0), rc.Linear(3, 2, rng=1))
    >>> both(np.ones((2, 5, 3))).shape
    (2, 5, 10)
    """

    def __init__(self, *layers: Layer) -> None:
        super().__init__(*layers)
        _one_network(self)
        sizes = {layer.input_size for layer in layers} - {None}
        if len(sizes) > 1:
            described = ", ".join(f"{layer!r} takes {layer.input_size}" for layer in layers)
            raise ValueError(f"layers: expected branches of one input, but {described}")
        self.input_size = sizes.pop() if sizes else None
        outputs = [self.input_size if layer.output_size is None else layer.output_size for layer in layers]
        self.output_size = None if None in outputs else sum(size for size in outputs if size is not None)

    def run(
        self, x: Any, state: State = None, lengths: ArrayLike | None = None, reset_mask: ArrayLike | None = None
    ) -> tuple[Any, State]:
        """Run every branch on x from its state: the joined outputs, and the new states."""
        if is_list(x, self.input_shape):
            return run_list(self.run, x, state, lengths, reset_mask)
        results = [
            layer.run(x, initial, lengths, *embedded.resets_of(layer, reset_mask))
            for layer, initial in zip(self.layers, self._state_of("state", state), strict=True)
        ]
        return side_by_side([y for y, _ in results])[0], tuple(new for _, new in results)

    def vjp(
        self, x: Any, state: State = None, lengths: ArrayLike | None = None, reset_mask: ArrayLike | None = None
    ) -> tuple[tuple[Any, State], PullBack]:
        """Run every branch on x for training, with the function that pulls gradients back; see `Layer.vjp`."""
        if is_list(x, self.input_shape):
            return vjp_list(self.vjp, x, state, lengths, reset_mask)
        results, pull_backs = [], []
        for layer, initial in zip(self.layers, self._state_of("state", state), strict=True):
            result, pull_back = layer.vjp(x, initial, lengths, *embedded.resets_of(layer, reset_mask))
            results.append(result)
            pull_backs.append(pull_back)
        y, sizes = side_by_side([branch for branch, _ in results])

        def pull_back_all(dy: Any = None, dstate: State = None) -> tuple[Any, State]:
            dys = [None] * len(pull_backs) if dy is None else apart(dy, sizes)
            dstates = self._state_of("dstate", dstate)
            pulled = [back(dy, dnew) for back, dy, dnew in zip(pull_backs, dys, dstates, strict=True)]
            dx = pulled[0][0]
            for other, _ in pulled[1:]:
                dx = None if dx is None else dx + other
            return dx, tuple(dinitial for _, dinitial in pulled)

        return (y, tuple(new for _, new in results)), pull_back_all

    def output_lengths(self, lengths: ArrayLike | None) -> ArrayLike | None:
        """Return the lengths that the first branch's output has."""
        return self.layers[0].output_lengths(lengths)

    def output_resets(self, reset_mask: ArrayLike | None) -> ArrayLike | None:
        """Return the mask of resets that the first branch's output has."""
        return self.layers[0].output_resets(reset_mask)

    def output_shape(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the shape of the first branch's output, with the sizes of all summed."""
        shapes = [layer.output_shape(shape) for layer in self.layers]
        return *shapes[0][:-1], sum(each[-1] for each in shapes)
