"""Run all scripts of this folder, and draw what docs/recurrent-networks.md shows."""

import argparse
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE.parent.parent / "docs" / "plots")
    folder = parser.parse_args().folder
    for script in sorted(HERE.glob("*.py")):
        if script.stem not in ("drawing", "make_plots"):
            print(f"{script.name}:", flush=True)
            import_module(script.stem).main(str(folder / f"{script.stem}.png"))


if __name__ == "__main__":
    main()
