"""Files of arrays with a description: safetensors, whose metadata holds JSON. What is in them is for others to know.

Written under a temporary name, flushed to the disk and then renamed, so that a file is always whole: the old one or the
new one. No pickle: reading a file runs nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_json", "write"]

Array = NDArray[Any]

FORMAT = 1  # of everything rnncore writes; files of a higher one are refused


def write(path: str | os.PathLike[str], kind: str, arrays: Mapping[str, Array], description: Mapping[str, Any]) -> None:
    """Write arrays and a description to a file, in one piece or not at all.

    Parameters
    ----------
    path : path-like
        Where to. A file there is replaced.
    kind : str
        What the file is, "model" or "checkpoint".
    arrays : mapping of str to ndarray
        Any that safetensors knows.
    description : mapping
        What JSON knows.

    Raises
    ------
    OSError
        If it cannot be written, as on a full disk. What was at `path` is untouched then, and nothing else is left.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(f"{folder}/a.safetensors", "model", {"w": np.ones(3)}, {"size": 3})
    ...     arrays, description = read(f"{folder}/a.safetensors", "model")
    >>> arrays["w"], description
    (array([1., 1., 1.]), {'size': 3})
    """
    import json  # here, as all of these: importing them would take as long as importing the package
    import tempfile

    from safetensors.numpy import save

    text = json.dumps({"format": FORMAT, "kind": kind, "description": description}, allow_nan=True)
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, {"rnncore": text})
    folder, name = os.path.split(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _flush_folder(folder)


def read(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read what `write` wrote: the arrays and the description.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is damaged, is not a file of rnncore or not of this kind, or was written by a newer rnncore.
    """
    import json

    from safetensors import SafetensorError, safe_open

    with open(path, "rb"):
        pass  # an OSError that says why, where safetensors' own would not
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{os.fspath(path)}: not a whole safetensors file ({error})") from None
    if "rnncore" not in metadata:
        raise ValueError(f"{os.fspath(path)}: a safetensors file, but not one that rnncore wrote")
    try:
        header = json.loads(metadata["rnncore"])
        found, found_kind, description = header["format"], header["kind"], header["description"]
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{os.fspath(path)}: its description is damaged") from None
    if found != FORMAT:
        raise ValueError(f"{os.fspath(path)}: expected format {FORMAT}, got {found}: written by a newer rnncore")
    if found_kind != kind:
        raise ValueError(f"{os.fspath(path)}: expected a {kind}, got a {found_kind}")
    return arrays, description


def to_bytes(arrays: Mapping[str, Array]) -> bytes:
    """Return arrays as bytes in the safetensors format."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def from_bytes(data: bytes, like: Mapping[str, Array]) -> dict[str, Array]:
    """Return the states in bytes, which must be arrays of the names, types and shapes of these; ValueError if not."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
    except SafetensorError as error:
        raise ValueError(f"data: expected bytes of a stream's state: {error}") from error
    mine, theirs = ({k: (a.dtype.name, a.shape) for k, a in v.items()} for v in (like, arrays))
    if mine != theirs:
        raise ValueError(f"data: expected states {mine}, got {theirs}")
    return arrays


def as_json(value: Any) -> Any:
    """Return what `read` gives for a value that was written.

    Examples
    --------
    >>> as_json({"sizes": (3, 4)})
    {'sizes': [3, 4]}
    """
    import json

    return json.loads(json.dumps(value))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: str) -> None:
    """Make the new name last through a loss of power, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
