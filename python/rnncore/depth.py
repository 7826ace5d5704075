"""Feed-forward layers around the passes of recurrent layers: the depth of their input and of their output.

    x^1 = x    x^(k+1) = act(W_k x^k + b_k)    h = the pass over x^d    y^1 = h    y^(k+1) = act(V_k y^k + c_k)

Deep input and deep output of Pascanu et al. 2014, in every pass: `input_depth` - 1 layers make what W reads of the
input, `output_depth` - 1 what the pass gives of h, which remains the state. They run over the whole series before and
after whatever runs the pass, as `layerwise` has it. Padded steps are not read, and are zero. Not public.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from rnncore._conversion import Array
from rnncore.affine import activation_of, linear, linear_vjp
from rnncore.context import Batch
from rnncore.layerwise import Parts, Pass
from rnncore.streaming import Stages, Stateful

if TYPE_CHECKING:
    from rnncore.recurrent import _Recurrent

__all__: list[str] = []  # for recurrent layers


def shapes(layer: _Recurrent, I: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters of the feed-forward layers of a pass that reads I numbers."""
    H, P = layer.hidden_size, layer._output_width
    found: dict[str, tuple[int, ...]] = {}
    for place, depth, of_input, size in (("input", layer.input_depth, I, H), ("output", layer.output_depth, P, P)):
        for k in range(1, depth):
            found[f"weight_{place}{k}"] = (size, of_input if k == 1 else size)
            found[f"bias_{place}{k}"] = (size,)
    return found


class FeedForward:
    """The layers at one end of a pass, "input" or "output"; perhaps none."""

    def __init__(self, layer: _Recurrent, place: str, index: int) -> None:
        self._layer = layer
        suffix, depth = layer._passes()[index][1], getattr(layer, f"{place}_depth")
        self._names = [(f"weight_{place}{k}{suffix}", f"bias_{place}{k}{suffix}") for k in range(1, depth)]
        self._activation = layer._of_feed_forward

    def _arrays(self) -> list[tuple[Array, Array | None]]:
        parameters = self._layer.parameters
        return [(parameters[weight], parameters.get(bias)) for weight, bias in self._names]

    def run(self, series: Any, rows: Any) -> Any:
        """Return what the last layer gives at every step."""
        if not self._names:
            return series
        batch = Batch(series, rows, self._layer.batch_first)
        y = batch.x
        for weight, bias in self._arrays():
            y = linear(y, weight, bias, activation=self._activation)
        return batch.series(y)

    def record(self, series: Any, rows: Any) -> tuple[Any, Callable[[Array | None], Array | None]]:
        """Run them for training, with the function that takes the gradient back and adds those of parameters.

        Steps lie one sequence after the other, so that gradients are summed in the same order in all layouts.
        """
        if not self._names:
            return series, lambda dy: dy
        batch = Batch(series, rows, self._layer.batch_first)
        y, vjps = batch.x, []
        for weight, bias in self._arrays():
            y, vjp = linear_vjp(y, weight, bias, activation=self._activation)
            vjps.append(vjp)

        def pull_back(dy: Array | None) -> Array | None:
            if dy is None:
                return None
            drows, total = batch.joined(dy), self._layer.gradients
            for (weight, bias), vjp in zip(reversed(self._names), reversed(vjps), strict=True):
                gradients = vjp(drows)
                total[weight] += gradients.weight
                if bias in total:
                    total[bias] += gradients.bias
                drows = gradients.x
            return batch.series(drows)

        return batch.series(y), pull_back

    def append(self, stages: Stages) -> None:
        """Append the stages that they are in a stream."""
        stages += [("linear", weight, bias, activation_of(self._activation)) for weight, bias in self._arrays()]


class DeepPass:
    """A pass in inference between its feed-forward layers: it has the methods of the `Stack` that runs it."""

    def __init__(self, layer: _Recurrent, index: int, runner: Any) -> None:
        self._runner = runner
        self._before, self._after = (FeedForward(layer, place, index) for place in ("input", "output"))

    def forward(self, series: Any, state: Any, rows: Any, *resets: Any) -> tuple[Array, Any]:
        """Return y and the final state; `resets` are a mask and a state, or nothing."""
        run = self._runner.forward_with_resets if resets else self._runner.forward
        result = run(self._before.run(series, rows), state, rows, *resets)
        assert result is not None
        return self._after.run(result[0], rows), result[1]

    forward_with_resets = forward


def record(layer: _Recurrent, one: Pass, record_pass: Callable[[Pass], Any]) -> tuple[Any, Any]:
    """Run a pass for training: as `_Recurrent._record_pass`, which `record_pass` is of the pass alone."""
    before, after = (FeedForward(layer, place, one.place) for place in ("input", "output"))
    series, pull_input = before.record(one.series, one.rows)
    (h, *final), recording = record_pass(one._replace(series=series))
    y, pull_output = after.record(h, one.rows)
    if y is not h:
        y = y.copy()  # which the caller may write to, while the gradient of an activation needs the other
    return (y, *final), DeepRecording(recording, pull_input, pull_output)


class DeepRecording(NamedTuple):
    """What a recorded pass leaves for its pull-back."""

    recording: Any  # of the pass alone
    pull_input: Callable[[Array | None], Array | None]
    pull_output: Callable[[Array | None], Array | None]

    def pull_back(self, dy: Array | None, dlast: Parts) -> tuple[Any, ...]:
        """Return what `pull_back` of a `Recording` does; gradients of feed-forward layers are added."""
        dx, *others = self.recording.pull_back(self.pull_output(dy), dlast)
        return self.pull_input(dx), *others


def append_stages(layer: _Recurrent, stages: Stages, initial: tuple[Array, ...] | None) -> Stateful | None:
    """Append the stages of a layer of one direction: of every layer of the stack, its own.

    Those of a stack add nothing to each other's outputs: where that is to be done, the stream is one in Python.
    """
    if layer._in_python:
        stages.append(("python",))
        return None
    places, weights = [], layer._core_weights()
    for k in range(layer.num_layers):
        of_layer = None if initial is None else tuple(part[k : k + 1] for part in initial)
        FeedForward(layer, "input", k).append(stages)
        places.append(sum(kind != "embedding" for kind, *_ in stages))
        stages.append(("recurrent", layer._spec(), weights[k : k + 1], of_layer))
        FeedForward(layer, "output", k).append(stages)
    return Stateful(tuple(places), layer._state_names, layer._state_sizes, layer.num_layers, initial)
