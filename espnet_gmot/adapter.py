"""From the encoder's width to the teacher's."""

import torch

from espnet_gmot.errors import UserError


class Adapter(torch.nn.Module):
    """Carry acoustic features into the space of the teacher: linear or two-layer map, then LayerNorm.

    Args:
        width: the encoder's width.
        teacher_width: the teacher's width, D.
        kind: ``linear`` or ``mlp``.
        hidden: hidden units of the ``mlp``.

    Raises:
        UserError: another kind.

    Earlier papers of GM-OT's authors use a linear map with LayerNorm; the mlp is ours.
    """

    def __init__(self, width: int, teacher_width: int, kind: str = "linear", hidden: int = 512) -> None:
        super().__init__()
        self.map: torch.nn.Module
        if kind == "linear":
            self.map = torch.nn.Linear(width, teacher_width)
        elif kind == "mlp":
            self.map = torch.nn.Sequential(
                torch.nn.Linear(width, hidden), torch.nn.GELU(), torch.nn.Linear(hidden, teacher_width)
            )
        else:
            raise UserError(f"gmot_conf: adapter: unknown value '{kind}': known are linear, mlp")
        self.norm = torch.nn.LayerNorm(teacher_width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, T, width) to (B, T, D)."""
        return self.norm(self.map(features))
