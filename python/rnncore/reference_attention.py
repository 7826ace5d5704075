"""The float64 oracle of attention: NumPy, one look into a memory.

For tests and for reading; nothing of the library calls it. The equations are those of Luong et al. (2015), "Effective
approaches to attention-based neural machine translation", and of Bahdanau et al. (2015), "Neural machine translation by
jointly learning to align and translate".

Letters: N batch rows, S source steps, E size of the memory, Q size of the query, A size inside of additive attention.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from rnncore.reference_loop import Array, OptionalArray, Parameters, Shape, checked, checked_lengths

__all__ = ["KINDS", "attend", "attention_shapes", "leading_size", "named_parameters"]

KINDS = ("dot", "general", "concat", "bahdanau", "location")
PullAttend = Callable[..., tuple[Array, Array, Parameters]]


def attention_shapes(kind: str, Q: int, E: int, A: int, M: int) -> dict[str, Shape]:
    """Return the shape of every parameter of a kind of attention; M is the longest source of "location".

    Examples
    --------
    >>> attention_shapes("general", Q=3, E=2, A=0, M=0)
    {'weight_attention': (3, 2)}
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {KINDS}, got {kind!r}")
    if kind == "dot":
        if Q != E:
            raise ValueError(f"query: expected the size of the memory, {E}, for kind 'dot', got {Q}")
        return {}
    if kind == "general":
        return {"weight_attention": (Q, E)}
    if kind == "location":
        return {"weight_attention": (M, Q)}
    return {"weight_query": (A, Q), "weight_memory": (A, E), "bias_attention": (A,), "weight_score": (A,)}


def named_parameters(given: Mapping[str, OptionalArray] | None, shapes: Mapping[str, Shape]) -> Parameters:
    """Return parameters of exactly these names and shapes; biases may be absent.

    Examples
    --------
    >>> named_parameters({"weight": [1.0]}, {"weight": (1,), "bias_score": (2,)})
    {'weight': array([1.]), 'bias_score': array([0., 0.])}
    """
    there = {name: array for name, array in (given or {}).items() if array is not None}
    missing = [name for name in shapes if name not in there and not name.startswith("bias_")]
    if missing or not there.keys() <= shapes.keys():
        raise ValueError(f"parameters: expected {list(shapes)}, got {list(there)}")
    return {name: checked(name, there.get(name), shape) for name, shape in shapes.items()}


def leading_size(parameters: Mapping[str, OptionalArray] | None, name: str) -> int:
    """Return the first size of a parameter, from which shapes follow; 0 if it is not there.

    Examples
    --------
    >>> leading_size({"weight_score": [1.0, 2.0]}, "weight_score"), leading_size(None, "weight_score")
    (2, 0)
    """
    array = (parameters or {}).get(name)
    return 0 if array is None else len(np.asarray(array))


def attend(
    kind: str, query: ArrayLike, memory: ArrayLike, source_lengths: ArrayLike | None = None,
    parameters: Mapping[str, OptionalArray] | None = None,
) -> tuple[tuple[Array, Array], PullAttend]:  # fmt: skip
    """Look once into a memory.

    Parameters
    ----------
    kind : {"dot", "general", "concat", "bahdanau", "location"}
        How a score is made of query and memory. "concat" and "bahdanau" are one formula; their decoders differ.
    query : array_like, (N, Q)
        What is looked for.
    memory : array_like, (N, S, E)
        Where.
    source_lengths : array_like of int, (N,), optional
        How many steps of each row of the memory are valid, 0 to S; all by default. The others are not read.
    parameters : mapping of str to array_like, optional
        "general": weight_attention (Q, E). "location": weight_attention (M, Q), M >= S. "concat" and "bahdanau":
        weight_query (A, Q), weight_memory (A, E), bias_attention (A,), zeros by default, weight_score (A,).

    Returns
    -------
    (context, weights) : ndarrays, (N, E) and (N, S)
        Weights are zero at padding. A row whose source has no steps has zero weights and a zero context.
    pull : callable, ``pull(dcontext, dweights=None) -> (dquery, dmemory, dparameters)``

    Raises
    ------
    ValueError
        If the kind is unknown, a name is unknown or missing, or an array has another shape than stated.

    Examples
    --------
    >>> (context, weights), pull = attend("dot", [[1.0]], [[[0.0], [np.log(3.0)]]])
    >>> weights
    array([[0.25, 0.75]])
    """
    q, m = np.array(query, np.float64), np.array(memory, np.float64)
    if q.ndim != 2 or m.ndim != 3 or len(q) != len(m):
        raise ValueError(f"query, memory: expected shapes (N, Q) and (N, S, E), got {q.shape} and {m.shape}")
    (N, Q), (_, S, E) = q.shape, m.shape
    A, M = leading_size(parameters, "weight_score"), leading_size(parameters, "weight_attention")
    w = named_parameters(parameters, attention_shapes(kind, Q, E, A, M))
    if kind == "location" and M < S:
        raise ValueError(f"weight_attention: expected at least {S} rows, those of the memory's steps, got {M}")
    lengths = checked_lengths(source_lengths, (N,), S, "source_lengths")
    valid = np.arange(S) < lengths[:, None]
    m = np.where(valid[:, :, None], m, 0.0)  # padding may be anything

    # the scores e (N, S)
    if kind == "dot":
        # e_s = q . m_s
        e = np.einsum("nq,nsq->ns", q, m)
    elif kind == "general":
        # e_s = q . (W m_s)
        e = np.einsum("nq,qe,nse->ns", q, w["weight_attention"], m)
    elif kind == "location":
        # e_s = (W q)_s
        e = (q @ w["weight_attention"].T)[:, :S]
    else:
        # e_s = v . k_s;  k_s = tanh(W_q q + W_m m_s + b)
        inside = (q @ w["weight_query"].T)[:, None] + m @ w["weight_memory"].T + w["bias_attention"]
        k = np.tanh(inside)
        e = k @ w["weight_score"]

    # a = softmax of e over the valid steps;  context = sum_s a_s m_s
    largest = np.where(valid, e, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    exps = np.where(valid, np.exp(np.where(valid, e - np.where(valid, largest, 0.0), 0.0)), 0.0)
    a = exps / np.where(lengths[:, None] > 0, exps.sum(axis=1, keepdims=True), 1.0)
    context = np.einsum("ns,nse->ne", a, m)

    def pull(dcontext: OptionalArray, dweights: OptionalArray = None) -> tuple[Array, Array, Parameters]:
        dc = checked("dcontext", dcontext, (N, E))
        dw = {name: np.zeros_like(array) for name, array in w.items()}
        # context = sum_s a_s m_s:    da_s = dcontext . m_s;  dm_s = a_s dcontext
        da = np.einsum("ne,nse->ns", dc, m) + np.where(valid, checked("dweights", dweights, (N, S)), 0.0)
        dm = a[:, :, None] * dc[:, None]
        # a = softmax(e):             de_s = a_s (da_s - sum_r a_r da_r)
        de = a * (da - (a * da).sum(axis=1, keepdims=True))
        if kind == "dot":  # dq = sum_s de_s m_s;  dm_s += de_s q
            dq = np.einsum("ns,nse->ne", de, m)
            dm += de[:, :, None] * q[:, None]
        elif kind == "general":  # with g = sum_s de_s m_s:  dq = W g;  dW = q g';  dm_s += de_s W' q
            g = np.einsum("ns,nse->ne", de, m)
            dq = g @ w["weight_attention"].T
            dw["weight_attention"] = q.T @ g
            dm += de[:, :, None] * (q @ w["weight_attention"])[:, None]
        elif kind == "location":  # dq = W' de;  dW = de q'
            dq = de @ w["weight_attention"][:S]
            dw["weight_attention"][:S] = de.T @ q
        else:  # dv = sum de_s k_s;  d(inside)_s = de_s v (1 - k_s^2)
            dw["weight_score"] = np.einsum("ns,nsa->a", de, k)
            dinside = de[:, :, None] * w["weight_score"] * (1.0 - k * k)
            of_query = dinside.sum(axis=1)
            dq = of_query @ w["weight_query"]
            dw["weight_query"] = of_query.T @ q
            dw["bias_attention"] = of_query.sum(axis=0)
            dw["weight_memory"] = np.einsum("nsa,nse->ae", dinside, m)
            dm += dinside @ w["weight_memory"]
        return dq, dm, dw

    return (context, a.copy()), pull
