#!/usr/bin/env bash
# Nothing to add to path.sh (ESPnet's AISHELL recipe asks for kenlm here, which this one doesn't need).
