#!/usr/bin/env bash
# Real speech on a CPU: a CTC baseline and GM-OT on a small corpus in AISHELL-1's form, with frozen features.
set -e
set -u
set -o pipefail
set -f # words that are split stay as they are

help_message=$(cat << 'TEXT'
Usage: ./run_mini.sh --data TGZ_OR_DIR --frontend_model MODEL --plm MODEL [OPTIONS]

Runs every stage of run.sh for each system, then prints one table and lines 'CER SYSTEM SET VALUE'.
A second call reuses what is there.

  --data PATH             data_aishell_mini.tgz, or any corpus in AISHELL-1's form
  --frontend_model MODEL  frozen speech encoder (folder or Hugging Face name), e.g. a Whisper encoder
  --plm MODEL             teacher for every system but ctc (folder or Hugging Face name)
  --workdir DIR           where data/, dump/ and exp/ go [./mini]
  --max_utts N            at most N utterances of each set, for a quick check [all]
  --systems NAMES         systems to train, each with its configuration PREFIX + NAME + .yaml ["ctc gmot"]
  --config_prefix PREFIX  [conf/mini_]
  --epochs N              overrules max_epoch of the configurations
  --seed N                overrules their seed; the experiments are then exp/asr_mini_SYSTEM_seedN
  --test_sets NAMES       sets to decode and report; "dev" leaves the test set alone while you try things ["dev test"]
  --nj N                  parts for data, statistics and decoding [number of cores]
  --espnet_root DIR       use this checkout's asr.sh instead of the Python engine
TEXT
)

fail() {
    echo "run_mini.sh: error: $*" >&2
    exit 1
}

data=
frontend_model=
plm=
workdir=mini
max_utts=
systems="ctc gmot"
config_prefix=conf/mini_
epochs=
seed=
test_sets="dev test"
nj=$(nproc)
espnet_root=

while [ $# -gt 0 ]; do
    case "$1" in
        -h|--help) echo "${help_message}"; exit 0 ;;
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    case "$1" in
        --data|--frontend_model|--plm|--workdir|--max_utts|--systems|--config_prefix|--epochs|--seed|--test_sets|--nj|--espnet_root)
            [ $# -ge 2 ] || fail "$1: give a value"
            printf -v "${1#--}" '%s' "$2" ;;
        *) fail "$1: no such option; see --help" ;;
    esac
    shift 2
done
for name in data frontend_model plm; do
    [ -n "${!name}" ] || fail "--${name}: required; see --help"
done
for name in epochs seed max_utts nj; do
    [[ "${!name}" =~ ^[0-9]*$ ]] || fail "--${name} '${!name}': must be a whole number"
done
[ -e "${data}" ] || fail "--data ${data}: no such file or folder"
[ -n "${systems// /}" ] || fail "--systems: name at least one, e.g. \"ctc gmot\""

recipe=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
# a CPU trains with all its cores
OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
export OMP_NUM_THREADS

stage=1
experiments=()
for system in ${systems}; do
    tag=mini_${system}${seed:+_seed${seed}}
    asr_args="${epochs:+--max_epoch ${epochs}}${seed:+ --seed ${seed}}"
    options=(--workdir "${workdir}" --data "${data}" --frontend_model "${frontend_model}")
    options+=(--asr_config "${config_prefix}${system}.yaml" --asr_tag "${tag}")
    options+=(--ngpu 0 --nj "${nj}" --inference_nj "${nj}" --stage "${stage}" --stop_stage 13)
    options+=(--test_sets "${test_sets}" --asr_args "${asr_args}")
    [ "${system}" = ctc ] || options+=(--teacher "${plm}")
    [ -z "${max_utts}" ] || options+=(--max_utts "${max_utts}")
    [ -z "${espnet_root}" ] || options+=(--espnet_root "${espnet_root}")
    echo "$(date '+%Y-%m-%dT%H:%M:%S') (run_mini.sh) system ${system}: ${workdir}/exp/asr_${tag}"
    "${recipe}/run.sh" "${options[@]}"
    experiments+=("${system}=exp/asr_${tag}")
    # data, features and statistics are the same for all systems
    stage=11
done

cd -- "${workdir}"
# shellcheck disable=SC1091
. ./path.sh
echo
echo "Results are in ${PWD}/exp/asr_mini_*/ (RESULTS.md, train.log, images/)."
python3 -m espnet_gmot report --sets "${test_sets}" --exp "${experiments[@]}"
