"""The cost of a call and of a training step, where arithmetic takes almost nothing: every library on small layers."""

import argparse
import time
from collections.abc import Callable

from environment import enter_environment
from libraries import OURS, PEERS
from problems import MODES, Problem, Shape
from timing import time_interleaved

__all__ = ["main"]

SHAPE = Shape(1, 1, 32, 32)
STEP_SHAPE = Shape(20, 1, 16, 16)
NAMES = {
    ("frozen", "forward"): "frozen(x)",
    ("rnncore", "forward"): "functional.lstm",
    ("rnncore", "training"): "functional.lstm_vjp, vjp(dy)",
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The cost of a call of each library at T,N,I,H = 1,1,32,32.")
    parser.add_argument("--repeats", type=int, default=100, help="samples of each; default: 100")
    arguments = parser.parse_args()
    enter_environment(1)

    problem = Problem.draw("lstm", SHAPE)
    libraries = OURS | {name: library for name, library in PEERS.items() if library.installed()}
    print(f"LSTM, T,N,I,H = {SHAPE}, 1 thread, the least of {arguments.repeats} samples, us")
    for mode in MODES:
        tasks = {
            NAMES.get((name, mode), name): library.task(problem, mode, 1)
            for name, library in libraries.items()
            if mode in library.modes
        }
        for task in tasks.values():
            with task.context():
                task.run()
        for name, timing in time_interleaved(tasks, arguments.repeats).tasks.items():
            print(f"{mode:<10}{name:<30}{timing.seconds * 1e6:>10.2f}")
    print(f"training step, T,N,I,H = {STEP_SHAPE}: forward, squared error, backward, Adam")
    for name, seconds in _steps(arguments.repeats).items():
        print(f"{'step':<10}{name:<30}{seconds * 1e6:>10.2f}")


def _steps(repeats: int) -> dict[str, float]:
    """Return the seconds of a whole training step with each library, from one start to one loss."""
    import numpy as np

    import rnncore as rc

    T, N, I, H = STEP_SHAPE
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, T, I), dtype=np.float32)
    targets = rng.standard_normal((N, T, H), dtype=np.float32)
    layer = rc.LSTM(I, H, rng=0)
    trainer = rc.Trainer(layer, rc.MSE(), rc.Adam(1e-3))
    steps: dict[str, Callable[[], float]] = {"Trainer.step": lambda: trainer.step(x, targets)[0]}
    if PEERS["torch"].installed():
        import torch

        torch.set_num_threads(1)
        theirs = torch.nn.LSTM(I, H, batch_first=True)
        theirs.load_state_dict({name: torch.tensor(value.copy()) for name, value in layer.parameters.items()})
        optimizer = torch.optim.Adam(theirs.parameters(), 1e-3)
        tx, expected = torch.tensor(x), torch.tensor(targets)

        def torch_step() -> float:
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(theirs(tx)[0], expected)
            loss.backward()
            optimizer.step()
            return loss.item()

        steps["torch"] = torch_step
    for _ in range(3):  # the first steps agree
        losses = [step() for step in steps.values()]
        assert np.allclose(losses, losses[0], rtol=1e-4), losses
    least = dict.fromkeys(steps, float("inf"))
    for _ in range(repeats):
        for name, step in steps.items():
            begin = time.perf_counter()
            for _ in range(10):
                step()
            least[name] = min(least[name], (time.perf_counter() - begin) / 10)
    return least


if __name__ == "__main__":
    main()
