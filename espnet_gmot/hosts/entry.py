"""What happens before or in place of an ESPnet program, whoever runs it: the launcher, or the recipe's own engine."""

from collections.abc import Sequence

from espnet_gmot.hosts.guard import before


def instead(module: str, words: Sequence[str]) -> bool:
    """Look at what an ESPnet program is asked for; whether that is done here, in its place.

    Args:
        module: such as espnet2.bin.asr_train.
        words: its options.

    Raises:
        UserError: a training would overwrite a model of another kind, or fail in its first step; the parameters to
            pack aren't those of their configuration.
    """
    if module == "espnet2.bin.pack":
        from espnet_gmot.hosts.packing import pack

        return pack(list(words))
    before(module, list(words))
    return False
