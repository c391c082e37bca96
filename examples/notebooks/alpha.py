# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # From OT to GM-OT as α grows
#
# A plan says how much of frame i goes with token j. With α = 0 it looks at the distances between frames and tokens
# alone (optimal transport); with α = 1 at the relations within each sequence alone (Gromov-Wasserstein); GM-OT lies
# between. This notebook makes two sequences whose truth is known, and lets α grow.
#
# It runs as a script too: `python3 examples/notebooks/alpha.py`. Needs torch, numpy and matplotlib.

# %%
import matplotlib.pyplot as plt
import torch

from espnet_gmot.transport import CosineEdges, SumEdges, TemporalEdges, cosine_cost, fused_gromov_wasserstein

torch.manual_seed(3)

# %% [markdown]
# ## A sentence that says one character twice
#
# Six tokens, 28 frames. Tokens 1 and 4 are the *same* vector: what belongs to which of the two no distance can tell.

# %%
SPANS = [5, 3, 6, 4, 7, 3]  # frames of each token
tokens = torch.randn(6, 24)
tokens[3] = tokens[0]
owner = torch.repeat_interleave(torch.arange(6), torch.tensor(SPANS))
frames = tokens[owner] + 0.4 * torch.randn(28, 24)
lengths = torch.tensor([28]), torch.tensor([6])
cost = cosine_cost(frames[None], tokens[None])

# %% [markdown]
# ## Edges
#
# Each graph's edges are a sum: how different two nodes are (1 − cos), and how far apart in time. The latter break the
# tie.


# %%
def edges(rows, size):
    """Feature edges plus twice the temporal ones."""
    return SumEdges([(1.0, CosineEdges(rows[None])), (2.0, TemporalEdges(size, len(rows)))])


graphs = edges(frames, lengths[0]), edges(tokens, lengths[1])

# %% [markdown]
# ## The plan, α by α
#
# Look for the orange dots, the truth: at α = 0 half of tokens 1 and 4 lies at each of both places.

# %%
ALPHAS = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9]
plans = []
for alpha in ALPHAS:
    result = fused_gromov_wasserstein(cost, *graphs, *lengths, alpha=alpha, outer_iterations=300, backend="torch")
    plans.append(result.plan[0])
right = [float(plan[torch.arange(28), owner].sum()) for plan in plans]  # the share of mass at the true place

figure, axes = plt.subplots(2, 3, figsize=(11, 4), layout="constrained")
for axis, alpha, plan, share in zip(axes.flat, ALPHAS, plans, right, strict=True):
    axis.imshow(plan.T, cmap="Blues", aspect="auto", interpolation="nearest")
    axis.plot(range(28), owner, ".", color="#d55e00", ms=4)
    axis.set_title(f"α = {alpha}: {share:.0%} of the mass in place", fontsize=9)
    axis.set(xticks=[], yticks=range(6), yticklabels=range(1, 7))
plt.show()
for alpha, share in zip(ALPHAS, right, strict=True):
    print(f"alpha {alpha}: {share:.3f} of the mass in place")

# %% [markdown]
# ## What α = 1 can't know
#
# Relations don't tell forwards from backwards: turn the sentence round, and every edge is what it was. With the
# distances between frames and tokens left out, both plans below are equally good, so something else has to break that
# tie: a little of the node cost (α below 1), or a prior of order.

# %%
symmetric = torch.repeat_interleave(torch.arange(6), torch.tensor([4, 5, 5, 5, 5, 4]))
there = torch.zeros(28, 6)
there[torch.arange(28), symmetric] = 1 / 28
back = there.flip(1)
time = [(torch.arange(n)[:, None] - torch.arange(n)).abs() / n for n in (28, 6)]


def gromov(plan):
    """Σ (A_ik − L_jl)² γ_ij γ_kl over temporal edges."""
    difference = (time[0][:, None, :, None] - time[1][None, :, None, :]).square()
    return float(torch.einsum("ijkl,ij,kl", difference, plan, plan))


print(f"forwards {gromov(there):.6f}, backwards {gromov(back):.6f}")

# %% [markdown]
# Next: `demo_model.py` in this folder looks at plans of a trained recogniser; `docs/understand/` has the other
# options in pictures.
