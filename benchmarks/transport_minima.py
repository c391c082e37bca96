"""Which local minima the solver ends in, beside POT's conditional gradient: `python3 benchmarks/transport_minima.py`.

Small random problems (6 to 14 frames that follow 3 to 6 tokens, features of width 4), each solved by itself.
"""

import argparse
import warnings

import torch

from espnet_gmot.transport import cosine_cost, cosine_edges, fused_gromov_wasserstein

TIGHT = {"epsilon": 0.05, "outer_iterations": 400, "inner_iterations": 300, "tolerance": 1e-5}


def problems(count: int) -> tuple[torch.Tensor, ...]:
    """Padded cost (B, T, U), edges and lengths of `count` random problems."""
    g = torch.Generator().manual_seed(0)
    t, u = (torch.randint(low, high, (count,), generator=g) for low, high in ((6, 15), (3, 7)))
    h, z = torch.randn(count, 14, 4, generator=g), torch.randn(count, 6, 4, generator=g)
    said = (torch.arange(14) * u[:, None] // t[:, None]).minimum(u[:, None] - 1)
    h = h + z.gather(1, said[:, :, None].expand(-1, -1, 4))
    return cosine_cost(h, z), cosine_edges(h), cosine_edges(z), t, u


def main() -> None:
    """Print a row for every alpha."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=int, default=400, help="problems a row")
    args = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    batch = problems(args.problems)
    print("| α | ours / POT, mean value | better by over 1 % | worse by over 1 % | ours / POT with annealing=30 |")
    print("|---|---|---|---|---|")
    for alpha in (0.1, 0.5, 0.9, 1.0):
        pot = fused_gromov_wasserstein(*batch, alpha=alpha, backend="pot", outer_iterations=1000).value
        ours = fused_gromov_wasserstein(*batch, alpha=alpha, **TIGHT).value
        annealed = fused_gromov_wasserstein(*batch, alpha=alpha, **TIGHT, annealing=30.0).value
        better, worse = int((ours < 0.99 * pot).sum()), int((ours > 1.01 * pot).sum())
        ratio, other = (float(values.mean() / pot.mean()) for values in (ours, annealed))
        print(f"| {alpha} | {ratio:.3f} | {better} | {worse} | {other:.3f} |")


if __name__ == "__main__":
    main()
