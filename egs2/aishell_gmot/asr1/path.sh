#!/usr/bin/env bash
# Sourced by run.sh, asr.sh and local/*.sh: which python3, and where espnet_gmot is.

_recipe=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
# the clone that this recipe lies in; a recipe laid down by `recipe --init` lies in none, and uses what is installed
GMOT_ROOT=
case "${_recipe}" in
    */egs2/*) [ ! -f "${_recipe%/egs2/*}/espnet_gmot/launcher.py" ] || GMOT_ROOT=${_recipe%/egs2/*} ;;
esac
export GMOT_ROOT
export LC_ALL=C
export PYTHONIOENCODING=UTF-8
export PYTHONUTF8=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# threads that wait sleep: spinning ones slow a shared machine's training many times over
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
# numba and torch share one OpenMP: whoever starts threads resets the other's number
export NUMBA_NUM_THREADS=${NUMBA_NUM_THREADS:-${OMP_NUM_THREADS}}
# AISHELL's own conf keeps ESPnet's choice: NCCL off the virtual interfaces
export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-"^lo,docker,virbr,vmnet,vboxnet"}

if [ -n "${ESPNET_ROOT:-}" ]; then
    # an ESPnet checkout: its own Python if it has one, its tools behind what is on PATH already
    if [ -f "${ESPNET_ROOT}/tools/activate_python.sh" ]; then
        # shellcheck disable=SC1091
        . "${ESPNET_ROOT}/tools/activate_python.sh"
    fi
    export PATH=${PATH}:${ESPNET_ROOT}/tools/sentencepiece_commands:${ESPNET_ROOT}/tools/sctk/bin:${ESPNET_ROOT}/tools/kenlm/build/bin
fi
# run.pl and its kin, which run.sh links here from a checkout: asr.sh's own scripts under exp/ resume with them
if [ -d utils ]; then
    export PATH=${PWD}/utils:${PATH}
fi
if [ -n "${GMOT_ROOT}" ] && [ -z "${VIRTUAL_ENV:-}" ] && [ -z "${CONDA_PREFIX:-}" ] && [ -x "${GMOT_ROOT}/.venv/bin/python3" ]; then
    export PATH=${GMOT_ROOT}/.venv/bin:${PATH}
fi
# Debian keeps sclite here
export PATH=${PATH}:/usr/lib/sctk/bin
case "${GMOT_ROOT:+:${PYTHONPATH:-}:}" in
    "" | *":${GMOT_ROOT}:"*) ;;
    *) export PYTHONPATH=${GMOT_ROOT}${PYTHONPATH:+:${PYTHONPATH}} ;;
esac
unset _recipe
