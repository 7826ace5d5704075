"""The house rules that can be read off the files: who may include whom, what kernel objects export, how files look."""

import ast
import fnmatch
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest

import rnncore

ROOT = Path(__file__).resolve().parent.parent
CPP = ROOT / "src" / "cpp"
PACKAGE = ROOT / "python" / "rnncore"

CPP_FILES = sorted(str(path.relative_to(CPP)) for path in CPP.rglob("*.[ch]pp"))
PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = ("src", "python", "tests", "benchmarks", "examples", "docs", ".ci")
SUFFIXES = {".cpp", ".hpp", ".py", ".pyi", ".md", ".toml", ".txt", ""}


def text_files() -> list[Path]:
    """Every file of the project that people write, the top folder's first."""
    files = [path for path in ROOT.iterdir() if not path.name.startswith(".git")]
    for folder in FOLDERS:
        files += (path for path in ROOT.glob(f"{folder}/**/*") if "/." not in str(path.relative_to(ROOT)))
    return sorted(path for path in files if path.is_file() and path.suffix in SUFFIXES and path.stat().st_size)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ------------------------------------------------------------------------------------------------ directions of C++

# What a file may include of the project, by the first pattern that fits it. A file that fits none belongs nowhere yet.
MAY_INCLUDE = {
    "kernels/simd.hpp": [],
    "kernels/math.hpp": ["kernels/simd.hpp"],
    "kernels/activations.hpp": ["api.hpp", "kernels/math.hpp"],
    "kernels/rowwise.hpp": ["kernels/activations.hpp"],
    "kernels/rows.hpp": ["kernels/rowwise.hpp", "kernels/sequence.hpp"],
    "kernels/elementwise.hpp": ["kernels/chains.hpp", "kernels/rows.hpp"],
    "kernels/cells/cell.hpp": ["kernels/math.hpp"],
    "kernels/cells/*.hpp": ["kernels/activations.hpp", "kernels/cells/cell.hpp", "kernels/rowwise.hpp"],
    "kernels/tile.hpp": ["kernels/simd.hpp"],
    "kernels/panels.hpp": ["api.hpp", "kernels/tile.hpp"],
    "kernels/gemm.hpp": ["kernels/panels.hpp"],
    "kernels/unpacked.hpp": ["kernels/panels.hpp"],
    "kernels/outer.hpp": ["api.hpp", "kernels/panels.hpp"],
    "kernels/products.hpp": ["api.hpp", "kernels/gemm.hpp", "kernels/unpacked.hpp"],
    "kernels/sequence.hpp": ["api.hpp", "kernels/cells/cell.hpp", "kernels/products.hpp"],
    "kernels/linear.hpp": ["api.hpp", "kernels/activations.hpp", "kernels/gemm.hpp", "kernels/unpacked.hpp"],
    "kernels/update.hpp": ["api.hpp", "kernels/simd.hpp"],
    "kernels/chains.hpp": ["api.hpp", "kernels/simd.hpp"],
    "kernels/scan.hpp": ["api.hpp", "kernels/chains.hpp"],
    "kernels/attention.hpp": ["api.hpp", "kernels/softmax.hpp"],
    "kernels/trees.hpp": ["api.hpp", "kernels/activations.hpp", "kernels/cells/cell.hpp", "kernels/products.hpp"],
    "kernels/table.cpp": [
        "kernels/attention.hpp",
        "kernels/cells/*.hpp",
        "kernels/cross_entropy.hpp",
        "kernels/ctc.hpp",
        "kernels/elementwise.hpp",
        "kernels/linear.hpp",
        "kernels/outer.hpp",
        "kernels/scan.hpp",
        "kernels/rows.hpp",
        "kernels/reservoir.hpp",
        "kernels/sequence.hpp",
        "kernels/trees.hpp",
        "kernels/update.hpp",
    ],
    "kernels/softmax.hpp": ["kernels/math.hpp"],
    "kernels/cross_entropy.hpp": ["api.hpp", "kernels/softmax.hpp"],
    "kernels/ctc.hpp": ["api.hpp", "kernels/softmax.hpp"],
    "kernels/reservoir.hpp": ["api.hpp", "kernels/activations.hpp"],
    "cells.hpp": [],
    "tree_tasks.hpp": [],
    "api.hpp": ["cells.hpp", "tree_tasks.hpp"],
    "rounding.hpp": [],
    "memory.?pp": ["memory.hpp", "rounding.hpp"],
    "threads.?pp": ["threads.hpp"],
    "dispatch.?pp": ["api.hpp", "dispatch.hpp"],
    "plan.?pp": ["api.hpp", "plan.hpp"],
    "schedule.hpp": [],
    "schedule.cpp": ["rounding.hpp", "schedule.hpp", "threads.hpp"],
    "weights.hpp": ["api.hpp", "memory.hpp"],
    "weights.cpp": ["dispatch.hpp", "rounding.hpp", "schedule.hpp", "threads.hpp", "weights.hpp"],
    "engine.hpp": ["plan.hpp", "weights.hpp"],
    "recompute.hpp": ["engine.hpp", "threads.hpp"],
    "repeat.hpp": ["engine.hpp"],
    "pass.hpp": ["memory.hpp", "plan.hpp"],
    "forward.cpp": [
        "dispatch.hpp",
        "engine.hpp",
        "pass.hpp",
        "recompute.hpp",
        "repeat.hpp",
        "rounding.hpp",
        "schedule.hpp",
        "threads.hpp",
    ],
    "decoder.hpp": ["engine.hpp"],
    "decoder.cpp": ["decoder.hpp", "dispatch.hpp", "pass.hpp", "rounding.hpp", "schedule.hpp", "threads.hpp"],
    "decoder_backward.cpp": ["decoder.hpp", "dispatch.hpp", "rounding.hpp", "schedule.hpp", "sums.hpp", "threads.hpp"],
    "sums.hpp": ["api.hpp"],
    "sums.cpp": ["dispatch.hpp", "memory.hpp", "rounding.hpp", "schedule.hpp", "sums.hpp", "threads.hpp"],
    "pieces.hpp": ["engine.hpp"],
    "pieces.cpp": ["pieces.hpp"],
    "stream.hpp": ["weights.hpp"],
    "stream.cpp": ["dispatch.hpp", "pass.hpp", "rounding.hpp", "schedule.hpp", "stream.hpp", "threads.hpp"],
    "many.hpp": ["engine.hpp", "linear.hpp"],
    "many.cpp": ["dispatch.hpp", "many.hpp", "repeat.hpp", "rounding.hpp", "schedule.hpp", "threads.hpp"],
    "linear.hpp": ["api.hpp"],
    "linear.cpp": [
        "dispatch.hpp",
        "linear.hpp",
        "memory.hpp",
        "rounding.hpp",
        "schedule.hpp",
        "threads.hpp",
    ],
    "backward.cpp": ["dispatch.hpp", "engine.hpp", "recompute.hpp", "rounding.hpp", "schedule.hpp", "threads.hpp"],
    "update.hpp": ["api.hpp"],
    "update.cpp": ["dispatch.hpp", "rounding.hpp", "schedule.hpp", "threads.hpp", "update.hpp"],
    "scan.hpp": ["api.hpp"],
    "scan.cpp": ["dispatch.hpp", "memory.hpp", "rounding.hpp", "scan.hpp", "schedule.hpp", "threads.hpp"],
    "losses.hpp": [],
    "cross_entropy.cpp": [
        "dispatch.hpp",
        "losses.hpp",
        "memory.hpp",
        "rounding.hpp",
        "schedule.hpp",
        "threads.hpp",
        "weights.hpp",
    ],
    "ctc.cpp": ["dispatch.hpp", "losses.hpp", "memory.hpp", "schedule.hpp", "threads.hpp", "weights.hpp"],
    "bindings/arrays.?pp": ["bindings/arrays.hpp", "memory.hpp"],
    "bindings/call.?pp": ["bindings/arrays.hpp", "bindings/call.hpp", "plan.hpp", "weights.hpp"],
    "bindings/controls.hpp": [],
    "bindings/controls.cpp": [
        "bindings/arrays.hpp",
        "bindings/controls.hpp",
        "dispatch.hpp",
        "schedule.hpp",
        "threads.hpp",
    ],
    "bindings/ragged.?pp": ["bindings/arrays.hpp", "bindings/ragged.hpp", "plan.hpp"],
    "bindings/layer_arguments.hpp": [
        "bindings/arrays.hpp",
        "bindings/call.hpp",
        "bindings/ragged.hpp",
        "engine.hpp",
        "pieces.hpp",
    ],
    "bindings/layer.?pp": [
        "bindings/layer_arguments.hpp",
        "bindings/arrays.hpp",
        "bindings/call.hpp",
        "bindings/layer.hpp",
        "bindings/ragged.hpp",
        "engine.hpp",
        "pieces.hpp",
    ],
    "bindings/optim.?pp": ["bindings/arrays.hpp", "bindings/optim.hpp", "update.hpp"],
    "bindings/stack.?pp": [
        "bindings/arrays.hpp",
        "bindings/call.hpp",
        "bindings/ragged.hpp",
        "bindings/stack.hpp",
        "engine.hpp",
        "pieces.hpp",
    ],
    "bindings/program.?pp": ["bindings/arrays.hpp", "bindings/call.hpp", "bindings/program.hpp", "stream.hpp"],
    "bindings/stream.?pp": ["bindings/arrays.hpp", "bindings/program.hpp", "bindings/stream.hpp", "stream.hpp"],
    "bindings/linear.?pp": [
        "bindings/arrays.hpp",
        "bindings/call.hpp",
        "bindings/linear.hpp",
        "dispatch.hpp",
        "linear.hpp",
    ],
    "bindings/many.?pp": [
        "bindings/arrays.hpp",
        "bindings/call.hpp",
        "bindings/many.hpp",
        "dispatch.hpp",
        "many.hpp",
    ],
    "bindings/losses.?pp": ["bindings/arrays.hpp", "bindings/call.hpp", "bindings/losses.hpp", "losses.hpp"],
    "bindings/scan.?pp": [
        "bindings/arrays.hpp",
        "bindings/call.hpp",
        "bindings/scan.hpp",
        "dispatch.hpp",
        "scan.hpp",
    ],
    "bindings/decoder.?pp": [
        "bindings/arrays.hpp",
        "bindings/call.hpp",
        "bindings/decoder.hpp",
        "decoder.hpp",
        "dispatch.hpp",
    ],
    "bindings/module.cpp": [
        "bindings/controls.hpp",
        "bindings/decoder.hpp",
        "bindings/layer.hpp",
        "bindings/linear.hpp",
        "bindings/losses.hpp",
        "bindings/many.hpp",
        "bindings/optim.hpp",
        "bindings/program.hpp",
        "bindings/ragged.hpp",
        "bindings/reservoir.hpp",
        "bindings/scan.hpp",
        "bindings/stack.hpp",
        "bindings/stream.hpp",
        "bindings/tree.hpp",
        "dispatch.hpp",
    ],
    "forest.hpp": ["api.hpp"],
    "forest.cpp": ["forest.hpp"],
    "tree.hpp": ["forest.hpp", "memory.hpp"],
    "tree.cpp": ["dispatch.hpp", "linear.hpp", "rounding.hpp", "schedule.hpp", "sums.hpp", "threads.hpp", "tree.hpp"],
    "bindings/tree.?pp": [
        "bindings/arrays.hpp",
        "bindings/call.hpp",
        "bindings/tree.hpp",
        "dispatch.hpp",
        "tree.hpp",
    ],
    "reservoir.hpp": ["api.hpp", "memory.hpp"],
    "reservoir.cpp": ["dispatch.hpp", "reservoir.hpp", "rounding.hpp", "schedule.hpp", "threads.hpp"],
    "bindings/reservoir.?pp": ["bindings/arrays.hpp", "bindings/reservoir.hpp", "reservoir.hpp"],
}
# Kernels may include only what defines no function that the linker could merge across instruction sets (<utility> does,
# but its templates are not used; the test of the objects would show it).
KERNELS_MAY_INCLUDE = {"<cstdint>", "<utility>"}
INTRINSICS = re.compile(r"<\w*intrin\.h>|<arm_\w+\.h>")


def includes(file: str) -> list[str]:
    """What a file includes: <system> headers as written, the project's own relative to src/cpp."""
    found = re.findall(r'^\s*#\s*include\s+(<[^>]+>|"[^"]+")', (CPP / file).read_text(), re.MULTILINE)
    own = (CPP / file).parent
    return [name if name[0] == "<" else str((own / name[1:-1]).resolve().relative_to(CPP)) for name in found]


@pytest.mark.parametrize("file", CPP_FILES)
def test_includes_follow_the_layers(file):
    allowed = next((may for pattern, may in MAY_INCLUDE.items() if fnmatch.fnmatchcase(file, pattern)), None)
    assert allowed is not None, f"{file} has no place in MAY_INCLUDE"
    for name in includes(file):
        if name[0] == "<":
            continue
        assert (CPP / name).is_file(), f"{file} includes {name}, which is not there"
        assert any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed), f"{file} must not include {name}"


@pytest.mark.parametrize("file", CPP_FILES)
def test_system_headers_stay_where_they_belong(file):
    for name in includes(file):
        if file.startswith("kernels/") and name[0] == "<":
            fine = name in KERNELS_MAY_INCLUDE or (file == "kernels/simd.hpp" and INTRINSICS.fullmatch(name))
            assert fine, f"{file} must not include {name}"
        if not file.startswith("bindings/"):
            assert not re.match(r"<(pybind11/|Python\.h|numpy/)", name), f"{file} must not know Python"
        if file != "kernels/simd.hpp":
            assert not INTRINSICS.fullmatch(name), f"{file} must not include {name}"


@pytest.mark.parametrize("file", CPP_FILES)
def test_instruction_sets_differ_in_simd_alone(file):
    text = (CPP / file).read_text()
    code = re.sub(r"//[^\n]*", "", text)
    assert not re.search(r"^\s*#\s*define\b", code, re.MULTILINE), "no macros"
    if file.startswith("kernels/"):
        assert re.search(r"^namespace rnncore::RNNCORE_ISA \{\nnamespace \{\n", text, re.MULTILINE), (
            "kernels have internal linkage in the namespace of their instruction set"
        )
    if file != "kernels/simd.hpp":
        assert not re.search(r"^\s*#.*\b__(AVX|SSE|FMA|ARM)", code, re.MULTILINE), "a test of the instruction set"
        assert not re.search(r"\b(_mm\d*_\w+|__m\d+[id]?|v\w+q_[fsu]\d+)\b", code), "an intrinsic"


# --------------------------------------------------------------------------------------------- directions of Python

# What a module may import of the package. A lower layer is open to all above it.
MAY_IMPORT = {
    "_arguments": set(),
    "_conversion": set(),
    "_core": set(),
    "affine": {"_conversion", "_core", "many", "ragged"},
    "attention": {"_core", "affine", "layer", "recurrent"},
    "batches": set(),
    "bridge": {"affine", "layer", "models", "recurrent"},
    "callbacks": {"history"},
    "calls": {"_conversion", "ragged"},
    "checkpoints": {"files", "layer"},
    "clipping": {"_arguments", "_core"},
    "constructors": set(),
    "context": {"_conversion", "_core", "layerwise", "packed", "pieces"},
    "controls": {"_core", "__init__"},  # the version
    "ctc": {"_conversion", "_core", "losses", "ragged"},
    "custom": {"layer", "streaming", "timeloop"},
    "depth": {"_conversion", "affine", "context", "layerwise", "streaming"},
    "delayed_stream": {"_core", "layer", "merging", "models", "python_stream", "recurrent", "stateless", "streaming"},
    "data": {"batches", "forests", "pairs", "sequences", "series"},
    "decoder": {"layer", "models", "recurrent"},
    "decoding": {"_arguments", "hypotheses"},
    "display": set(),
    "elementwise": {"_arguments", "_core", "constructors", "layer", "recurrent"},
    "embedded": {"_core", "feedforward", "layer", "ragged", "recurrent"},
    "feedforward": {"_conversion", "affine", "functional", "layer", "ragged", "stateless", "streaming"},
    "files": set(),
    "folded": {"layer"},
    "forest": {"_core", "nested", "ragged"},
    "forests": {"batches", "forest", "sequences"},
    "nested": set(),
    "frozen": set(),
    "functional": {"_conversion", "_core", "affine", "linear_scan", "many", "ragged"},
    "gated": {"masks", "_arguments", "_core", "layer", "options", "recurrent", "constructors"},
    "history": set(),
    "hypotheses": {"_arguments"},
    "init": {"attention", "feedforward", "models", "recurrent", "rowwise", "trees"},
    "layer": {"constructors", "files", "online", "streaming", "views"},
    "layerwise": {"masks", "_conversion", "calls", "layer", "merging"},
    "linear_scan": {"_conversion", "_core"},
    "losses": {"_conversion", "_core", "ragged"},
    "many": {"_conversion", "_core"},
    "masks": set(),
    "merging": {"_conversion"},
    "metrics": {"_conversion", "ctc", "losses", "ragged"},
    "models": {"_conversion", "embedded", "folded", "layer", "ragged", "streaming"},
    "online": {"_arguments", "clipping", "delayed_stream", "python_stream", "streaming"},
    "optim": {"_arguments", "_core", "schedules"},
    "options": {"_arguments", "_core"},
    "packed": {"_conversion", "_core", "ragged"},
    "padding": {"_conversion", "ragged"},
    "pairs": {"batches", "sequences"},
    "pieces": {"packed"},
    "plots": set(),
    "python_stream": {"_conversion", "files", "streaming"},
    "ragged": {"_core"},
    "recursive": {"_conversion", "_core", "forest", "layer", "ragged"},
    "recurrent": {
        "masks",
        "_conversion",
        "_core",
        "context",
        "frozen",
        "functional",
        "layer",
        "layerwise",
        "many",
        "merging",
        "options",
        "ragged",
        "streaming",
        "calls",
        "constructors",
        "depth",
    },
    "reference": {"reference_loop"},
    "reference_attention": {"reference_loop"},
    "reference_cells": {
        "reference_deep",
        "reference_elementwise",
        "reference_gated",
        "reference_loop",
        "reference_parts",
    },
    "reference_deep": {"reference_loop", "reference_parts"},
    "reference_decoder": {"reference_attention", "reference_loop", "reference_parts"},
    "reference_elementwise": {"reference", "reference_loop", "reference_parts"},
    "reference_gated": {"reference", "reference_loop", "reference_parts"},
    "reference_loop": set(),
    "reference_losses": set(),
    "reference_parts": {"reference", "reference_loop"},
    "reference_scan": set(),
    "reference_tree": set(),
    "rowwise": {"masks", "_conversion", "_core", "affine", "layer", "stateless", "streaming"},
    "scanning": {"timeloop"},
    "schedules": {"_arguments"},
    "seq2seq": {
        "_arguments",
        "_conversion",
        "attention",
        "bridge",
        "decoder",
        "decoding",
        "hypotheses",
        "layer",
        "models",
        "padding",
        "schedules",
        "stepping",
        "__init__",  # of decoding, which it hands on to
    },
    "sequences": {"_conversion", "batches", "ragged"},
    "series": {"batches"},
    "stateless": {"_conversion", "layer", "ragged"},
    "stepping": {"_conversion", "attention", "decoder", "layer"},
    "steps": {"_conversion", "layer", "ragged", "stateless", "streaming"},
    "streaming": {"_conversion", "_core", "files"},
    "testing": {"reference"},
    "timeloop": {"_conversion", "pieces", "ragged"},
    "training": {
        "_conversion",
        "batches",
        "callbacks",
        "checkpoints",
        "clipping",
        "display",
        "history",
        "layer",
        "metrics",
        "optim",
        "ragged",
    },
    "trees": {"forest", "layer", "ragged", "recursive", "steps", "streaming"},
    "views": set(),
    "sparse": {"_conversion"},
    "_estimator": {"_conversion"},
    "esn": {"_arguments", "_conversion", "_core", "_estimator", "affine", "sparse"},
    "reference_esn": set(),
}
MAY_IMPORT["__init__"] = {name for name in MAY_IMPORT if not name.startswith("_")}
# And under `if TYPE_CHECKING`, for annotations alone: no import at run time, so it may point upwards.
MAY_IMPORT_FOR_TYPES = {
    "callbacks": {"training"},
    "checkpoints": {"training"},
    "context": {"recurrent"},
    "depth": {"recurrent"},
    "frozen": {"recurrent"},
    "layerwise": {"recurrent"},
    "online": {"layer", "optim"},
    "python_stream": {"layer"},
    "streaming": {"layer", "online"},
}
# Packages beside NumPy, each imported where it is used and by nobody else.
MAY_USE = {
    "display": {"tqdm"},
    "files": {"safetensors"},
    "history": {"matplotlib"},
    "plots": {"matplotlib"},
}


def for_types(tree: ast.Module) -> set[ast.AST]:
    """Everything in a module that only a type checker sees."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Dotted names that these nodes import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            if module == "rnncore":  # names of modules, or of what __init__ has
                modules = {alias.name for alias in node.names if is_module(alias.name)}
                found |= {f"rnncore.{name}" for name in modules}
                found |= {"rnncore.__init__"} if len(modules) < len(node.names) else set()
            else:
                found.add(module)
    return found


def is_module(name: str) -> bool:
    return any((PACKAGE / file).exists() for file in (f"{name}.py", f"{name}.pyi", name))


@pytest.mark.parametrize("file", PYTHON_FILES, ids=relative)
def test_imports_follow_the_layers(file):
    assert file.stem in MAY_IMPORT, f"{relative(file)} has no place in MAY_IMPORT"
    tree = ast.parse(file.read_text())
    types = for_types(tree)
    at_run_time = MAY_IMPORT[file.stem]
    for nodes, of_package in (
        (set(ast.walk(tree)) - types, at_run_time),
        (types, at_run_time | MAY_IMPORT_FOR_TYPES.get(file.stem, set())),
    ):
        for name in imports(nodes):
            package, _, module = name.partition(".")
            if package == "rnncore":
                allowed = module.partition(".")[0] in of_package
            else:
                allowed = package in {"numpy", *MAY_USE.get(file.stem, ())} or package in sys.stdlib_module_names
            assert allowed, f"{relative(file)} must not import {name}"


# ------------------------------------------------------------------------------------------------- kernel objects


def kernel_flags() -> dict[str, list[str]]:
    """The flags of each instruction set of this kind of machine, as CMakeLists.txt gives them."""
    text = (ROOT / "CMakeLists.txt").read_text()
    (common,) = re.findall(r"target_compile_options\(rnncore_kernels_\$\{isa\} PRIVATE\s+([^$)]+)\$\{ARGN\}\)", text)
    own = dict(re.findall(r"^  rnncore_kernels\((\w+)([^)]*)\)", text, re.MULTILINE))
    machine = platform.machine()
    names = {"x86_64": own.keys() - {"neon"}, "aarch64": {"neon"}}.get(machine, {"baseline"})
    return {isa: common.split() + own[isa].split() for isa in names}


@pytest.mark.parametrize("isa", sorted(kernel_flags()))
def test_kernel_objects_export_one_symbol(isa, tmp_path):
    compiler, nm = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"), shutil.which("nm")
    if not compiler or not nm:
        pytest.skip("needs a C++ compiler and nm")
    kernels = tmp_path / "table.o"
    command = [compiler, "-std=c++20", "-O0", "-fPIC", "-fvisibility=hidden", *kernel_flags()[isa]]
    subprocess.run([*command, f"-DRNNCORE_ISA={isa}", "-c", CPP / "kernels/table.cpp", "-o", kernels], check=True)
    listing = subprocess.run([nm, "-P", "-C", kernels], check=True, capture_output=True, text=True).stdout
    symbols = re.findall(r"^(.+?) ([A-Za-z])(?: [0-9a-f]+)*\s*$", listing, re.MULTILINE)
    assert len(symbols) == len(listing.splitlines()) > 10
    # lower case is local to the object; u, v, w and their capitals are merged or weak
    shown = {(name, kind) for name, kind in symbols if kind.isupper() or kind in "uvw"}
    undefined = {name for name, kind in shown if kind == "U"}
    assert shown - {(name, "U") for name in undefined} <= {(f"rnncore::{isa}::kernel_table", kind) for kind in "DR"}, (
        "only the table, nothing weak"
    )
    assert len(shown) == len(undefined) + 1
    # neither memory, nor exceptions, nor libm: a compiler may make calls of these four itself
    assert undefined <= {"memcpy", "memmove", "memset", "memcmp"}


# ------------------------------------------------------------------------------------------------------------ files

MAX_LINES = 400
MAY_BE_LONGER = {
    "python/rnncore/functional.py": "more than half is docstrings: each cell has its own two functions",
    "python/rnncore/models.py": "three containers, each with every method of a layer",
    "python/rnncore/training.py": "one class, a third of it docstrings",
    "python/rnncore/recurrent.py": "one class, whose calls are checked, run, trained and streamed",
    "python/rnncore/gated.py": "a class for each cell, whose arguments are written out in full",
    "python/rnncore/losses.py": "seven losses, most of it docstrings",
    "python/rnncore/reference.py": "the specification: equations of every cell, forward and backward, in prose too",
    "python/rnncore/testing.py": "one contract suite, whose checks are told in docstrings",
}


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == rnncore.__version__
    headings = re.findall(r"^#+ .*$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    named = re.compile(rf"(?<![\w.]){re.escape(rnncore.__version__)}(?![\w.]*\w)")
    assert any(named.search(heading) for heading in headings), "CHANGELOG.md has no heading for this version"


def test_files_are_short():
    files = [CPP / file for file in CPP_FILES] + PYTHON_FILES
    long = {relative(file) for file in files if len(file.read_text().splitlines()) > MAX_LINES}
    assert long - set(MAY_BE_LONGER) == set(), f"more than {MAX_LINES} lines"
    assert set(MAY_BE_LONGER) <= long, "no longer too long: take it off the list"


@pytest.mark.parametrize("file", CPP_FILES)
def test_cpp_files_say_what_they_are(file):
    text = (CPP / file).read_text()
    if text.startswith("//"):
        return
    if file.endswith(".cpp"):  # its header says it
        own = Path(file).with_suffix(".hpp")
        assert text.startswith(f'#include "{own.name}"\n'), "opens with neither a comment nor its own header"
        assert (CPP / own).read_text().startswith("//")
    else:
        assert text.startswith("#pragma once\n"), "opens with neither a comment nor #pragma once"
        assert len(text.splitlines()) < 12, "long enough to say what it is"


def test_python_files_say_what_they_are():
    files = [path for path in text_files() if path.suffix in {".py", ".pyi"}]
    assert [relative(path) for path in files if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_no_stray_white_space():
    stray = []
    for path in text_files():
        text = path.read_text()
        for number, line in enumerate(text.split("\n"), 1):
            if "\t" in line or line != line.rstrip():
                stray.append(f"{relative(path)}:{number}: a tab, or white space at the end")
        if not text.endswith("\n") or text.endswith("\n\n"):
            stray.append(f"{relative(path)}: does not end with one line break")
    assert stray == []


# ------------------------------------------------------------------------------------------------------------ tools


def check(command: list[str]) -> None:
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("arguments", [("check", "--no-cache"), ("format", "--check", "--no-cache")], ids=" ".join)
def test_ruff(arguments):
    if not find_spec("ruff"):
        pytest.skip("needs ruff")
    check([sys.executable, "-m", "ruff", *arguments, "."])


def clang_format() -> str | None:
    """clang-format 14: another version would format otherwise."""
    for name in ("clang-format-14", "clang-format"):
        if found := shutil.which(name):
            version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
            if re.search(r"version 14\.", version):
                return found
    return None


def test_clang_format():
    tool = clang_format()
    if not tool:
        pytest.skip("needs clang-format 14")
    others = [*ROOT.glob("tests/native/*.cpp"), *ROOT.glob("benchmarks/*.cpp")]
    check([tool, "--dry-run", "-Werror", *(str(CPP / file) for file in CPP_FILES), *map(str, others)])
