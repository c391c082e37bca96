#!/usr/bin/env bash
# How asr.sh starts its jobs: on this machine. For a cluster, name queue.pl or slurm.pl here (see ESPnet's TEMPLATE).
export train_cmd="run.pl"
export cuda_cmd="run.pl"
export decode_cmd="run.pl"
