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
# # A look inside the demo's trained model
#
# `make demo` leaves a recogniser that was trained with GM-OT in `demo/exp/asr_demo_gmot`. Here it couples one
# utterance of the validation set with its text. As a script: `python3 examples/notebooks/demo_model.py`. Another
# folder that is built like the demo's: `GMOT_DEMO=FOLDER`. Needs ESPnet and matplotlib.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

DEMO = Path(os.environ.get("GMOT_DEMO", "demo"))
if not (DEMO / "exp/asr_demo_gmot/config.yaml").is_file():
    raise SystemExit(
        f"skipped: {DEMO}/exp/asr_demo_gmot: no trained model there; run `make demo` first, or set GMOT_DEMO"
    )
os.chdir(DEMO)  # paths in config.yaml are seen from here

from espnet_gmot.hosts.observe import Observer  # noqa: E402
from espnet_gmot.kaldi.tables import read_table  # noqa: E402
from espnet_gmot.report.draw import labels  # noqa: E402

# %% [markdown]
# ## One utterance
#
# `Observer` builds the model with its parameters and asks it about one recording: the graphs, the plan, CTC's
# posteriors.

# %%
trained = Observer("exp/asr_demo_gmot")
utterance = next(iter(read_table("dump/raw/dev/text")))
shift = None if trained.raw else 0.05  # a model that reads features doesn't know their time
seen = trained.recorded("dump/raw/dev", utterance, shift)
names = labels(seen.tokens)  # pinyin, where no font has Chinese characters
coupled = seen.couplings[0]
print(utterance, "".join(seen.tokens), {name: round(value, 3) for name, value in seen.stats.items() if "loss" in name})

# %% [markdown]
# ## The plan as trained, and what other members of the family make of the same features
#
# Each column of a token is scaled to sum to one. Without a prior of order, mass goes wherever a moment resembles the
# token.

# %%
PRESETS = ["ot", "gmot", "tot", "gmot-t"]
plans = [coupled.plan, *(coupled.coupled_as(preset=preset) for preset in PRESETS)]
figure, axes = plt.subplots(1, 5, figsize=(15, 3.2), layout="constrained", sharey=True)
for axis, plan, title in zip(axes, plans, ["as trained", *PRESETS], strict=True):
    axis.imshow((plan / plan.sum(0)).T, cmap="Blues", aspect="auto", interpolation="nearest")
    axis.set(title=title, xlabel="frame", yticks=range(len(names)), yticklabels=names)
plt.show()

# %% [markdown]
# ## Has training made frames relate to each other as tokens do?
#
# The edges 1 − cos of the frames, carried to the tokens by the plan with the order prior, beside the edges of the
# tokens, before and after training. A correlation of 1 would mean that the frames' graph has become the tokens'
# graph.

# %%
start = Observer("exp/asr_demo_gmot", initial=True)
start.centre_as(trained)
before = start.recorded("dump/raw/dev", utterance, shift).couplings[0]


def cosines(rows):
    """1 − cos of every pair of rows."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return 1.0 - unit @ unit.T


def graphs(each):
    """Edges (U, U) of the frames carried to the tokens by the plan, and of the tokens."""
    plan = each.coupled_as(preset="gmot-t")
    acoustic, linguistic = (graph.nodes[0].numpy() for graph in (each.acoustic, each.linguistic))
    return cosines((plan / plan.sum(0)).T @ acoustic), cosines(linguistic)


pairs = np.triu_indices(len(names), 1)
alike = {}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for axis, each, title in ((axes[0], before, "frames, before"), (axes[1], coupled, "frames, after")):
    carried, linguistic = graphs(each)
    alike[title] = float(np.corrcoef(carried[pairs], linguistic[pairs])[0, 1])
    axis.imshow(carried, cmap="Greys")
    axis.set(title=f"{title}: correlation {alike[title]:.2f}", xticks=[], yticks=[])
axes[2].imshow(linguistic, cmap="Greys")
axes[2].set(title="tokens", xticks=[], yticks=range(len(names)), yticklabels=names)
plt.show()
print(alike)

# %% [markdown]
# One utterance proves nothing: `python3 -m espnet_gmot align … --measure` scores plans on a whole set against true
# times (`docs/seeing.md`), and `report --html` shows all of this on one page.
