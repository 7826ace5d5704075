"""Published experiments with recurrent networks, each a module with `experiments(quick)`; ../reproduce.py runs them."""

from importlib import import_module

from reproductions.experiment import Experiment

__all__ = ["MODULES", "experiments"]

MODULES = {
    "reber": "reber",
    "adding": "adding",
    "copy": "copy_memory",
    "vowels": "vowels",
    "names": "names",
    "addition": "addition",
    "listops": "listops",
    "g2p": "g2p",
}


def experiments(name: str, quick: bool) -> list[Experiment]:
    """Return the experiments of this name, or small ones like them that take seconds."""
    found: list[Experiment] = import_module(f"reproductions.{MODULES[name]}").experiments(quick)
    return found
