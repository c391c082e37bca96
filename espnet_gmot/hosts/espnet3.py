"""ESPnet3's ASR task with the plugin registered; in a configuration: ``task: espnet_gmot.hosts.espnet3.ASRTask``.

ESPnet3 names its task in the configuration and imports it in every process (Lightning restarts the user's script for
each further device, without our launcher). Registration that comes with the task's name reaches all of them.
"""

from espnet_gmot.hosts.register import register

register()

from espnet3.systems.esp2_asr.task import ASRTask  # noqa: E402 - after the registration that it triggers

__all__ = ["ASRTask"]
