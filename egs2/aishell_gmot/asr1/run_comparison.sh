#!/usr/bin/env bash
# Systems × seeds on one corpus, resumable, the test set scored once: `./run_comparison.sh --help` tells more.
set -e
set -u
set -o pipefail

recipe=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
# shellcheck disable=SC1091
. "${recipe}/path.sh"
exec python3 -m espnet_gmot compare --recipe "${recipe}" "$@"
