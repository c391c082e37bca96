#!/usr/bin/env bash
# Stage 1: data/{train,dev,test} from AISHELL-1; with --frontend_model also data/*/feats.scp (frozen features).
set -e
set -u
set -o pipefail

help_message="Usage: local/data.sh [--frontend_model DIR_OR_NAME [--frontend_layer N] [--frontend_opts 'OPTIONS']] [prepare-data's options]
  --frontend_model  dump this speech encoder's features of every set (for --feats_type extracted);
                    default: \$GMOT_FRONTEND_MODEL
  --frontend_layer  its layer, 0 to N, or -1 for the last; default: \$GMOT_FRONTEND_LAYER, else the command's
  --frontend_opts   more options for dump-frontend; default: \$GMOT_FRONTEND_OPTS
The other options, and AISHELL and AISHELL_URL in the environment, go to prepare-data:"

frontend_model=${GMOT_FRONTEND_MODEL:-}
frontend_layer=${GMOT_FRONTEND_LAYER:-}
frontend_opts=${GMOT_FRONTEND_OPTS:-}

# shellcheck disable=SC1091
. ./path.sh

options=()
while [ $# -gt 0 ]; do
    case "$1" in
        --frontend_model|--frontend_layer|--frontend_opts)
            [ $# -ge 2 ] || { echo "local/data.sh: error: $1: give a value" >&2; exit 2; }
            printf -v "${1#--}" '%s' "$2"
            shift 2 ;;
        -h|--help)
            echo "${help_message}"
            exec python3 -m espnet_gmot prepare-data --help ;;
        *) options+=("$1"); shift ;;
    esac
done

python3 -m espnet_gmot prepare-data "${options[@]}"

if [ -n "${frontend_model}" ]; then
    for dset in train dev test; do
        # shellcheck disable=SC2086
        python3 -m espnet_gmot dump-frontend --model "${frontend_model}" --wav_scp "data/${dset}/wav.scp" \
            --out "data/${dset}/frontend" ${frontend_layer:+--layer "${frontend_layer}"} ${frontend_opts}
        if ! cmp -s "data/${dset}/frontend/feats.scp" "data/${dset}/feats.scp"; then
            cp "data/${dset}/frontend/feats.scp" "data/${dset}/feats.scp"
        fi
    done
fi
