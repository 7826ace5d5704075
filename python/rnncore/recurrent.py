"""What all recurrent layers are: stacked, in one direction or two, with torch.nn's names, shapes and initialisation.

The public classes are in `gated` and `elementwise`; here is what they share.

One difference, stated first everywhere: **batch_first=True is the default**, so x is (N, T, I).

A layer is called for inference, which keeps nothing, or through `vjp`, which returns the output together with the
function that pulls gradients back. There is no tape beside that function, so a layer may be used several times.
"""

from __future__ import annotations  # np.random in annotations would import it

import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rnncore import _core as core
from rnncore import constructors, functional, layerwise, many, merging
from rnncore._conversion import as_array, as_lengths, as_resets
from rnncore._core import Cell, Lookup, Spec, Stack
from rnncore.calls import Call
from rnncore.frozen import Frozen
from rnncore.layer import Array, Layer, PullBack, State, _size
from rnncore.layerwise import Layers, Pass
from rnncore.masks import drop_mask
from rnncore.options import Options, probability
from rnncore.ragged import Ragged, is_list, run_list, vjp_list
from rnncore.streaming import Stages, Stateful, States

__all__: list[str] = []  # for the modules of cells

# Inside the package x may be a Lookup too, of the shape of the vectors that it stands for: see embedded.py.
# A state is None, one array (D*L, N, H), or of a cell with several states a tuple, such as (h, c) of LSTM.


class _Recurrent(Layer):
    """Stacked layers of one cell, in one or both directions. What the public classes share."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__signature__ = inspect.Signature(list(constructors.arguments(cls).values()))
        if cls.__doc__ is not None:  # it is under python -OO
            cls.__doc__ += constructors.ARGUMENTS.format(
                options=cls._options_doc, dropouts=cls._dropouts_doc, models=cls._models_doc
            )

    __signature__: ClassVar[Any]  # with the keywords that a constructor passes on
    resets = True
    input_size: int
    rng: np.random.Generator
    _gates: int
    _state_names: ClassVar[tuple[str, ...]] = ("h",)
    _cell: Cell
    _options = Options()  # of the cell, if it takes any
    _options_doc = _models_doc = ""  # of the parameters that not all classes have
    _dropouts_doc = constructors.DROPOUTS
    input_depth = output_depth = 1  # of classes without feed-forward layers around their passes
    _of_feed_forward: str | None = None  # the activation of those layers
    _plain = True  # whether the functions of `functional` run the layer: a cell without options, and nothing else
    _whole = True  # whether one call of the core runs the stack; else `layerwise` does, and the layer is not plain

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        merge: str = "concat",
        look_ahead: int | None = None,
        look_back: int | None = None,
        chunk: int = 1,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        skip: bool = False,
        learn_initial_state: bool = False,
        checkpoint_every: int | None = None,
        models: int | None = None,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        self.input_size = _size("input_size", input_size)
        self.hidden_size = _size("hidden_size", hidden_size)
        self.num_layers = _size("num_layers", num_layers)
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.dropout = float(dropout)
        self.bidirectional = bool(bidirectional)
        self.merge = merging.checked(merge, self.bidirectional)
        self.input_dropout = probability("input_dropout", input_dropout)
        self.recurrent_dropout = probability("recurrent_dropout", recurrent_dropout)
        self.skip = bool(skip)
        self.learn_initial_state = bool(learn_initial_state)
        self._every = functional._every(checkpoint_every)
        self.checkpoint_every = None if checkpoint_every is None else int(checkpoint_every)
        if not 0.0 <= self.dropout <= 1.0:
            raise ValueError(f"dropout: expected a probability from 0 to 1, got {dropout}")
        self._set_context(look_ahead, look_back, chunk)
        self._has_depth = self.input_depth > 1 or self.output_depth > 1
        self._in_python = self._has_depth and self.skip and self.num_layers > 1
        self._whole = self.merge == "concat" and not self._has_context and not self._has_depth
        self._choose_cell()
        self._plain = self._plain and self._whole
        for name in ("input_dropout", "recurrent_dropout", "skip", "learn_initial_state"):
            self._plain = self._plain and not getattr(self, name)
        if models is not None and not self._plain:
            raise ValueError(f"models: expected None for a layer with options, got {models!r}")
        super().__init__(self._parameter_shapes(), dtype, models)
        self.output_size = self._merged_width
        self.rng = np.random.default_rng(rng)
        bound = 1.0 / np.sqrt(self.hidden_size)  # of torch's initialisation, for every array
        self.flat_parameters[...] = self.rng.uniform(-bound, bound, self.flat_parameters.shape)
        self._initialise()

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        unknown = [name for name in config if name not in cls._arguments()]  # as of a newer version
        if unknown:
            raise ValueError(f"{cls.__name__}: expected arguments that it has, got {unknown}")
        return super()._from_config(config)

    def _set_context(self, look_ahead: int | None, look_back: int | None, chunk: int) -> None:
        """Check how many steps each direction reads for one."""
        self.look_ahead = None if look_ahead is None else _size("look_ahead", look_ahead, 0)
        self.look_back = None if look_back is None else _size("look_back", look_back, 0)
        self.chunk = _size("chunk", chunk)
        if self.look_ahead is not None and not self.bidirectional:
            raise ValueError(f"look_ahead: expected None unless the layer is bidirectional, got {look_ahead}")
        self._has_context = self.look_ahead is not None or self.look_back is not None
        if self.chunk > 1 and not self._has_context:
            raise ValueError(f"chunk: expected 1 unless there is a look_ahead or a look_back, got {chunk}")

    def _context(self, reverse: bool) -> int | None:
        """Return how many steps besides its own each output of a direction sees; None for all."""
        return self.look_ahead if reverse else self.look_back

    def _choose_cell(self) -> None:
        """Take the cell that all there is to run takes, where there are several."""

    def _initialise(self) -> None:
        """Set the parameters that are not random."""
        for name, array in self.parameters.items():
            if name.startswith("weight_norm"):
                array[...] = 1
            elif name.startswith(("bias_norm", "initial_")):
                array[...] = 0

    # ------------------------------------------------------------------------------------------- parameters

    def _passes(self) -> list[tuple[int, str, bool]]:
        """Layer, suffix of the parameter names and whether reversed, of every pass over the series."""
        directions = [("", False), ("_reverse", True)][: self._directions]
        return [(k, f"_l{k}{suffix}", r) for k in range(self.num_layers) for suffix, r in directions]

    @property
    def _directions(self) -> int:
        return 1 + self.bidirectional

    @property
    def _states(self) -> int:
        return len(self._state_names)

    @property
    def _output_width(self) -> int:
        """Size of h in one direction: P."""
        return self.hidden_size

    @property
    def _merged_width(self) -> int:
        """Size of the output of a layer."""
        return self._output_width * (self._directions if self.merge == "concat" else 1)

    @property
    def _state_sizes(self) -> tuple[int, ...]:
        return (self._output_width, *(self.hidden_size for _ in self._state_names[1:]))

    def _matrix_shapes(self, I: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights that are matrices, and of biases, of a layer that reads I numbers."""
        GH = self._gates * self.hidden_size
        return {"weight_ih": (GH, I), "weight_hh": (GH, self._output_width), "bias_ih": (GH,), "bias_hh": (GH,)}

    def _vector_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the other parameters of a cell, in the order in which the core has them."""
        return {}

    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for k, suffix, _ in self._passes():
            I = self.input_size if k == 0 else self._merged_width
            matrices = self._matrix_shapes(I if self.input_depth == 1 else self.hidden_size)
            of_pass = matrices | self._vector_shapes()
            if self.learn_initial_state:
                sizes = zip(self._state_names, self._state_sizes, strict=True)
                of_pass |= {f"initial_{name}": (size,) for name, size in sizes}
            if self._has_depth:
                from rnncore import depth

                feed_forward = depth.shapes(self, I)
                of_pass |= feed_forward
                matrices |= feed_forward
            for name, shape in of_pass.items():
                if self.bias or name not in matrices or not name.startswith("bias_"):
                    shapes[name + suffix] = shape
        return shapes

    def _use(self, flat_parameters: Array, flat_gradients: Array) -> None:
        super()._use(flat_parameters, flat_gradients)
        self._weights = self._arrays_of_passes(self.parameters, flat_parameters)
        self._weight_gradients = self._arrays_of_passes(self.gradients, flat_gradients)

    def _arrays_of_passes(self, views: Mapping[str, Array], flat: Array) -> list[tuple[Array | None, ...]]:
        """Return what the core takes for the weights of every pass."""
        of_passes: list[tuple[Array | None, ...]] = []
        outer = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        matrices = self._matrix_shapes(1)
        inner = [name for name in matrices if name not in outer]
        ends = dict(zip(self._shapes, itertools.accumulate(map(math.prod, self._shapes.values())), strict=True))

        def block(names: list[str], suffix: str) -> Array | None:
            """Return parameters that lie one after the other as one array."""
            present = [name + suffix for name in names if name + suffix in self._shapes]
            if not present:
                return None
            shape, end = self._shapes[present[0]], ends[present[-1]]
            array = flat[..., ends[present[0]] - math.prod(shape) : end]
            return array.reshape(-1, shape[1]) if len(shape) == 2 else array

        for _, suffix, _ in self._passes():
            arrays = [views.get(name + suffix) if name in matrices else None for name in outer]
            if not self._plain:
                arrays.append(block([name for name in inner if name.startswith("weight_")], suffix))
                arrays.append(block([name for name in inner if name.startswith("bias_")], suffix))
                arrays.append(block(list(self._vector_shapes()), suffix))
            of_passes.append(tuple(arrays))
        return of_passes

    def _core_weights(self) -> list[tuple[Array | None, ...]]:
        """Return the weights of every pass as the core takes them, where those are made of the parameters."""
        return self._weights

    def _add_gradients(self, index: int, dweights: tuple[Array | None, ...]) -> None:
        """Add the gradients of what the core took for the weights of a pass."""
        for total, gradient in zip(self._weight_gradients[index], dweights, strict=True):
            if total is not None:
                total += gradient

    def _spec(self, training: bool = False) -> Spec | Cell:
        """Return what the core is to run."""
        return self._options.spec(self._cell, training, self.skip) if self.skip else self._cell

    # ------------------------------------------------------------------------------------------ computation

    def _state_parts(
        self, name: str, state: State, batch: tuple[int, ...], shared: bool = False
    ) -> tuple[Array | None, ...]:
        """h, or h and c, each None or of the caller's shape; if `shared`, there may be one for all sequences."""
        if state is None:
            parts: tuple[Any, ...] = (None,) * self._states
        elif self._states == 1:
            parts = (state,)
        elif isinstance(state, tuple | list) and len(state) == self._states:
            parts = tuple(state)
        else:
            names = ", ".join(self._state_names)
            raise TypeError(f"{name}: expected None or a tuple ({names}), got {type(state).__name__}")
        axes: tuple[int, ...] = (len(self._weights), *batch)
        if self.models is not None:
            axes = self.models, *axes
        arrays = tuple(None if part is None else np.asarray(part) for part in parts)
        for array, size in zip(arrays, self._state_sizes, strict=True):
            expected, of_all = (*axes, size), (axes[0], size)
            if array is not None and array.shape != expected and not (shared and array.shape == of_all):
                shapes = f"{expected} or {of_all}" if shared and batch else f"{expected}"
                raise ValueError(f"{name}: expected shape {shapes}, got {array.shape}")
        return arrays

    def _split_state(
        self, name: str, state: State, batch: tuple[int, ...], shared: bool = False
    ) -> list[tuple[Array | None, Array | None]]:
        """(h, c) of each pass; None stands for zeros."""
        passes = len(self._weights)
        if state is None:
            return [(None, None)] * passes
        columns = [[None] * passes if part is None else part for part in self._state_parts(name, state, batch, shared)]
        if self.models is not None:
            columns = [part if isinstance(part, list) else part.swapaxes(0, 1) for part in columns]
        columns += [[None] * passes] * (2 - self._states)
        return list(zip(*columns, strict=True))

    def _join_states(self, states: list[tuple[Any, ...]]) -> State:
        axis = 0 if self.models is None else 1
        if len(states) == 1:
            joined = tuple(None if part is None else np.expand_dims(part, axis) for part in states[0])
        else:
            columns = zip(*states, strict=True)
            joined = tuple(None if column[0] is None else np.stack(column, axis) for column in columns)
        return joined if self._states > 1 else joined[0]

    def _input(self, x: ArrayLike | Lookup | Ragged) -> Array | Lookup:
        if self.models is not None:
            if isinstance(x, Ragged):
                raise TypeError(f"x: expected an array for many networks, got {x!r}")
            return many.series("x", x, self.models, self.input_size, self.batch_first)
        axes: tuple[int, ...] = (2, 3)
        if isinstance(x, Ragged):
            x, axes = x.data, (2,)
        array = x if isinstance(x, Lookup) else np.asarray(x)
        if len(array.shape) not in axes or array.shape[-1] != self.input_size:
            if axes == (2,):
                raise ValueError(f"x: expected steps of {self.input_size} values, got rows {array.shape}")
            shape = f"(N, T, {self.input_size})" if self.batch_first else f"(T, N, {self.input_size})"
            raise ValueError(f"x: expected {shape} or (T, {self.input_size}), got {array.shape}")
        return array

    def _batch(self, x: Any, series: Array | Lookup) -> tuple[int, ...]:
        """(N,), or () if there is one sequence without a batch axis."""
        if isinstance(x, Ragged):
            return (x.N,)
        return () if len(series.shape) == 2 else (series.shape[-3 if self.batch_first else -2],)

    def _pack(self, once: bool = False) -> Stack | many.Stack | Layers:
        if self.models is not None:
            return many.Stack(self, once)
        if not self._whole:
            return Layers(self)
        return Stack(self._spec(), self._core_weights(), self._directions, self.batch_first)

    def _call(
        self, x: Any, state: State, lengths: ArrayLike | None, reset_mask: ArrayLike | None, reset_state: State
    ) -> Call:
        """Check and convert the arguments of a call; x is no list."""
        series = self._input(x)
        if not isinstance(series, Lookup):
            series = as_array("x", series, self.dtype)
        batch, axis = self._batch(x, series), 0 if self.batch_first else 1
        unbatched = not batch
        parts: list[Array | None] = []
        for part in self._state_parts("state", state, batch):
            if part is not None:
                part = as_array("state", part[:, np.newaxis] if unbatched else part, self.dtype)
            parts.append(part)
        self._check_resets(reset_mask, reset_state)
        starts: list[Array | None] = []
        mask = None
        if reset_mask is not None:
            for part in self._state_parts("reset_state", reset_state, batch, shared=True):
                if part is not None:
                    part = as_array("reset_state", part[:, np.newaxis] if part.ndim == 2 else part, self.dtype)
                    shape = part.shape[0], *(batch or (1,)), part.shape[2]
                    part = np.ascontiguousarray(np.broadcast_to(part, shape))
                starts.append(part)
            if isinstance(x, Ragged):
                reset_mask = x.arranged("reset_mask", reset_mask)
            mask = as_resets(reset_mask, axis if unbatched else None)
        if not isinstance(series, Lookup) and unbatched:
            series = np.expand_dims(series, axis)
        rows: Any = None
        if isinstance(x, Ragged):
            rows = x.structure(lengths)
        elif lengths is not None:
            rows = as_lengths(lengths, series.shape[axis], series.shape[1 - axis], unbatched)
        N = x.N if isinstance(x, Ragged) else series.shape[-3 if self.batch_first else -2]
        return Call(x, series, tuple(parts), rows, mask, tuple(starts), N, axis if unbatched else None)

    def _run_converted(
        self,
        forward: Callable[..., Any],
        x: Any,
        state: State,
        lengths: ArrayLike | None,
        reset_mask: ArrayLike | None = None,
        reset_state: State = None,
    ) -> tuple[Any, State]:
        """Check and convert what the core does not take as it is, and run."""
        if is_list(x, self.input_shape):
            return run_list(partial(self._run_converted, forward), x, state, lengths, reset_mask, reset_state)
        call = self._call(x, state, lengths, reset_mask, reset_state)
        first, starts = self._beginnings(call)
        resets = () if call.mask is None else (call.mask, self._joined(starts))
        result = forward(call.series, self._joined(first), call.rows, *resets)
        assert result is not None
        y, last = result
        return call.series_as_given(y), self._joined(call.state_as_given(self._parts(last)))

    def _joined(self, parts: tuple[Any, ...]) -> Any:
        """Return the state of which these are the parts."""
        return parts if self._states > 1 else parts[0]

    def _parts(self, state: Any) -> tuple[Any, ...]:
        """Return the parts of a state that is one."""
        return state if self._states > 1 else (state,)

    def _beginnings(self, call: Call) -> tuple[tuple[Array | None, ...], tuple[Array | None, ...]]:
        """Return the states that sequences of a call begin with, and start anew with after resets, if it has any."""
        if not self.learn_initial_state:
            return call.state, call.starts
        return self._with_initial(call.state, call.N), self._with_initial(call.starts, call.N) if call.starts else ()

    def _with_initial(self, parts: tuple[Array | None, ...], N: int) -> tuple[Array, ...]:
        """Put the learned initial state, of all sequences, where there is no other."""
        passes = self._passes()
        filled = []
        for part, name, size in zip(parts, self._state_names, self._state_sizes, strict=True):
            if part is None:
                part = np.empty((len(passes), N, size), self.dtype)
                for index, (_, suffix, _) in enumerate(passes):
                    part[index] = self.parameters[f"initial_{name}{suffix}"]
            filled.append(part)
        return tuple(filled)

    def _check_resets(self, reset_mask: ArrayLike | None, reset_state: State) -> None:
        if reset_mask is None and reset_state is not None:
            kind = type(reset_state).__name__
            raise ValueError(f"reset_state: expected None, since there is no reset_mask, got {kind}")
        if reset_mask is not None and self.models is not None:
            raise ValueError(f"reset_mask: expected None for many networks, got {type(reset_mask).__name__}")

    def _stream_stages(self, stages: Stages) -> States:
        if self.bidirectional or self._has_context:
            what = "reads what is to come" if self.bidirectional else "reads steps more than once"
            raise ValueError(f"model: expected layers of one direction, got {self!r}, which {what}")
        initial = self._with_initial((None,) * self._states, 1) if self.learn_initial_state else None
        if self._has_depth:
            from rnncore import depth

            return depth.append_stages(self, stages, initial)
        stage = sum(kind != "embedding" for kind, *_ in stages)
        stages.append(("recurrent", self._spec(), self._core_weights(), initial))
        return Stateful((stage,), self._state_names, self._state_sizes, self.num_layers, initial)

    def frozen(self) -> Frozen:
        """Pack the weights once, for inference that does nothing else at each call.

        Returns
        -------
        Frozen
            Called as the layer is, and gives the same bits. It keeps the parameters as they are now: what becomes of
            this layer afterwards does not change it.

        Examples
        --------
        >>> import numpy as np
        >>> import rnncore as rc
        >>> layer = rc.GRU(3, 8, rng=0)
        >>> frozen = layer.frozen()
        >>> x = np.ones((2, 5, 3), dtype=np.float32)
        >>> bool((frozen(x)[0] == layer(x)[0]).all())
        True
        """
        return Frozen(self)

    def __call__(
        self,
        x: ArrayLike,
        state: State = None,
        lengths: ArrayLike | None = None,
        reset_mask: ArrayLike | None = None,
        reset_state: State = None,
    ) -> tuple[Array, State]:
        """Run the layer on x. Nothing is kept and nothing is dropped out.

        Parameters
        ----------
        x : array_like, (N, T, input_size)
            (T, N, input_size) if not `batch_first`, or (T, input_size) for one unbatched sequence. Or a list of N
            arrays (T_n, input_size), or a `Packed`, which have no padding.
        state : optional
            Initial state, (D*L, N, H), or (D*L, H) if unbatched; for LSTM a tuple (h, c) of two. L layers, D
            directions; l0, l0_reverse, l1, ... Default: zeros.
        lengths : array_like of int (N,) or of bool (N, T), optional
            Valid steps of each sequence, 0 to T, or a mask that is True at valid steps, which are the first of each
            row. Default: T for all.
        reset_mask : array_like of bool, (N, T), optional
            Laid out like the steps of x, (T,) if unbatched, a list or a `Packed` if x is one. True where a new episode
            starts: every layer and direction is cut before that step, and bits are those of the pieces in calls of
            their own. A piece that begins at a reset starts from `reset_state`; read from its end, one that a reset
            follows.
        reset_state : optional
            State after a reset: like `state`, or (D*L, H) for one of all sequences. Default: zeros.

        Returns
        -------
        y : ndarray, (N, T, output_size)
            Laid out like x; zero at padded steps. A list or a `Packed` if x is one.
        state : as the argument
            Each sequence's state after the step that is read last; with `look_ahead` or `look_back`, at the end of the
            window of that step.
        """
        stack = self._pack()
        if reset_mask is not None or reset_state is not None:
            return self._run_with_resets(stack, x, state, lengths, reset_mask, reset_state)
        return self._run_stack(stack, x, state, lengths)

    run = __call__

    @property
    def _as_given(self) -> bool:
        """Whether what runs the layer may be given the arguments of a call as they are, or has them made first."""
        return self._whole and not self.learn_initial_state

    def _run_stack(self, stack: Any, *arguments: Any) -> tuple[Array, State]:
        result = stack.forward(*arguments) if self._as_given else None
        return self._run_converted(stack.forward, *arguments) if result is None else result

    def _run_with_resets(self, stack: Any, *arguments: Any) -> tuple[Array, State]:
        self._check_resets(*arguments[3:])
        result = stack.forward_with_resets(*arguments) if self._as_given else None
        return self._run_converted(stack.forward_with_resets, *arguments) if result is None else result

    def vjp(
        self,
        x: Any,
        state: State = None,
        lengths: ArrayLike | None = None,
        reset_mask: ArrayLike | None = None,
        reset_state: State = None,
    ) -> tuple[tuple[Any, State], PullBack]:
        """Run the layer on x for training: with dropout, and with the function that pulls gradients back.

        Parameters are those of a call. Leave x, the state and the parameters unchanged until the last pull-back.

        Returns
        -------
        output : (y, state)
            As a call returns it, in the same bits if there is no dropout.
        pull_back : callable
            ``pull_back(dy=None, dstate=None)`` takes the gradients of a scalar loss with respect to y and the final
            state, None for zeros, **adds** those of the parameters to `gradients`, and returns those of x and of the
            initial state; third, if `reset_state` was given, that of it. May be called several times.
        """
        if is_list(x, self.input_shape):
            return vjp_list(self.vjp, x, state, lengths, reset_mask, reset_state)
        if not self._plain:
            return layerwise.vjp(self, self._call(x, state, lengths, reset_mask, reset_state), reset_state)
        first = self._input(x)
        self._check_resets(reset_mask, reset_state)
        batch = self._batch(x, first)
        starts = self._split_state("reset_state", reset_state, batch, shared=True)
        ragged = x if isinstance(x, Ragged) else None
        rows: Any = lengths if ragged is None else ragged.structure(lengths)
        if ragged is not None and reset_mask is not None:
            reset_mask = ragged.arranged("reset_mask", reset_mask)
        pull_backs: list[Callable[..., tuple[Array, ...]]] = []
        masks: list[Array | None] = []

        series: Any = first
        states, outputs = [], []
        initial = self._split_state("state", state, batch)
        passes = zip(self._passes(), self._weights, initial, starts, strict=True)
        for (k, _, reverse), weights, (h, c), start in passes:
            arguments = (series, *weights, h, c, rows, reverse, self.batch_first)
            if reset_mask is None:
                (y, *last), pull_back = functional._record(self._every, self._cell, *arguments)
            else:
                resets = reset_mask, start[0], start[1]
                (y, *last), pull_back = functional._record_with_resets(resets, self._every, self._cell, *arguments)
            pull_backs.append(pull_back)
            outputs.append(y)
            states.append(tuple(last))
            if reverse != self.bidirectional:
                continue  # to the other direction
            series = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1)
            outputs = []
            dropped = self.dropout > 0.0 and k + 1 < self.num_layers
            mask = drop_mask(self.rng, self.dropout, series.shape, self.dtype) if dropped else None
            masks.append(mask)
            if mask is not None:
                series = series * mask
        last_state = self._join_states(states)
        y_shape = series.shape

        def pull_back_all(dy: ArrayLike | None = None, dstate: State = None) -> Any:
            if dy is not None and ragged is not None:
                dy = ragged.arranged("dy", dy)
            dseries = None if dy is None else np.asarray(dy)
            if dseries is not None and dseries.shape != y_shape:
                raise ValueError(f"dy: expected shape {y_shape}, got {dseries.shape}")
            dlast = self._split_state("dstate", dstate, batch)
            dinitial: list[Any] = [None] * len(dlast)
            dstarts: list[Any] = [None] * len(dlast)
            H, directions = self.hidden_size, 1 + self.bidirectional
            for k in reversed(range(self.num_layers)):
                mask = masks[k]
                if mask is not None and dseries is not None:
                    dseries = dseries * mask
                dx: Array | None = None
                for d in range(directions):
                    index = k * directions + d
                    dy_d = dseries if dseries is None or directions == 1 else dseries[..., d * H : (d + 1) * H]
                    gradients = pull_backs[index](dy_d, *dlast[index])
                    dx = gradients[0] if dx is None else dx + gradients[0]  # both None if x is a lookup
                    for total, gradient in zip(self._weight_gradients[index], gradients[1:], strict=False):
                        if total is not None:  # there may be no biases
                            total += gradient
                    dinitial[index] = gradients[5 : 5 + self._states]
                    dstarts[index] = gradients[5 + self._states :]
                dseries = dx
            dinput = dseries if ragged is None or dseries is None else ragged.with_data(dseries)
            if reset_state is None:
                return dinput, self._join_states(dinitial)
            return dinput, self._join_states(dinitial), self._join_states(dstarts)

        return (series if ragged is None else ragged.with_data(series), last_state), pull_back_all

    def _runners(self, k: int) -> list[Any]:
        """Return what runs a layer by itself: one `Stack` for all its passes, or for each what has the same methods."""
        D = self._directions
        weights = self._core_weights()[k * D : (k + 1) * D]
        if not self._has_context and not self._has_depth:
            return [Stack(self._spec(), weights, D, self.batch_first)]
        from rnncore.context import WindowedPass

        passes = [
            WindowedPass(self, of_pass, reverse)
            if reverse or self.look_back is not None
            else Stack(self._spec(), [of_pass], 1, self.batch_first)
            for of_pass, reverse in zip(weights, (False, True)[:D], strict=True)
        ]
        return [self._deep(k * D + d, runner) for d, runner in enumerate(passes)]

    def _deep(self, index: int, runner: Any) -> Any:
        """Return what runs a pass with its feed-forward layers, of what runs it alone."""
        if not self._has_depth:
            return runner
        from rnncore.depth import DeepPass

        return DeepPass(self, index, runner)

    def _record_pass(self, one: Pass, spec: Spec | Cell, weights: tuple[Array | None, ...]) -> Any:
        """Run a pass for training: y and final states, and what has `pull_back` of a `Recording`."""
        if self._has_depth:
            from rnncore import depth

            return depth.record(self, one, lambda alone: self._record_alone(alone, spec, weights))
        return self._record_alone(one, spec, weights)

    def _record_alone(self, one: Pass, spec: Spec | Cell, weights: tuple[Array | None, ...]) -> Any:
        """Run it without feed-forward layers."""
        if self._context(one.reverse) is not None:
            from rnncore import context

            return context.record(self, one, spec, weights)
        result = core.record_layer(
            self._every,
            spec,
            one.series,
            weights,
            one.state,
            one.rows,
            one.reverse,
            self.batch_first,
            one.resets,
            self._masks(one.N, one.series.shape[:-1]),
        )
        assert result is not None
        return result

    def _masks(self, N: int, steps: tuple[int, ...]) -> tuple[Array | None, Array | None, Array | None]:
        """Draw what a pass takes of new states at each step, and the mask of h in products."""
        return None, None, self._recurrent_mask(N)

    def _recurrent_mask(self, N: int) -> Array | None:
        if self.recurrent_dropout == 0.0:
            return None
        return drop_mask(self.rng, self.recurrent_dropout, (N, self._output_width), self.dtype)


class _WithoutOptions(_Recurrent):
    """A cell that takes no options: the constructor of its class."""

    _dropouts_doc = constructors.INPUT_DROPOUT
    _plain = False  # `functional` does not have it

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        merge: str = "concat",
        look_ahead: int | None = None,
        look_back: int | None = None,
        chunk: int = 1,
        input_dropout: float = 0.0,
        skip: bool = False,
        learn_initial_state: bool = False,
        checkpoint_every: int | None = None,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            merge=merge,
            look_ahead=look_ahead,
            look_back=look_back,
            chunk=chunk,
            input_dropout=input_dropout,
            skip=skip,
            learn_initial_state=learn_initial_state,
            checkpoint_every=checkpoint_every,
            dtype=dtype,
            rng=rng,
        )
