"""Reproductions of published experiments: what they draw is what the papers describe, and short runs of each learn."""

import itertools
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import rnncore as rc

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))  # its commands import the modules beside them by their names

from reproductions import MODULES, adding, addition, copy_memory, g2p, listops, names, reber, vowels  # noqa: E402
from reproductions.rows import COLUMNS, replace_row  # noqa: E402

NEEDS = {"vowels": "sktime", "names": "faker", "g2p": "g2p_en"}


def run(*arguments: str) -> dict:
    """Run the command with warnings as errors; return what its last line says."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", BENCHMARKS / "reproduce.py", *arguments, "--threads", "1"],
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    return json.loads(finished.stdout.splitlines()[-1])


# ------------------------------------------------------------------------------------------------------ the command


@pytest.mark.parametrize("name", MODULES)
def test_quick_runs_learn(name):
    if name in NEEDS and not find_spec(NEEDS[name]):
        pytest.skip(f"needs the data that {NEEDS[name]} ships")
    said = run(name, "--quick")
    assert (said["experiment"], said["quick"]) == (name, True)
    rows = {row["key"]: row for row in said["rows"]}
    for row in rows.values():
        assert len(row["seeds"]) == len(row["figures"]) == len(row["seconds"]) == len(row["cpu_seconds"]) == 1
        assert row["task"]
        assert row["network"]
        assert row["ours"]
        assert all(np.isfinite(value) for value in row["figures"][0].values())
    CHECKS[name]({key: row["figures"][0] for key, row in rows.items()})


def check_reber(figures):
    assert figures["lstm"]["right"] == 1
    assert figures["rnn"]["right"] < 0.7  # half of them by guessing the last but one
    assert figures["elman"]["right"] < 0.7


def check_adding(figures):
    assert figures["gru-8"]["mse"] < 0.01
    assert figures["lstm-8"]["mse"] < 0.05
    assert max(each["mse"] for each in figures.values()) < 1 / 6


def check_copy(figures):
    assert figures["lstm-2"]["loss"] < 0.9 * figures["lstm-2"]["memoryless"]
    assert figures["lstm-2"]["symbols right"] > 2 / 8


def check_vowels(figures):
    assert figures["gru"]["accuracy"] > 0.9
    assert figures["dtw"]["accuracy"] > 0.9


def check_names(figures):
    assert figures["gru"]["accuracy"] > 0.3  # the largest class has a seventh
    assert figures["4-gram"]["accuracy"] > 0.6


def check_addition(figures):
    assert figures["keras"]["characters"] > 0.5  # most are spaces or one of ten
    assert min(each["sums"] for each in figures.values()) > 0.05


def check_listops(figures):
    assert min(each["accuracy"] for each in figures.values()) > 0.2  # a digit of ten


def check_g2p(figures):
    assert figures["gru"]["same"] == 1
    assert figures["gru"]["words"] == 100


CHECKS = {
    "reber": check_reber,
    "adding": check_adding,
    "copy": check_copy,
    "vowels": check_vowels,
    "names": check_names,
    "addition": check_addition,
    "listops": check_listops,
    "g2p": check_g2p,
}


def test_seeds_and_tasks_are_chosen_and_repeat_themselves(tmp_path):
    arguments = ("adding", "--quick", "--tasks", "gru-8", "--seeds", "2", "--into", str(tmp_path / "table.md"))
    first, again = (run(*arguments)["rows"] for _ in range(2))
    assert [row["key"] for row in first] == ["gru-8"]
    assert first[0]["seeds"] == [0, 1]
    assert first[0]["figures"] == again[0]["figures"]
    assert first[0]["figures"][0] != first[0]["figures"][1]
    table = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert len(table) == 3
    assert table[2].startswith("| adding problem, T = 8 | GRU(16) | MSE ")


# -------------------------------------------------------------------------------------------------------- the table


def row(experiment: str, network: str, ours: str) -> tuple[str, ...]:
    return (experiment, network, ours, *[""] * (len(COLUMNS) - 3))


def test_rows_are_replaced_by_name(tmp_path):
    path = tmp_path / "table.md"
    for each in (row("a, T = 1", "LSTM", "1"), row("b", "LSTM", "2"), row("a, T = 2", "LSTM", "3")):
        replace_row(path, each)
    path.write_text("# Heading\n\n" + path.read_text() + "\nAfter the table | a bar.\n")
    replace_row(path, row("a, T = 1", "LSTM", "4"))
    text = path.read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines()[4:7]]
    assert cells == [["a, T = 1", "LSTM", "4"], ["a, T = 2", "LSTM", "3"], ["b", "LSTM", "2"]]
    assert text.startswith("# Heading\n\n| experiment |")
    assert text.endswith("|\n\nAfter the table | a bar.\n")
    assert list(tmp_path.iterdir()) == [path]


def test_rows_that_would_break_the_table_are_refused(tmp_path):
    path = tmp_path / "table.md"
    for wrong in (row("a", "b|c", "1"), row("a", "b\nc", "1"), ("a", "b")):
        with pytest.raises(ValueError, match="row: expected"):
            replace_row(path, wrong)
    path.write_text("no table\n")
    with pytest.raises(ValueError, match="expected a line"):
        replace_row(path, row("a", "b", "1"))
    assert path.read_text() == "no table\n"


# ------------------------------------------------------------------------------------------------------------ Reber

# The grammar as an expression: from node to node in loops, instead of as a table of symbols.
INNER = r"B(?:TS*X(?:XT*VP)*(?:S|XT*VV)|PT*V(?:PXT*V)*(?:V|PS))E"
EMBEDDED = re.compile(rf"B([TP]){INNER}\1E")


def strings_of_the_expression() -> list[str]:
    """All strings of the expression with up to seven turns of each loop, two of those with loops inside."""
    turns = range(8)
    loops = [inside for k in range(3) for inside in itertools.product(turns, repeat=k)]
    from_x = ["".join("X" + "T" * t + "VP" for t in inside) for inside in loops]
    from_v = ["".join("PX" + "T" * t + "V" for t in inside) for inside in loops]
    ends = ["S", *("X" + "T" * t + "VV" for t in turns)]
    inner = ["T" + "S" * s + "X" + middle + end for s in turns for middle in from_x for end in ends]
    inner += ["P" + "T" * t + "V" + middle + end for t in turns for middle in from_v for end in ("V", "PS")]
    return [f"B{outer}B{string}E{outer}E" for outer in "TP" for string in inner]


def test_reber_strings_are_of_the_grammar():
    rng = np.random.default_rng(0)
    drawn = [reber.EmbeddedReber(rng) for _ in range(2000)]
    assert all(EMBEDDED.fullmatch(string.text) for string in drawn)
    assert len({string.text for string in drawn}) > 300
    for string in drawn[:50]:
        assert "".join(reber.SYMBOLS[token] for token in string.tokens) == string.text


def test_reber_successors_are_those_of_the_grammar():
    known = strings_of_the_expression()
    assert all(EMBEDDED.fullmatch(string) for string in known)
    after: dict[str, set[str]] = {}
    for string in known:
        for i, symbol in enumerate(string):
            after.setdefault(string[:i], set()).add(symbol)
    rng = np.random.default_rng(1)
    compared = 0
    for string in (reber.EmbeddedReber(rng) for _ in range(2000)):
        if len(string.text) > 12:  # loops could go on where the list above ends
            continue
        for i, successors in enumerate(string.successors, 1):
            expected = after[string.text[:i]]
            assert {symbol for symbol, legal in zip(reber.SYMBOLS, successors, strict=True) if legal} == expected
            compared += 1
    assert compared > 5000


def test_reber_string_is_right_if_the_largest_are_the_successors():
    successors = np.array([[1, 1, 0], [0, 0, 1]], dtype=bool)
    assert reber.right(np.array([[2.0, 3.0, 1.0], [0.0, 1.0, 2.0]]), successors)
    assert not reber.right(np.array([[2.0, 3.0, 2.5], [0.0, 1.0, 2.0]]), successors)
    assert not reber.right(np.array([[2.0, 3.0, 2.0], [0.0, 1.0, 2.0]]), successors)  # a tie
    assert not reber.right(np.array([[2.0, 3.0, 1.0], [0.0, 2.0, 1.0]]), successors)


# --------------------------------------------------------------------------------------------- adding, copy memory


@pytest.mark.parametrize("T", [2, 3, 50])
def test_adding_marks_two_numbers(T):
    x, sums = adding.draw(T, 500, np.random.default_rng(0))
    assert (x.shape, sums.shape, x.dtype) == ((500, T, 2), (500, 1), np.float32)
    assert (x[..., 1].sum(axis=1) == 2).all()
    assert set(np.unique(x[..., 1])) <= {0, 1}
    assert (x[..., 1].sum(axis=0) > 0).all()  # anywhere
    np.testing.assert_allclose(sums[:, 0], [row[row[:, 1] == 1, 0].sum() for row in x], rtol=1e-6)
    assert 0.13 < np.square(sums - 1).mean() < 0.21  # 1/6


@pytest.mark.parametrize("T", [1, 2, 30])
def test_copy_asks_for_what_it_showed(T):
    tokens, targets = copy_memory.draw(T, 100, np.random.default_rng(0))
    assert tokens.shape == targets.shape == (100, T + 20)
    assert set(np.unique(tokens[:, :10])) == set(range(1, 9))
    assert (tokens[:, 10 : T + 9] == 0).all()
    assert (tokens[:, T + 9 :] == 9).all()
    assert (targets[:, : T + 10] == 0).all()
    assert np.array_equal(targets[:, T + 10 :], tokens[:, :10])


def test_copy_without_memory_has_the_loss_it_says():
    _, targets = copy_memory.draw(7, 50, np.random.default_rng(0))
    logits = np.full((50, 27, 10), -60.0)
    logits[:, :17, 0] = 0
    logits[:, 17:, 1:9] = 0
    assert rc.CrossEntropy()(logits, targets) == pytest.approx(copy_memory.memoryless(7), rel=1e-9)
    assert copy_memory.memoryless(1000) == pytest.approx(0.0204, abs=5e-5)  # as published


# ----------------------------------------------------------------------------------------------------- vowels, names


def test_warping_distances_are_those_of_loops():
    rng = np.random.default_rng(0)
    a, b = ([rng.standard_normal((n, 3)) for n in lengths] for lengths in ((1, 4, 2, 7), (3, 1, 6)))

    def distance(p: np.ndarray, q: np.ndarray) -> float:
        D = np.full((len(p) + 1, len(q) + 1), np.inf)
        D[0, 0] = 0
        for s, t in np.ndindex(len(p), len(q)):
            D[s + 1, t + 1] = np.square(p[s] - q[t]).sum() + min(D[s, t + 1], D[s + 1, t], D[s, t])
        return D[-1, -1]

    np.testing.assert_allclose(vowels.warping_distances(a, b), [[distance(p, q) for q in b] for p in a], rtol=1e-10)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_ngrams_are_distributions(order):
    seen = ["anna", "anders", "bo", "nan"]
    alphabet = [*sorted(set("".join(seen))), names.END, "z"]  # z stands for all that were never seen
    model = names.NGrams(seen, order, len(alphabet))
    for context in ("\n", "\nan", "nna", "an"[: order - 1], "qqq"[: order - 1]):
        context = context[len(context) - order + 1 :] if order > 1 else ""
        assert sum(model.probability(c, context) for c in alphabet) == pytest.approx(1)
    assert model.log_probability("anna") > model.log_probability("bzz")


def test_names_are_of_one_locale_and_one_part():
    if not find_spec("faker"):
        pytest.skip("needs the names that faker ships")
    found, locales = names.read()
    assert len(found) == len(set(found)) == len(locales) > 10_000
    assert set(locales) == set(range(len(names.LOCALES.split())))
    train, held_out, _, _ = names.split(1.0, seed=0)
    assert not set(train) & set(held_out)
    assert len(train) + len(held_out) == len(found)


# ----------------------------------------------------------------------------------- sums, nested operations, phonemes


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_questions_are_different_and_answered(digits):
    count = 40 if digits == 1 else 1000
    asked, answers = addition.questions(count, digits, np.random.default_rng(0))
    numbers = [tuple(map(int, question.split("+"))) for question in asked]
    assert [str(a + b) for a, b in numbers] == answers
    assert len({frozenset(pair) for pair in numbers}) == count
    assert 0.2 < np.mean([a < b for a, b in numbers]) < 0.8  # either may come first
    assert {len(part) for question in asked for part in question.split("+")} == set(range(1, digits + 1))


def test_nested_operations_are_worked_out():
    MIN, MAX, MED, SUM = range(4)
    for expected, expression in (
        (2, (MIN, [4, 2, 7])),
        (9, (MAX, [2, 9, (MIN, [4, 7]), 0])),
        (4, (MED, [9, 4, 1])),
        (3, (MED, [8, 3, 4, 1])),
        (6, (SUM, [9, (SUM, [8, 4]), 5])),
    ):
        assert listops.value(expression) == expected


def test_nested_operations_are_the_same_as_string_and_as_tree():
    rng = np.random.default_rng(0)
    for _ in range(300):
        drawn = listops.expression(rng)
        parents, tokens = listops.parents_and_tokens(drawn)
        string = listops.string_tokens(drawn)
        assert [token for token in string if token != listops.CLOSE] == tokens
        assert parents[0] == -1
        assert all(parent < node and tokens[parent] >= 10 for node, parent in enumerate(parents) if node)
        # each worked out again, from the last node to the first, and by a stack
        values: list[list[int]] = [[] for _ in tokens]
        for node in reversed(range(len(tokens))):
            result = tokens[node] if tokens[node] < 10 else reduced(tokens[node], values[node])
            if node:
                values[parents[node]].append(result)
        assert result == listops.value(drawn)
        stack: list[list[int]] = [[]]
        for token in string:
            if token < 10:
                stack[-1].append(token)
            elif token < listops.CLOSE:
                stack.append([token])
            else:
                operation, *arguments = stack.pop()
                stack[-1].append(reduced(operation, arguments))
        assert stack == [[result]]
        assert max(depths(parents)) <= listops.DEPTH


def reduced(token: int, arguments: list[int]) -> int:
    def lower_median(values: list[int]) -> int:
        return int(np.percentile(values, 50, method="lower"))

    return (min, max, lower_median, lambda values: sum(values) % 10)[token - 10](arguments)


def depths(parents: list[int]) -> list[int]:
    found = [0]
    for parent in parents[1:]:
        found.append(found[parent] + 1)
    return found


def test_words_are_spoken_as_the_package_speaks_them():
    if not find_spec("g2p_en"):
        pytest.skip("needs the network that g2p-en ships")
    package = g2p.package_speaker()
    speaker = g2p.Speaker(package)
    asked = [*g2p.words(30), "a", "supercalifragilisticexpialidocious"]
    expected = [package.predict(word) for word in asked]
    assert [speaker.predict(word) for word in asked] == expected
    assert speaker.predict_all(asked) == expected
    assert len({tuple(phonemes) for phonemes in expected}) > 25
