#!/usr/bin/env bash
# The whole recipe on a small synthetic corpus: CTC baseline and GM-OT, with a CER table at the end.
set -e
set -u
set -o pipefail

recipe=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
workdir=$(cd "${recipe}/../../.." && pwd)/demo
help_message="Usage: $0 [--workdir DIR] [--espnet_root DIR] [--threads N]

Synthesises a small Mandarin corpus (espeak-ng; plainly synthetic), pretrains a small character BERT on its text as the
teacher, runs every stage of run.sh with conf/demo_ctc.yaml and with conf/demo_gmot.yaml, and prints the CER of both.
A second call reuses what is there; an interrupted one continues.

  --workdir DIR       where everything goes (default: ${workdir})
  --espnet_root DIR   use the asr.sh of this ESPnet checkout
  --threads N         threads that train (default: one a core)"

fail() {
    echo "run_demo.sh: error: $*" >&2
    exit 1
}

engine=()
threads=$(nproc)
while [ $# -gt 0 ]; do
    case "$1" in
        -h|--help) echo "${help_message}"; exit 0 ;;
        --workdir) [ $# -ge 2 ] || fail "$1: give a folder"; workdir=$2 ;;
        --espnet_root) [ $# -ge 2 ] || fail "$1: give a folder"; engine=(--espnet_root "$2") ;;
        --threads) [ $# -ge 2 ] || fail "$1: give a number"; threads=$2 ;;
        *) fail "$1: no such option; see --help" ;;
    esac
    shift 2
done
[[ "${threads}" =~ ^[0-9]+$ ]] || fail "--threads '${threads}': must be a whole number"
mkdir -p -- "${workdir}" || fail "--workdir ${workdir}: can't be made; choose a folder that you may write"
workdir=$(readlink -f -- "${workdir}")

# shellcheck disable=SC1091
. "${recipe}/path.sh"
export OMP_NUM_THREADS=${threads} NUMBA_NUM_THREADS=${threads}

step() {
    printf '\n==== demo %s (%d s so far)\n' "$*" "${SECONDS}"
}
run() { # run TAG OPTIONS…: stages of run.sh for conf/demo_TAG.yaml
    "${recipe}/run.sh" "${engine[@]}" --workdir "${workdir}" --data "${workdir}/corpus/data_aishell.tgz" \
        --ngpu 0 --nj 2 --inference_nj 2 --speed_perturb_factors "" --audio_format wav.ark --feats_normalize utterance_mvn \
        --asr_config "${recipe}/conf/demo_$1.yaml" --asr_tag "demo_$1" \
        --inference_config "${recipe}/conf/decode_ctc_greedy.yaml" "${@:2}"
}

step "1/5: the corpus"
python3 -m espnet_gmot demo-corpus --out "${workdir}/corpus"
step "2/5: data and token list"
run ctc --stage 1 --stop_stage 9
step "3/5: the teacher, a character BERT"
cut -d' ' -f2- "${workdir}/data/train/text" > "${workdir}/corpus/train_text.txt"
python3 -m espnet_gmot pretrain-plm --out "${workdir}/plm" --layers 3 --width 128 --epochs 6 \
    --text "${workdir}/corpus/train_text.txt" "${workdir}/corpus/domain_text.txt"
step "4/5: the CTC baseline"
run ctc --stage 10
step "5/5: GM-OT"
run gmot --stage 11 --teacher "${workdir}/plm"

printf '\n==== Results: synthetic speech, so they show that the recipe works and no more\n'
python3 -m espnet_gmot report --sets "dev test" \
    --exp "ctc=${workdir}/exp/asr_demo_ctc" "gmot=${workdir}/exp/asr_demo_gmot"
echo
echo "Everything is in ${workdir}: corpus, plm, data, dump, and exp/asr_demo_{ctc,gmot} (models, RESULTS.md, TensorBoard)"
echo "demo: ${SECONDS} s"
