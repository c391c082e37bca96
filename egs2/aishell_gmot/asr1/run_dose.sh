#!/usr/bin/env bash
# Dose and response: does CER fall with what the teacher knows? Teachers that read more and more text, and controls.
set -e
set -u
set -o pipefail
set -f # words that are split stay as they are

recipe=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
help_message="Usage: $0 --workdir DIR [OPTIONS]

Trains the recogniser of make demo (synthetic Mandarin) with teachers of one size and one number of updates that differ in the
text that they read, and compares CER (run_comparison.sh: resumable, the test set scored once, with --final).

  none       random weights                         own        the transcripts of the training set
  x3 x10 x30 + 2, 9, 29 times as much domain text   permuted   x10, each character with another one's rows
                                                          permuted30 likewise of x30
  blank      random weights, all characters alike: it knows places in the sentence, and nothing of what is said

  --workdir DIR     where everything goes
  --doses NAMES     teachers [none own x3 x10 x30 permuted blank]
  --presets NAMES   systems for each teacher [gmot]
  --baselines NAMES without transfer [ctc ctc-long]; ctc-long trains half as many epochs again: the same time and more
  --seeds SEEDS     [0 1 2 3 4]
  --epochs N        of every cell [24]
  --updates N       of every teacher [1240]
  --jobs N          cells at a time [2]
  --ngpu N          GPUs for each cell [0]
  --keep_epochs     every epoch's parameters stay, for align --measure; the best three are scored, as ever
  --final           score the test set, when all cells are finished"

fail() {
    echo "run_dose.sh: error: $*" >&2
    exit 1
}

workdir=
doses="none own x3 x10 x30 permuted blank"
presets="gmot"
baselines="ctc ctc-long"
seeds="0 1 2 3 4"
epochs=24
updates=1240
jobs=2
ngpu=0
final=()
keep=()
while [ $# -gt 0 ]; do
    case "$1" in
        -h|--help) echo "${help_message}"; exit 0 ;;
        --final) final=(--final); shift ;;
        --keep_epochs) keep=(yes); shift ;;
        --workdir|--doses|--presets|--baselines|--seeds|--epochs|--updates|--jobs|--ngpu)
            [ $# -ge 2 ] || fail "$1: give a value"
            printf -v "${1#--}" '%s' "$2"; shift 2 ;;
        *) fail "$1: no such option; see --help" ;;
    esac
done
[ -n "${workdir}" ] || fail "--workdir: give a folder"
for name in epochs updates jobs ngpu; do
    [[ "${!name}" =~ ^[0-9]+$ ]] || fail "--${name} '${!name}': must be a whole number"
done
mkdir -p -- "${workdir}"
workdir=$(readlink -f -- "${workdir}")
[[ "${workdir}" != *[[:space:]]* ]] || fail "--workdir '${workdir}': --teachers is split at spaces; give a path without"
for dose in ${doses}; do
    [[ "${dose}" =~ ^(none|own|permuted([1-9][0-9]*)?|blank|x[1-9][0-9]*)$ ]] || fail "--doses: '${dose}' is none of none, own, x3 …, permuted, blank"
done
systems=
budget=()
for baseline in ${baselines}; do
    case "${baseline}" in
        ctc) systems+=" ctc=ctc:max_epoch=${epochs}" ;;
        ctc-long) systems+=" ctc-long=ctc:max_epoch=$(( epochs * 3 / 2 ))"; budget=(--other_budget ctc-long) ;;
        *) fail "--baselines: '${baseline}' is neither ctc nor ctc-long" ;;
    esac
done
# shellcheck disable=SC1091
. "${recipe}/path.sh"

options=(--workdir "${workdir}" --data "${workdir}/corpus/data_aishell.tgz" --ngpu "${ngpu}" --nj 2 --inference_nj 1)
options+=(--speed_perturb_factors "" --audio_format wav.ark --feats_normalize utterance_mvn)
# ESPnet keeps the most of these numbers, but averages none that is more than there are epochs
[ ${#keep[@]} -eq 0 ] || options+=(--asr_args "--keep_nbest_models 3 $(( 2 * epochs ))")
python3 -m espnet_gmot demo-corpus --out "${workdir}/corpus" --domain 17400
[ -f "${workdir}/data/zh_token_list/char/tokens.txt" ] || \
    "${recipe}/run.sh" "${options[@]}" --asr_config "${recipe}/conf/demo_ctc.yaml" --stop_stage 5

teachers=
text=${workdir}/corpus/train_text.txt
cut -d' ' -f2- "${workdir}/data/train/text" > "${text}"
for dose in ${doses}; do
    folder=${workdir}/plm/${dose}
    teachers+="${dose}=${folder} "
    pretrain=(python3 -m espnet_gmot pretrain-plm --out "${folder}" --layers 3 --width 128)
    case "${dose}" in
        none) "${pretrain[@]}" --text "${text}" "${workdir}/corpus/domain_text.txt" --steps 1 --lr 1e-9 ;;
        own) "${pretrain[@]}" --text "${text}" --steps "${updates}" ;;
        x*)
            more=${workdir}/corpus/domain_${dose}.txt
            head -n $(( (${dose#x} - 1) * $(wc -l < "${text}") )) "${workdir}/corpus/domain_text.txt" > "${more}"
            "${pretrain[@]}" --text "${text}" "${more}" --steps "${updates}" ;;
        permuted*)
            from=x${dose#permuted}
            [ "${from}" != x ] || from=x10
            [ -d "${workdir}/plm/${from}" ] || fail "--doses '${doses}': ${dose} is made from ${from}: name ${from} before it"
            python3 "${recipe}/local/permute_teacher.py" "${workdir}/plm/${from}" "${folder}" ;;
        blank)
            [ -d "${workdir}/plm/none" ] || fail "--doses '${doses}': blank is made from none: name none before it"
            python3 "${recipe}/local/blank_teacher.py" "${workdir}/plm/none" "${folder}" ;;
    esac
done

for preset in ${presets}; do
    for dose in ${doses}; do
        systems+=" ${preset}-${dose}=gmot@${dose}:preset=${preset},max_epoch=${epochs}"
    done
done
"${recipe}/run_comparison.sh" "${options[@]}" --stage 6 --teachers "${teachers}" --systems "${systems}" \
    "${budget[@]}" --config_prefix "${recipe}/conf/demo_" --seeds "${seeds}" --jobs "${jobs}" "${final[@]}"
