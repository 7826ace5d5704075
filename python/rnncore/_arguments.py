"""Constructor arguments that are kept as attributes: their checks, and from them `repr` and `config`.

What optimisers and schedules share. Not public.
"""

import operator
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, signature
from math import inf
from typing import Any

__all__: list[str] = []

_CONDITIONS: dict[str, Callable[[float], bool]] = {
    "finite": lambda x: -inf < x < inf,
    "finite and >= 0": lambda x: 0 <= x < inf,
    "finite and > 0": lambda x: 0 < x < inf,
    "> 0": lambda x: x > 0,
    "in [0, 1)": lambda x: 0 <= x < 1,
    "in [0, 1]": lambda x: 0 <= x <= 1,
    "in (0, 1]": lambda x: 0 < x <= 1,
    "in (0, 1)": lambda x: 0 < x < 1,
}


def number(name: str, value: Any, condition: str) -> float:
    """Return a number that meets one of the conditions above as a float, or raise."""
    try:
        x = value if type(value) is float else float(operator.pos(value))  # pos: float() alone would take strings
    except TypeError:
        raise TypeError(f"{name}: expected a number {condition}, got {type(value).__name__}") from None
    if not _CONDITIONS[condition](x):  # as for NaN
        raise ValueError(f"{name}: expected a number {condition}, got {value!r}")
    return x


def count(name: str, value: Any, least: int = 1) -> int:
    """Return an integer that is not too small, or raise."""
    try:
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer >= {least}, got {type(value).__name__}") from None
    if n < least:
        raise ValueError(f"{name}: expected an integer >= {least}, got {n}")
    return n


def check_keys(name: str, mapping: Any, expected: Iterable[str]) -> None:
    """Raise unless this is a mapping with these keys and no others."""
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{name}: expected a mapping, got {type(mapping).__name__}")
    names = list(expected)
    if set(mapping) != set(names):
        raise ValueError(f"{name}: expected the keys {names}, got {list(mapping)}")


class Configured:
    """Something that keeps every argument of its constructor in an attribute of the argument's name."""

    def _arguments(self) -> list[tuple[Parameter, Any]]:
        return [(parameter, getattr(self, name)) for name, parameter in signature(type(self)).parameters.items()]

    def __repr__(self) -> str:
        """Return the constructor's call, with what is not at its default."""
        shown = []
        for parameter, value in self._arguments():
            if parameter.default is Parameter.empty:
                shown.append(repr(value))
            elif value != parameter.default:
                shown.append(f"{parameter.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def config(self) -> dict[str, Any]:
        """Return the name of the class, as "type", and every argument, in values that JSON has.

        Raises
        ------
        TypeError
            If an argument has no such form, as a function that is a schedule.
        """
        arguments = {parameter.name: _plain(parameter.name, value) for parameter, value in self._arguments()}
        return {"type": type(self).__name__, **arguments}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Configured):
        return value.config()
    if isinstance(value, tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, bool | int | float):
        return value
    raise TypeError(f"{name}: expected a number or a schedule of rnncore.schedules, got {value!r}")


def configured(name: str, config: Any, classes: Mapping[str, Callable[..., Any]]) -> Any:
    """Return what `config` describes, of one of these classes; the arguments come as they stand there."""
    if not isinstance(config, Mapping):
        raise TypeError(f"{name}: expected a mapping, got {type(config).__name__}")
    kind = config.get("type")
    if not isinstance(kind, str) or kind not in classes:
        raise ValueError(f"{name}['type']: expected one of {list(classes)}, got {kind!r}")
    return classes[kind](**{key: value for key, value in config.items() if key != "type"})
