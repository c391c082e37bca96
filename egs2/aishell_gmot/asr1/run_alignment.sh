#!/usr/bin/env bash
# Is the coupling an alignment, and when in training does it become one? Members of the family, epoch by epoch.
set -e
set -u
set -o pipefail
set -f # words that are split stay as they are

recipe=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
help_message="Usage: $0 --workdir DIR [OPTIONS]

Trains the recogniser of make demo with members of the family and one teacher (run_dose.sh: resumable), keeps the parameters
of every epoch, and measures on the validation set how far the plan's times are from those at which the synthesiser
spoke (align --measure); CTC's forced alignment beside it. Writes DIR/alignment/alignment.csv.

  --workdir DIR     where everything goes
  --presets NAMES   members of the family [ot tot uot gmot gmot-t gmot-u]
  --dose NAME       what the teacher has read, see run_dose.sh [x10]
  --seeds SEEDS     [0]
  --epochs N        of every cell [24]
  --measure EPOCHS  epochs to look at [of 1 2 4 8 12 16 20 24 those within --epochs]
  --max_utts N      utterances of the validation set to measure on [60]
  --jobs N          cells at a time [2]"

fail() {
    echo "run_alignment.sh: error: $*" >&2
    exit 1
}

workdir=
presets="ot tot uot gmot gmot-t gmot-u"
dose=x10
seeds=0
epochs=24
measure=
max_utts=60
jobs=2
while [ $# -gt 0 ]; do
    case "$1" in
        -h|--help) echo "${help_message}"; exit 0 ;;
        --workdir|--presets|--dose|--seeds|--epochs|--measure|--max_utts|--jobs)
            [ $# -ge 2 ] || fail "$1: give a value"
            printf -v "${1#--}" '%s' "$2"; shift 2 ;;
        *) fail "$1: no such option; see --help" ;;
    esac
done
[ -n "${workdir}" ] || fail "--workdir: give a folder"
[[ "${dose}" =~ ^(none|own|x[1-9][0-9]*)$ ]] || fail "--dose '${dose}': must be none, own or x3 …"
for name in epochs max_utts jobs; do
    [[ "${!name}" =~ ^[1-9][0-9]*$ ]] || fail "--${name} '${!name}': must be a whole number above 0"
done
[[ "${seeds}" =~ ^[0-9]+(" "+[0-9]+)*$ ]] || fail "--seeds '${seeds}': must be whole numbers"
if [ -z "${measure}" ]; then
    for epoch in 1 2 4 8 12 16 20 24; do
        [ "${epoch}" -gt "${epochs}" ] || measure+=" ${epoch}"
    done
fi
files=()
for epoch in ${measure}; do
    [[ "${epoch}" =~ ^[1-9][0-9]*$ ]] || fail "--measure '${measure}': must be whole numbers above 0"
    [ "${epoch}" -le "${epochs}" ] || fail "--measure ${epoch}: there are --epochs ${epochs}"
    files+=("${epoch}epoch.pth")
done
# shellcheck disable=SC1091
. "${recipe}/path.sh"

"${recipe}/run_dose.sh" --workdir "${workdir}" --doses "${dose}" --presets "${presets}" --baselines ctc --keep_epochs \
    --seeds "${seeds}" --epochs "${epochs}" --jobs "${jobs}"
experiments=()
for seed in ${seeds}; do
    seed=$((10#${seed})) # 08 is seed 8
    experiments+=("exp/asr_ctc_seed${seed}")
    for preset in ${presets}; do
        experiments+=("exp/asr_${preset}-${dose}_seed${seed}")
    done
done
cd -- "${workdir}"
python3 -m espnet_gmot align "${experiments[@]}" --measure --asr_model_file "${files[@]}" --set dump/raw/dev \
    --truth corpus/times.ctm --max_utts "${max_utts}" --out alignment
