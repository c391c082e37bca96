#!/usr/bin/env bash
# Stage 1: data/{train,dev,test} from AISHELL-1, and frozen features where asked for.
# Takes prepare-data's options; run.sh passes its own through the environment, where paths may hold spaces.
set -e
set -u
set -o pipefail

# shellcheck disable=SC1091
. ./path.sh

python3 -m espnet_gmot prepare-data "$@"
