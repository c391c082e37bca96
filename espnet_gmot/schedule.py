"""How the transfer's weights, alpha and epsilon change in the course of training."""

from dataclasses import dataclass

from espnet_gmot.config import GMOTConfig


@dataclass(frozen=True)
class Now:
    """What holds at one moment of training.

    Attributes:
        weight: share of the loss weights that counts, in [0, 1].
        alpha: share of the edges.
        epsilon: the solver's entropic step.
    """

    weight: float
    alpha: float
    epsilon: float


def at(config: GMOTConfig, time: float) -> Now:
    """The moment `time` of training.

    Args:
        config: the options.
        time: steps or epochs begun so far (``schedule_unit``); the first one is 1.
    """
    weight = _rise(time, config.warmup)
    if config.decay:
        weight *= 1.0 - _rise(time - config.warmup - config.hold, config.decay)
    epsilon = config.epsilon
    if config.epsilon_start and config.epsilon_decay:
        start = config.epsilon_start
        # from `start` in the first step on, where a weight has begun to rise already
        epsilon = start * (config.epsilon / start) ** _rise(time - 1, config.epsilon_decay)
    return Now(weight, config.alpha * _rise(time, config.alpha_warmup), epsilon)


def _rise(time: float, span: float) -> float:
    """From 0 to 1 over `span`, 1 at once where it is 0."""
    return min(max(time / span, 0.0), 1.0) if span else 1.0
