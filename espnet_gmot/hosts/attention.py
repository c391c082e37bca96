"""The plan among ESPnet's attention plots: ``num_att_plot`` pictures in ``att_ws/``, TensorBoard and wandb.

ESPnet draws what it finds in modules of the attention classes that it knows. The plan passes through one of those.
"""

import torch

# The class that ESPnet's plots look for; where it is defined differs between ESPnet's lines
from espnet2.main_funcs.calculate_all_attentions import MultiHeadedAttention

from espnet_gmot.loss import GMOTLoss


class Coupling(MultiHeadedAttention):
    """Passes a plan (B, T, U) on unchanged; outside training it is kept as one attention head ``attn`` (B, 1, U, T).

    ESPnet's plots then have the frames (its "Input") across and the tokens (its "Output") down.
    """

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)  # none of the parent's parameters

    def forward(self, plan: torch.Tensor) -> torch.Tensor:
        """The plan itself."""
        if not self.training:
            self.attn = plan.detach().mT[:, None]
        return plan


def show_couplings(transfer: torch.nn.Module) -> None:
    """Let ESPnet's attention plots see the plan of every transfer in a module.

    Args:
        transfer: a :class:`~espnet_gmot.loss.GMOTLoss`, or a module that holds some.
    """
    for module in transfer.modules():
        if isinstance(module, GMOTLoss):
            module.coupling = Coupling()
