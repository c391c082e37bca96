"""The members of the family: what each sets beside the defaults of :class:`espnet_gmot.config.GMOTConfig`."""

from typing import Any

#: The settings of each preset, with the paper that it follows.
PRESETS: dict[str, dict[str, Any]] = {
    "ctc": {"w_ot": 0.0, "w_align": 0.0},  # no transfer: the stock ESPnet model
    # those of the optimal-transport papers take the entropic plan; GM-OT's, ours, the proximal limit
    "ot": {"alpha": 0.0, "method": "mirror"},  # ASRU 2023, arXiv 2309.13650
    # ICASSP 2024, arXiv 2309.16093: one transfer a tied pair of layers; these suit 12 blocks and a 12-layer PLM
    "hcsa": {
        "alpha": 0.0,
        "method": "mirror",
        "tap": ["encoder.3", "encoder.7", "encoder"],
        "teacher_layer": [4, 8, 12],
    },
    # SLT 2024, arXiv 2409.02239; the prior's lambda2 is its entropic step, in units of the cost:
    # whoever changes order_lambda2 changes epsilon with it, else the plan is no longer Su and Hua's
    "tot": {"alpha": 0.0, "method": "mirror", "prior": "order", "epsilon": 0.1, "epsilon_relative": False},
    "uot": {"alpha": 0.0, "method": "mirror", "rho_acoustic": 0.1},  # arXiv 2509.05609
    "gmot": {},  # Interspeech 2025, arXiv 2505.13079
    "gmot-t": {"prior": "order"},  # ours: GM-OT with the temporal-order prior
    "gmot-u": {"rho_acoustic": 0.1},  # ours: GM-OT with relaxed frame marginals
    "kd-att": {"coupling": "attention", "w_ot": 0.0},  # after arXiv 2203.03582: no transport, for comparison
    "kd-cif": {"coupling": "cif", "w_ot": 0.0},
}
