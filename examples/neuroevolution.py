"""Evolve recurrent controllers that balance a pole on a cart without being told how fast anything moves.

The cart and pole of Barto, Sutton & Anderson (1983), of which a controller sees position and angle alone: it has to
remember. An evolution strategy (Salimans et al. 2017) with antithetic noise, ranks for fitness and Adam needs no
gradients: the whole population is one model with ``models=M``, so that a generation's perturbation is one operation on
an array (M, P), and each step of time is one call. Prints the steps that the controllers balance, up to 500, and at
last how many of 100 new starts the evolved one balances to the end.
"""

import argparse
from collections.abc import Callable

import numpy as np

import rnncore as rc

STEPS, HIDDEN, FORCE, TAU = 500, 8, 10.0, 0.02
GRAVITY, CART, POLE, HALF_LENGTH = 9.8, 1.0, 0.1, 0.5
FARTHEST, STEEPEST = 2.4, np.radians(12.0)


def controller(models: int | None = None) -> rc.Sequential:
    """Make a controller, or many: position and angle in, the direction of the force out."""
    return rc.Sequential(rc.GRU(2, HIDDEN, models=models, rng=0), rc.Linear(HIDDEN, 1, models=models, rng=1))


def balance(model: rc.Sequential, starts: np.ndarray) -> np.ndarray:
    """Run controllers from starts (..., N, 4), with ... the axis of networks, and count the steps that they balance."""
    x, v, angle, spin = np.moveaxis(starts, -1, 0).copy()
    alive, balanced, state = np.ones(x.shape, bool), np.zeros(x.shape), None
    for _ in range(STEPS):
        seen = np.stack([x / FARTHEST, angle / STEEPEST], axis=-1).astype(np.float32)
        push, state = model.run(seen[..., np.newaxis, :], state)
        force = np.where(push[..., 0, 0] > 0, FORCE, -FORCE)
        sine, cosine = np.sin(angle), np.cos(angle)
        mass, moment = CART + POLE, POLE * HALF_LENGTH
        pull = (force + moment * spin**2 * sine) / mass
        spin_rate = (GRAVITY * sine - cosine * pull) / (HALF_LENGTH * (4 / 3 - POLE * cosine**2 / mass))
        rate = pull - moment * spin_rate * cosine / mass
        x, v, angle, spin = x + TAU * v, v + TAU * rate, angle + TAU * spin, spin + TAU * spin_rate
        alive &= (np.abs(x) <= FARTHEST) & (np.abs(angle) <= STEEPEST)
        x, v, angle, spin = (np.where(alive, value, 0) for value in (x, v, angle, spin))
        balanced += alive
        if not alive.any():
            break
    return balanced


def evolve(options: argparse.Namespace, rng: np.random.Generator, report: Callable[[str], None]) -> np.ndarray:
    """Return the parameters of the evolved controller."""
    population = controller(models=2 * options.pairs)
    M, P = population.flat_parameters.shape
    centre, optimizer = controller().flat_parameters.copy(), rc.Adam(options.rate)
    for generation in range(1, options.generations + 1):
        noise = rng.standard_normal((options.pairs, P), dtype=np.float32)
        noise = np.concatenate([noise, -noise])
        population.flat_parameters[...] = centre + options.sigma * noise
        starts = np.broadcast_to(rng.uniform(-0.05, 0.05, (options.starts, 4)), (M, options.starts, 4))
        fitness = balance(population, starts).mean(axis=1)
        ranks = np.argsort(np.argsort(fitness, kind="stable"), kind="stable") / (M - 1) - 0.5
        optimizer.step(centre, np.float32(-1 / (M * options.sigma)) * (ranks.astype(np.float32) @ noise))
        if generation % 5 == 0 or fitness.mean() > 0.98 * STEPS:
            report(f"generation {generation}: {fitness.mean():.0f} steps on average, {fitness.max():.0f} at best")
        if fitness.mean() > 0.98 * STEPS:
            break
    return centre


def main() -> None:
    """Evolve, and try what has come of it."""
    parser = argparse.ArgumentParser(description="Evolve controllers of a cart and pole without velocities.")
    parser.add_argument("--generations", type=int, default=100, help="at most")
    parser.add_argument("--pairs", type=int, default=64, help="of networks, with opposite noise")
    parser.add_argument("--starts", type=int, default=4, help="of each network in a generation")
    parser.add_argument("--sigma", type=float, default=0.1, help="of the noise")
    parser.add_argument("--rate", type=float, default=0.05, help="of learning")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    evolved = controller()
    evolved.flat_parameters[...] = evolve(options, rng, print)
    balanced = balance(evolved, rng.uniform(-0.05, 0.05, (100, 4)))
    print(f"evolved: {(balanced == STEPS).sum()} of 100 new starts balanced for all {STEPS} steps")


if __name__ == "__main__":
    main()
