"""Transcript → (U, D) linguistic features: online, precomputed in Kaldi archives, and how to pretrain a teacher."""

from espnet_gmot.teacher.plm import PLMTeacher

__all__ = ["PLMTeacher"]
