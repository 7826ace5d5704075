"""The examples run from the command line, learn something, and print what they say they print."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ARTICLE = sorted({path.stem for path in EXAMPLES.glob("article/*.py")} - {"drawing", "make_plots"})
HELD_OUT = re.compile(r"^held out: (\d+\.\d\d) bits per character, ([\d,]+) characters/s\n", re.MULTILINE)
# Shortened runs of the two language models.
SHORT = {"char_lm.py": ("--epochs", "2", "--share", "0.1"), "numpy_backend.py": ("--epochs", "0.1")}
SHORTER = {"char_lm.py": ("--epochs", "1", "--share", "0.01"), "numpy_backend.py": ("--epochs", "0.01")}


def run(name: str, *arguments: str, returns: int = 0) -> str:
    """Run an example with warnings as errors; return what it printed, on standard error if it fails as it should."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        env={**os.environ, "PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert finished.returncode == returns, finished.stderr
    printed, nothing = (finished.stderr, finished.stdout) if returns else (finished.stdout, finished.stderr)
    assert nothing == ""
    return printed


def figures(printed: str, pattern: str) -> list[float]:
    """Return the figures of the one line that fits the pattern."""
    (found,) = re.findall(rf"^{pattern}$", printed, re.MULTILINE)
    return [float(figure) for figure in (found if isinstance(found, tuple) else (found,))]


@pytest.mark.parametrize("name", SHORT)
def test_language_model_learns_and_writes(name):
    printed = run(name, *SHORT[name])
    (report,) = HELD_OUT.finditer(printed)
    assert 2.0 < float(report[1]) < 5.5  # guessing costs 6.7 bits, knowing nothing but the alphabet
    assert int(report[2].replace(",", "")) > 0
    written = printed[report.end() :]
    assert len(written) == 401
    assert written[-1] == "\n"


@pytest.mark.parametrize("name", SHORTER)
def test_language_model_repeats_itself_from_a_seed(name):
    arguments = (*SHORTER[name], "--characters", "50", "--seed", "1")
    first, again = (HELD_OUT.split(run(name, *arguments)) for _ in range(2))
    _before, bits, _speed, written = first
    assert len(written) == 51
    assert (bits, written) == (again[1], again[3])


def test_ctc_reads():
    pytest.importorskip("sklearn")
    arguments = ("--epochs", "3", "--seed", "1")
    printed = run("ctc.py", *arguments)
    (before,) = figures(printed, r"nothing learnt: label error rate (\d+\.\d)%")
    (after,) = figures(printed, r"held-out digits: label error rate (\d+\.\d)%")
    assert after < 50 < before
    assert run("ctc.py", *arguments) == printed


def test_classify_ragged_tells_speakers_apart():
    if not find_spec("sktime"):
        pytest.skip("needs the data that sktime ships")
    printed = run("classify_ragged.py", "--epochs", "10", "--seeds", "2")
    accuracies = [figures(printed, rf"seed {seed}: accuracy (\d+\.\d)%")[0] for seed in (0, 1)]
    median, count = figures(printed, r"median of 2 seeds: accuracy (\d+\.\d)% of (\d+) sequences")
    assert min(accuracies) > 80  # guessing is right one time in nine
    assert median == pytest.approx(sum(accuracies) / 2, abs=0.11)
    assert count == 370
    held_out = run("classify_ragged.py", "--epochs", "1", "--seeds", "1", "--validate")
    assert "of 54 sequences" in held_out


def test_forecast_beats_the_year_before(tmp_path):
    pytest.importorskip("statsmodels")
    pytest.importorskip("matplotlib")
    plot = tmp_path / "forecast.png"
    printed = run("forecast.py", "--epochs", "20", "--plot", str(plot))
    coverage, years = figures(printed, r"1921 to 2008: (\d+)% of (\d+) years in the band of 80%")
    error, naive = figures(printed, r"mean absolute error: (\d+\.\d), of the year before (\d+\.\d)")
    ratio, _ = figures(printed, r"mean squared error to 1955 over variance: (\d\.\d+), of the year before (\d\.\d+)")
    assert 50 < coverage < 100
    assert years == 88
    assert error < 0.8 * naive
    assert ratio < 0.25
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_neuroevolution_balances_the_pole():
    printed = run("neuroevolution.py")
    generations = re.findall(r"^generation \d+: (\d+) steps on average, (\d+) at best$", printed, re.MULTILINE)
    assert int(generations[0][0]) < 50 < 490 < int(generations[-1][0])
    assert figures(printed, r"evolved: (\d+) of 100 new starts balanced for all 500 steps") == [100]


def test_ensemble_knows_how_sure_it_is(tmp_path):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "ensemble.png"
    printed = run("ensemble.py", "--plot", str(plot))
    together, single = figures(printed, r"held out: (-?\d\.\d+) nats a value by the ensemble, (-?\d\.\d+) by a .*")
    assert together < single < -0.5  # a normal distribution of the series' own mean and variance has 0.0
    coverage, values = figures(printed, r"(\d+)% of (\d+) values in the band of 90%")
    assert 85 < coverage < 95
    assert values == 1000
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_online_learns_the_new_regime():
    printed = run("online.py", "--steps", "2000")
    before, just_after, at_the_end = (
        figures(printed, rf" *{span}: frozen (\d\.\d+), learning (\d\.\d+)")
        for span in ("before the change", "just after it", "at the end")
    )
    assert max(before) < 0.08
    assert min(just_after) > 2 * max(before)
    assert at_the_end[1] < 0.08 < 0.2 < at_the_end[0]
    assert run("online.py", "--steps", "2000") == printed


def test_custom_cell_remembers():
    printed = run("custom_cell.py", "--epochs", "8")
    (highway,), (plain,) = (figures(printed, rf"{kind}: (\d\.\d+)") for kind in ("Highway", "RNN"))
    assert highway < 0.1 < 0.5 < plain
    assert run("custom_cell.py", "--epochs", "8") == printed


def test_narma_is_learnt():
    printed = run("narma.py", "--seeds", "3")
    errors = [figures(printed, rf"seed {seed}: NMSE (\d\.\d+), \d+\.\d+ s")[0] for seed in range(3)]
    (mean,) = figures(printed, r"mean of 3 seeds: NMSE (\d\.\d+)")
    assert max(errors) < 0.1
    assert mean == pytest.approx(sum(errors) / 3, abs=1e-4)


# ------------------------------------------------------------------------------------------------- the article's


@pytest.fixture(scope="module")
def article(tmp_path_factory):
    """What each script of the article prints; its picture is checked on the way."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("plots")
    printed = re.split(r"^(\w+)\.py:\n", run("article/make_plots.py", "--folder", str(folder)), flags=re.MULTILINE)
    for name in ARTICLE:
        picture = (folder / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < 60_000
    return dict(zip(printed[1::2], printed[2::2], strict=True))


def test_article_has_all_its_pictures(article):
    assert sorted(article) == ARTICLE
    page = (EXAMPLES.parent / "docs" / "recurrent-networks.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\(plots/(\w+)\.png\)", page)) == ARTICLE
    assert all(f"`{name}.py`" in page for name in ARTICLE)
    pictures = list((EXAMPLES.parent / "docs" / "plots").iterdir())
    assert sorted(path.stem for path in pictures) == ARTICLE
    assert sum(path.stat().st_size for path in pictures) < 500_000


def test_article_context(article):
    pattern = r"{}: (\d\.\d+) if it was rising, (\d\.\d+) if it was falling"
    truth = figures(article["context"], pattern.format("after 0.50"))
    assert figures(article["context"], pattern.format("recurrent")) == pytest.approx(truth, abs=0.08)
    rising, falling = figures(article["context"], pattern.format("feed-forward"))
    assert rising == falling


def test_article_hidden_state_remembers(article):
    right, longest = figures(article["hidden_state"], r"last pulses .*: (\d+\.\d)% right, the longest ago (\d+) steps")
    assert right > 97
    assert longest > 30


def test_article_parity_of_any_length(article):
    pattern = r"{} steps: (\d+\.\d)% right, a window of 20 steps (\d+\.\d)%"
    assert figures(article["any_length"], pattern.format(20))[0] > 98
    recurrent, window = figures(article["any_length"], pattern.format(200))
    assert recurrent > 90 > 60 > window


def test_article_shapes_are_learnt(article):
    for name in ("one to many", "many to one", "many to many"):
        assert figures(article["shapes"], rf"{name}: .* to .*, error (\d\.\d+)")[0] < 0.15


def test_article_gradients_vanish(article):
    left = {
        name: figures(article["vanishing"], rf"{name}: after 50 steps (\S+) of the gradient")[0]
        for name in ("RNN", "LSTM", "GRU", "RNN, relu, U x 4")
    }
    assert left["RNN"] < 1e-8 < 0.01 < min(left["LSTM"], left["GRU"])
    assert left["RNN, relu, U x 4"] > 1e6


def test_article_gates_keep_and_let_go(article):
    at_marks, between = figures(article["gates"], r"LSTM, .* f (\d\.\d+) and (\d\.\d+)")
    assert at_marks < between - 0.3
    at_marks, between = figures(article["gates"], r"GRU, .* z (\d\.\d+) and (\d\.\d+)")
    assert at_marks < between - 0.3


def test_article_depth_helps(article):
    errors = {
        name: figures(article["depth"], rf"{name}: \d+ parameters, error (\d\.\d+)")[0]
        for name in ("shallow", "before", "inside", "after", "stacked")
    }
    assert all(error < 0.9 * errors["shallow"] < 0.6 for name, error in errors.items() if name != "shallow")


def test_article_look_ahead(article):
    accuracy = [figures(article["look_ahead"], rf"{k} steps ahead: (\d+\.\d)%")[0] for k in range(5)]
    assert accuracy == sorted(accuracy)
    assert accuracy[0] < 80 < 90 < accuracy[4]
    assert figures(article["look_ahead"], r"without a limit: (\d+\.\d)%")[0] > 90


def test_article_attention_reverses(article):
    without, attentive = (
        figures(article["attention"], rf"{name} attention: (\d+)% of 200 new sequences are reversed without an error")[
            0
        ]
        for name in ("without", "with")
    )
    assert attentive > 90 > without


def test_article_trees_go_deeper_than_chains(article):
    for levels in (1, 4, 8):
        tree, chain = figures(article["trees"], rf"{levels} levels: tree (\d+\.\d)%, chain (\d+\.\d)%")
        assert tree > 95
    assert chain < 85


def test_an_article_script_alone():
    assert run("article/context.py").startswith("after 0.50: 0.73 if it was rising, 0.22 if it was falling\n")


@pytest.mark.parametrize(
    ("name", "package"),
    [("ctc.py", "scikit-learn"), ("classify_ragged.py", "sktime"), ("forecast.py", "statsmodels")],
)
def test_what_is_missing_is_named(name, package, tmp_path, monkeypatch):
    if package != "sktime":  # a package of that name that cannot be imported
        blocked = {"scikit-learn": "sklearn"}.get(package, package)
        (tmp_path / blocked).mkdir()
        (tmp_path / blocked / "__init__.py").write_text("raise ImportError\n")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    elif find_spec("sktime"):
        pytest.skip("sktime is installed")
    assert package in run(name, returns=1)
