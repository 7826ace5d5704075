"""Encoder-decoder networks: from a sequence to another of any length, with or without attention.

`Seq2Seq` puts two models together: the encoder reads the source, and the decoder writes the target from what it left.
`attention` has the decoder's time loop with attention, `decoding` the ways to write without a target.
"""

from __future__ import annotations  # np.random in annotations would import it

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rnncore import decoding
from rnncore._arguments import number
from rnncore._conversion import as_array
from rnncore.attention import Attention, Attentive, check_decoder, state_parts
from rnncore.bridge import Bridge, StateOf
from rnncore.decoder import parts_of, vjp_through
from rnncore.hypotheses import Hypothesis
from rnncore.layer import Array, Layer, PullBack, State, _build, _no_state
from rnncore.models import Container
from rnncore.padding import lengths_of, padded, padded_pair
from rnncore.schedules import Schedule, from_config
from rnncore.stepping import Stepping

__all__ = ["Seq2Seq"]


class Seq2Seq(Container):
    """An encoder, and a decoder that begins where the encoder ends (Sutskever et al. 2014; Cho et al. 2014).

    With attention, the decoder's time loop looks into what the encoder made of each step of the source, (N, S, E):

    ::

        "dot", "general", "concat", "location"   (Luong et al. 2015)
            h_t = cell([y_t; a_{t-1}], h_{t-1})    c_t = sum_s w_ts m_s, w_t = softmax(score(h_t, m))
        "bahdanau"   (Bahdanau et al. 2015)
            c_t = sum_s w_ts m_s, w_t = softmax(score(h_{t-1}, m))    h_t = cell([y_t; c_t], h_{t-1})
        a_t = tanh(W_c [c_t; h_t] + b_c), which the layers after the recurrent one read

        dot       h . m_s                          general   h . W m_s
        concat    v . tanh(W_q h + W_m m_s + b)    bahdanau  likewise
        location  (W h)_s

    Parameters
    ----------
    encoder : Layer
        A recurrent layer, of one direction or two, or a `Sequential` with one in it: from sources (N, S, ...) to
        (N, S, E).
    decoder : Layer
        A recurrent layer of one direction, or a `Sequential` with exactly one in it, such as an `Embedding`, a `GRU`
        and a `Linear`: from the target's tokens or numbers, the one before each step, to what is expected of the step.
        With attention the recurrent layer has no dropout, zoneout, skip or learned initial state.
    attention : {None, "dot", "general", "concat", "bahdanau", "location"}
        How a state of the decoder is compared with the steps of the source. "dot" needs E = H.
    bridge : {"auto", "copy", "linear", "zeros"}
        What the decoder's initial state is made of: the encoder's final state itself, whose shapes must be the same; an
        affine map of it with tanh; or nothing. "auto" is "copy" where that fits, and "linear" elsewhere, as after an
        encoder of two directions.
    input_feeding : bool
        Whether the decoder reads its a_{t-1} with y_t (Luong et al. 2015), by ``weight_feed`` (G*H, H). Not of
        "bahdanau", which reads c_t so. Default: True.
    attention_size : int, optional
        Numbers inside "concat" and "bahdanau". Default: H.
    longest_source : int, optional
        Of "location": how many steps a source may have.
    teacher_forcing : float or callable
        Probability with which a step of `vjp` reads the target's token and not the model's own, most probable one:
        scheduled sampling (Bengio et al. 2015). Or a schedule of `rnncore.schedules`, or another function, of the
        number of updates, which a `Trainer` tells. Below 1, a call takes one pass of steps more. Default: 1.
    start, end : int, optional
        The tokens that begin and end a target, for the methods that write one.
    rng : numpy.random.Generator or int, optional
        Source of the initial parameters of attention and bridge, and of the draws of teacher forcing.

    Attributes
    ----------
    parameters, gradients : Views
        Those of the encoder, ``"0."``, of the decoder, ``"1."``, and, as there are, of the attention and the bridge,
        ``"2."`` and ``"3."``.

    Notes
    -----
    x is a pair (source, target), and lengths a pair too, each as any layer takes it: (N, S, ...) and (N, T, ...), a
    list of arrays, or a `Packed`. Outputs are (N, T, ...) with padding. `rnncore.data.Pairs` makes such batches.

    Training runs the decoder's whole target in one call of the core, forward and backward.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> model = rc.Seq2Seq(
    ...     rc.Sequential(rc.Embedding(10, 8, rng=0), rc.GRU(8, 16, bidirectional=True, rng=1)),
    ...     rc.Sequential(rc.Embedding(12, 8, rng=2), rc.GRU(8, 16, rng=3), rc.Linear(16, 12, rng=4)),
    ...     attention="general", start=0, end=1, rng=5,
    ... )
    >>> source, target = np.array([[3, 4, 5], [6, 7, 0]]), np.array([[0, 2, 3, 4], [0, 2, 0, 0]])
    >>> model((source, target), lengths=([3, 2], [4, 2])).shape
    (2, 4, 12)
    >>> found = model.greedy(source, [3, 2], max_steps=5)
    >>> found[0].attention.shape[1]
    3
    """

    resets = False

    def __init__(
        self,
        encoder: Layer,
        decoder: Layer,
        attention: str | None = None,
        *,
        bridge: str = "auto",
        input_feeding: bool = True,
        attention_size: int | None = None,
        longest_source: int | None = None,
        teacher_forcing: float | Callable[[int], float] = 1.0,
        start: int | None = None,
        end: int | None = None,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        for name, layer in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(layer, Layer):
                raise TypeError(f"{name}: expected a layer, got {type(layer).__name__}")
        self.encoder, self.decoder = encoder, decoder
        self.bridge, self.input_feeding = bridge, bool(input_feeding)
        self.attention, self.attention_size, self.longest_source = attention, attention_size, longest_source
        self.start, self.end = start, end
        self.teacher_forcing = teacher_forcing
        self._forced = self._forcing_at(0)
        self.rng = np.random.default_rng(rng)

        self._read, self._parts = StateOf(encoder), parts_of(decoder)
        recurrent = self._parts.recurrent
        self._bridge = Bridge(bridge, self._read.layer, recurrent, rng=self.rng)
        self._attention: Attention | None = None
        if attention is not None:
            check_decoder(recurrent)
            memory_size = encoder.output_size
            if memory_size is None:
                raise ValueError(f"encoder: expected one with outputs of a known size, got {encoder!r}")
            self._attention = Attention(
                attention,
                recurrent._output_width,
                memory_size,
                recurrent._gates * recurrent.hidden_size,
                attention_size=attention_size,
                longest_source=longest_source,
                input_feeding=self.input_feeding,
                dtype=recurrent.dtype,
                rng=self.rng,
            )
        elif attention_size is not None or longest_source is not None:
            raise ValueError("attention_size, longest_source: expected None without attention")
        super().__init__(encoder, decoder, *([self._attention] if self._attention else []), self._bridge)
        self.output_size = decoder.output_size

    # ------------------------------------------------------------------------------------------ description

    def config(self) -> dict[str, Any]:
        """Return the descriptions of encoder and decoder, and the other arguments that are not at their defaults.

        A function that is no schedule of `rnncore.schedules` is left out.
        """
        config = Layer.config(self) | {"encoder": self.encoder.description(), "decoder": self.decoder.description()}
        if callable(self.teacher_forcing):
            del config["teacher_forcing"]
        if isinstance(self.teacher_forcing, Schedule):
            config["teacher_forcing"] = self.teacher_forcing.config()
        return config

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Seq2Seq:
        arguments = dict(config)
        if isinstance(arguments.get("teacher_forcing"), dict):
            arguments["teacher_forcing"] = from_config(arguments["teacher_forcing"])
        return cls(_build(arguments.pop("encoder")), _build(arguments.pop("decoder")), **arguments)

    def __repr__(self) -> str:
        """Return what makes a model like this one."""
        given = "".join(f", {k}={v!r}" for k, v in self.config().items() if k not in ("encoder", "decoder"))
        return f"Seq2Seq({self.encoder!r}, {self.decoder!r}{given})"

    def input_shape(self) -> tuple[Any, ...]:
        """Return what can be said of the shape of a pair: nothing but its batch axis."""
        return ("N",)

    def output_lengths(self, lengths: Any) -> ArrayLike | None:
        """Return the lengths of the target, which are those of the output."""
        target: ArrayLike | None = None if lengths is None else self.decoder.output_lengths(lengths[1])
        return target

    def generators(self) -> dict[str, np.random.Generator]:
        """Return what is drawn from in training."""
        assert self.rng is not None
        return super().generators() | {"": self.rng}

    # ------------------------------------------------------------------------------------------ computation

    def __call__(self, x: Any, lengths: Any = None) -> Array:  # type: ignore[override]  # there are no resets
        """Run the model on a pair (source, target), each step with the target's own steps before it.

        Parameters
        ----------
        x : pair of array_like, (N, S, ...) and (N, T, ...)
            Or lists of N arrays, or `Packed`.
        lengths : pair of array_like of int (N,), optional
            Valid steps of both, as of any layer; None for all.

        Returns
        -------
        y : ndarray, (N, T, output_size)
        """
        y: Array = self.run(x, None, lengths)[0]
        return y

    def run(self, x: Any, state: State = None, lengths: Any = None) -> tuple[Any, State]:
        """Run the model on a pair; there is no state to begin in or to end with."""
        _no_state(self, state)
        source, target, source_lengths, lengths = padded_pair(x, lengths)
        return self._stepping(source, source_lengths).whole(target, lengths)[0], None

    def vjp(self, x: Any, state: State = None, lengths: Any = None) -> tuple[tuple[Any, State], PullBack]:
        """Run the model on a pair for training; see `Layer.vjp`. The gradient of x is a pair, None for tokens."""
        _no_state(self, state)
        source, target, source_lengths, lengths = padded_pair(x, lengths)
        if self._forced < 1.0:
            target = self._mixed(source, target, source_lengths)
        (memory, encoded), pull_encoder = self.encoder.vjp(source, None, source_lengths)
        final = self._read.of(encoded)
        first, pull_bridge = self._bridge.made_of_vjp(final)

        def pull_source(dmemory: Array | None, dfirst: State) -> Any:
            return pull_encoder(dmemory, self._read.within(pull_bridge(dfirst)))[0]

        if self._attention is None:
            written = StateOf(self.decoder)
            (y, _), pull_decoder = self.decoder.vjp(target, written.within(first), lengths)

            def pull_back(dy: Any = None, dstate: State = None) -> tuple[Any, State]:
                dtarget, dstates = pull_decoder(dy, None)
                return (pull_source(None, written.of(dstates)), dtarget), None

            return (y, None), pull_back

        recurrent = self._parts.recurrent
        inputs, pull_front = vjp_through(self._parts.front, target, lengths)
        dtype = recurrent.dtype
        attentive = Attentive(recurrent, self._attention)
        memory = as_array("memory", memory, dtype)
        steps = lengths_of(self.encoder.output_lengths(source_lengths), memory)
        parts = state_parts(first, recurrent._states)
        (a, _), pull_attentive = attentive.vjp(as_array("target", inputs, dtype), lengths, parts, memory, steps)
        y, pull_head = vjp_through(self._parts.head, a, lengths)

        def pull_back_attentive(dy: Any = None, dstate: State = None) -> tuple[Any, State]:
            da = pull_head(np.zeros_like(y) if dy is None else dy)
            dinputs, dparts, dmemory = pull_attentive(as_array("dy", da, dtype))
            dfirst = dparts if recurrent._states > 1 else dparts[0]
            return (pull_source(dmemory, dfirst), pull_front(dinputs)), None

        return (y, None), pull_back_attentive

    def attention_weights(self, x: Any, lengths: Any = None) -> Array:
        """Return where the decoder looks at each step of a target that is given: (N, T, S), zero at padded steps.

        Parameters are those of a call. ValueError if there is no attention.
        """
        source, target, source_lengths, lengths = padded_pair(x, lengths)
        weights = self._stepping(source, source_lengths).whole(target, lengths)[1]
        if weights is None:
            raise ValueError("attention_weights: expected a model with attention, got attention=None")
        return weights

    def on_step(self, step: int) -> None:
        """Take the teacher forcing of the update that follows `step` others."""
        super().on_step(step)
        self._forced = self._forcing_at(step)

    def _forcing_at(self, step: int) -> float:
        forcing = self.teacher_forcing
        return number("teacher_forcing", forcing(step) if callable(forcing) else forcing, "in [0, 1]")

    def _mixed(self, source: Array, target: Array, source_lengths: Array | None) -> Array:
        """Return the target with the model's own tokens in the place of some."""
        assert self.rng is not None
        own = self.rng.random(target.shape[:2]) >= self._forced
        return self._stepping(source, source_lengths).mixed(target, own)

    # -------------------------------------------------------------------------------------------- decoding

    def greedy(
        self,
        source: Any,
        lengths: ArrayLike | None = None,
        *,
        max_steps: int,
        start: int | None = None,
        end: int | None = None,
    ) -> list[Hypothesis]:
        """Write a target for each source: the most probable token at each step.

        Parameters
        ----------
        source : array_like, (N, S, ...)
            Or a list of arrays, or a `Packed`.
        lengths : array_like of int (N,), optional
            Valid steps of the sources.
        max_steps : int
            How many tokens there may be, the end among them.
        start, end : int, optional
            The tokens that begin and end a target. Default: the model's own.

        Returns
        -------
        list of Hypothesis
            One for each source; see `rnncore.decoding.greedy`. With attention, each has its weights, (L, S).
        """
        step, state, tokens, end = self._writing(source, lengths, start, end)
        return decoding.greedy(step, state, tokens, end, max_steps, select=Stepping.select)

    def sample(
        self,
        source: Any,
        lengths: ArrayLike | None = None,
        *,
        max_steps: int,
        rng: np.random.Generator | int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> list[Hypothesis]:
        """Write a target for each source, each token drawn; for the arguments see `rnncore.decoding.sample`."""
        step, state, tokens, end = self._writing(source, lengths, start, end)
        return decoding.sample(
            step,
            state,
            tokens,
            end,
            max_steps,
            rng=rng,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            select=Stepping.select,
        )

    def beam_search(
        self,
        source: Any,
        lengths: ArrayLike | None = None,
        *,
        max_steps: int,
        beam_width: int = 5,
        n_best: int = 1,
        length_penalty: float = 0.0,
        start: int | None = None,
        end: int | None = None,
    ) -> list[list[Hypothesis]]:
        """Write the best targets for each source that a beam search finds; see `rnncore.decoding.beam_search`."""
        step, state, tokens, end = self._writing(source, lengths, start, end)
        return decoding.beam_search(
            step,
            state,
            tokens,
            end,
            max_steps,
            beam_width=beam_width,
            n_best=n_best,
            length_penalty=length_penalty,
            select=Stepping.select,
        )

    def _writing(self, source: Any, lengths: ArrayLike | None, start: int | None, end: int | None) -> tuple[Any, ...]:
        """Return the step, the state, the first tokens and the last one."""
        start, end = (self.start if start is None else start), (self.end if end is None else end)
        if start is None:
            raise ValueError("start: expected the token that begins a target, got None")
        array, steps = padded("source", source, lengths)
        stepping = self._stepping(array, steps)
        return stepping.step, stepping.first, np.full(len(array), start), end

    def _stepping(self, source: Array, source_lengths: Array | None) -> Stepping:
        """Run the encoder, and make the decoder ready to take steps."""
        memory, encoded = self.encoder.run(source, None, source_lengths)
        first = self._bridge.made_of(self._read.of(encoded))
        values = steps = None
        if self._attention is not None:
            values = as_array("memory", memory, self._parts.recurrent.dtype)
            steps = lengths_of(self.encoder.output_lengths(source_lengths), values)
        return Stepping(self._parts, self._attention, first, values, steps, len(source))
