"""Constructors of layers: what they take, and what those of recurrent layers have in common."""

from __future__ import annotations  # np.random in annotations would import it

import inspect
from typing import Any, TypedDict

import numpy as np
from numpy.typing import DTypeLike

__all__: list[str] = []  # for layers


class Shared(TypedDict, total=False):
    """Keywords of the layers of all cells without options."""

    merge: str
    look_ahead: int | None
    look_back: int | None
    chunk: int
    input_dropout: float
    skip: bool
    learn_initial_state: bool
    checkpoint_every: int | None
    dtype: DTypeLike
    rng: np.random.Generator | int | None


class SharedWithOptions(Shared, total=False):
    """And of those with options."""

    recurrent_dropout: float
    models: int | None


def arguments(cls: type) -> dict[str, inspect.Parameter]:
    """Return what a constructor takes by name: its own arguments, and keywords that it passes on to its base."""
    found: dict[str, inspect.Parameter] = {}
    kinds: tuple[Any, ...] = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        _, *own = inspect.signature(vars(base)["__init__"]).parameters.values()
        found |= {p.name: p for p in own if p.kind in kinds and p.name not in found}
        if all(p.kind is not p.VAR_KEYWORD for p in own):
            break
        kinds = (inspect.Parameter.KEYWORD_ONLY,)  # the others of a base are for a constructor to give
    return found


ARGUMENTS = """
    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        Layers stacked on each other, each reading the output of the one below.
    bias : bool
        Whether there are biases, ``bias_ih`` and ``bias_hh``.
    batch_first : bool
        Whether x and y are (N, T, ...), the default here, or (T, N, ...), the default of torch. States are
        (D*L, N, H) either way.
    dropout : float
        Probability with which `vjp` drops an element of the output of every layer but the last.
    bidirectional : bool
        Run a second set of weights over each sequence from its end, and join the outputs: D = 2.
    merge : {{"concat", "sum", "mean", "multiply"}}
        How the outputs of both directions become the output of each layer: side by side, which makes `output_size`
        2*H, or unit by unit, which leaves it H; in a stack the next layer reads that. States are of both either way.
    look_ahead : int, optional
        Steps that the second direction of each layer sees beyond its own: its output at a step is what there is after
        the k steps that follow, read from the last of them, and that step itself, from the initial state. Delays of
        stacked layers add up. It takes k + 1 times as long, unless there is a `chunk`. Default: all that follow.
    look_back : int, optional
        The same of the first direction, and of a layer of one direction: k steps before. Default: all before.
    chunk : int
        Read c steps together with the k beyond them, as in latency-controlled BLSTM (Zhang et al. 2016): a step sees k
        to k + c - 1 others, and a direction takes (c + k) / c times as long. Default: 1.
{options}{dropouts}    skip : bool
        Add to the output of each layer but the first what it has read. Default: False.
    learn_initial_state : bool
        Whether there are parameters for the state before the first step, ``initial_h_l0`` and so on, zeros at the
        start. They stand in for a state, and for the state after resets, that is not given. Default: False.
    checkpoint_every : int, optional
        For long sequences: `vjp` keeps the states every so many steps and no more, and its pull-back runs the steps
        between again, one segment at a time (Chen et al. 2016). Results have the same bits; training takes up to half
        as much time more. For k = `checkpoint_every`, each layer and direction keeps N T/k S H numbers beside its
        output and its packed weights, and the pull-back has N k K H for the segment it is at, instead of N T K H for
        each layer all the while: S is 1, for LSTM 2; K is 1 for RNN, 6 for LSTM, 5 for GRU. A segment has as many
        steps or more, so that it has about 512 rows of x, and k >= T makes one segment. Default: keep all.
{models}    dtype : {{float32, float64}}
        Of the parameters, the computation and the results.
    rng : numpy.random.Generator or int, optional
        Source of the initial parameters, each uniform in +-1/sqrt(hidden_size), and of dropout. The first of many
        networks begins as one alone would.

    Attributes
    ----------
    parameters : Views
        Arrays by name: ``weight_ih_l0`` (G*H, I), ``weight_hh_l0`` (G*H, H), ``bias_ih_l0``, ``bias_hh_l0`` (G*H,),
        those of options, then with the suffix ``_reverse``, then ``_l1``, ...: names, shapes and gate order of torch,
        where torch has them. Views into `flat_parameters`.
    gradients : Views
        Of the same names and shapes; views into `flat_gradients`. Pull-backs add to them.
    flat_parameters, flat_gradients : ndarray, (P,)
        All parameters, all gradients, in one contiguous vector each; (M, P) of many networks.
"""


INPUT_DROPOUT = """    input_dropout : float
        Variational dropout (Gal & Ghahramani 2016), in `vjp`: probability with which an input of each layer is dropped
        at all steps of a sequence: one mask for all of them. Default: 0.
"""
DROPOUTS = """    input_dropout, recurrent_dropout : float
        Variational dropout (Gal & Ghahramani 2016), in `vjp`: probability with which an input of each layer, or an
        element of h where it is multiplied by weights, is dropped at all steps of a sequence: one mask for all of them.
        Default: 0.
"""
MODELS = """    models : int, optional
        M, for M networks of this shape, run in one call, each in the bits of a layer of its own: parameters are
        (M, ...) and flat vectors (M, P), x is (N, T, I) for all or (M, N, T, I), lengths (N,) or (M, N), y
        (M, N, T, D*H), and states are (M, D*L, N, H). The gradient of an x that all share is summed over them, the
        first first. x has a batch axis always. Default: one network, without that axis.
"""
