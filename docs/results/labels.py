"""What pages call the systems of the experiments, and what is asked of them."""

SPEECH = {
    "ctc": "CTC",
    "gmot-t": "GM-OT (gmot-t)",
    "clock": "the same, frames weighing what is heard in them (`frame_weights: blank`)",
    "clock30": "… and weights of 30",
    "fade": "… and weights of 30 that fall to 0",
    "mid": "… from the first block instead of the last",
    "clock-adapted": "… by e5 adapted to news and the transcripts",
    "clock-bert": "… by a small BERT from scratch on the same",
    "clock-blank": "… to whose teacher all characters are alike",
    "permuted": "GM-OT (gmot-t), whose teacher takes each character for another one",
    "blank": "GM-OT (gmot-t), to whose teacher all characters are alike",
    "gmot": "GM-OT without the prior of the order (gmot)",
    "tot": "nodes alone, with the prior (tot)",
    "ot": "nodes alone (ot)",
    "kd-att": "no transport, attention instead (kd-att)",
}
"""Systems that were tried on real speech, in the order of the table."""

DEEP = {
    "ctc6": "CTC",
    "clock-adapted6": "GM-OT by e5 adapted to news and the transcripts, frames weighing what is heard in them",
}
"""The same with encoders of six blocks instead of two."""

MINI = {name: SPEECH[name] for name in ("ctc", "gmot-t", "gmot", "tot", "ot", "kd-att")}
"""Those that were tried on 45 minutes of it."""

FAMILY = {
    "ctc": "CTC",
    "ot-x10": "nodes alone (ot)",
    "uot-x10": "nodes alone, marginals relaxed (uot)",
    "tot-x10": "nodes alone, with the prior of the order (tot)",
    "gmot-x10": "nodes and edges (gmot)",
    "gmot-u-x10": "nodes and edges, marginals relaxed (gmot-u)",
    "gmot-t-x10": "nodes and edges, with the prior of the order (gmot-t)",
    "gmot-nodes-x10": "gmot without its edges (`alpha: 0`), all else alike",
    "gmot-t-nodes-x10": "gmot-t without its edges (`alpha: 0`), all else alike",
    "ot-blank": "ot, to whose teacher all characters are alike",
    "gmot-blank": "gmot, to whose teacher all characters are alike",
    "gmot-t-blank": "gmot-t, to whose teacher all characters are alike",
}
"""Members of the family on the synthetic corpus, likewise."""

READ = {
    "none": "random weights",
    "blank": "random weights, all characters alike",
    "permuted": "has read 10 times as much, rows of other characters",
    "permuted30": "has read 30 times as much, rows of other characters",
    "own": "has read the transcripts",
    "x3": "has read 3 times as much",
    "x10": "has read 10 times as much",
    "x30": "has read 30 times as much",
}
"""Teachers of run_dose.sh: those that know nothing of the language first."""

MEMBERS = ("ot", "tot", "gmot", "gmot-t")
"""Members of the family that were tried with all of these teachers."""

TRAINED = ("own", "x3", "x10", "x30")
CONTRASTS = {
    "has read something, less random weights": (TRAINED, ("none",)),
    "has read 30 times as much, less the transcripts alone": (("x30",), ("own",)),
    "has read something, less rows of other characters": (TRAINED, ("permuted",)),
    "has read something, less all characters alike": (TRAINED, ("blank",)),
    "has read 10 times as much, less the same with rows of other characters": (("x10",), ("permuted",)),
    "has read 30 times as much, less the same with rows of other characters": (("x30",), ("permuted30",)),
    "random weights, less the same with all characters alike": (("none",), ("blank",)),
}
"""What is asked of these trainings: teachers, on average, less others."""
