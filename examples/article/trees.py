"""Trees against chains: the values of logical expressions, by their nesting.

Nodes are "and", "or", "exclusive or", leaves are true or false. A recursive network makes the state of a node of
those of its children; an LSTM reads the same tokens in a row, each operator after its operands. Both learn from
up to four levels of operators. Prints and draws the accuracy of both by levels, also of more than that.
"""

import numpy as np
from drawing import drawing, plot_file

import rnncore as rc

TRAINED, LEVELS, V, H = 4, range(1, 9), 5, 32


def grow(nodes: list[list[int]], levels: int, rng: np.random.Generator) -> bool:
    """Add the nodes of an expression, token and parent, each after its operands; return its value."""
    if levels == 0:
        nodes.append([int(rng.integers(2)), -1])
        return nodes[-1][0] == 1
    below = rng.permutation([levels - 1, rng.integers(levels)])  # one operand as deep as it can be
    (a, left), (b, right) = [(grow(nodes, int(of_operand), rng), nodes[-1]) for of_operand in below]
    left[1] = right[1] = len(nodes)
    nodes.append([int(rng.integers(2, 5)), -1])
    return (a and b, a or b, a != b)[nodes[-1][0] - 2]


def expressions(N: int, levels: range, rng: np.random.Generator) -> tuple[rc.Trees, np.ndarray]:
    """Return expressions of these levels, a token for each node, and their values."""
    trees = [[] for _ in range(N)]
    values = [grow(nodes, int(rng.choice(levels)), rng) for nodes in trees]
    tokens, parents = zip(*(np.array(nodes).T for nodes in trees), strict=True)
    return rc.Trees(rc.Forest(parents), np.concatenate(tokens)), np.array(values, int)


def main(path: str | None) -> None:
    """Train both on the same expressions."""
    layers = {"tree": (rc.ChildSumTreeLSTM(16, H, rng=1), rc.Root()), "chain": (rc.LSTM(16, H, rng=1), rc.Last())}
    accuracy = {}
    for name, (layer, end) in layers.items():
        rng = np.random.default_rng(0)
        model = rc.Sequential(rc.Embedding(V, 16, rng=0), layer, end, rc.Linear(H, 2, rng=2))
        data = rc.data.Forests(*expressions(2000, range(1, TRAINED + 1), rng), batch_size=25)
        rc.Trainer(model, rc.CrossEntropy(), rc.Adam(0.01), clip_norm=1.0).fit(data, epochs=15, progress=False)
        tests = [expressions(300, range(k, k + 1), rng) for k in LEVELS]
        accuracy[name] = [float((model(x).argmax(axis=1) == values).mean()) for x, values in tests]
    for k, tree, chain in zip(LEVELS, accuracy["tree"], accuracy["chain"], strict=True):
        print(f"{k} levels: tree {tree:.1%}, chain {chain:.1%}")
    if path:
        with drawing(path) as ax:
            for name, values in accuracy.items():
                ax.plot(LEVELS, values, "o-", label=name)
            ax.axvspan(1, TRAINED, alpha=0.1, label="trained on")
            ax.set(xlabel="levels of operators", ylabel="accuracy")
            ax.legend(loc="lower left")


if __name__ == "__main__":
    main(plot_file(__doc__))
