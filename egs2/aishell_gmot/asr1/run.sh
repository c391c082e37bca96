#!/usr/bin/env bash
# AISHELL-1 with ESPnet2, with or without GM-OT. `./run.sh --help` tells more.
set -e
set -u
set -o pipefail

help_message=$(cat << 'TEXT'
Usage: ./run.sh [OPTIONS]              every option takes a value: --name value

Data (give one of these; default: $AISHELL, else ./downloads):
  --data PATH           data_aishell, the folder above it, or data_aishell.tgz
  --data_url URL        download data_aishell.tgz first; 'openslr' stands for OpenSLR's resource 33 (15.6 GB)
  --max_utts N          keep at most N utterances of each set, for a quick run
  --max_bad N           skip up to N bad utterances of each set (cut, silent, fewer frames than characters …), listed in
                        SET/bad_utterances; never of test sets [0]. asr.sh checks nothing: there in stage 1 only,
                        and data/ of your own by `python3 -m espnet_gmot check-data`, before stages 2 and 3

Engine:
  --espnet_root DIR     run the asr.sh of this ESPnet checkout (default: $ESPNET_ROOT); without one, the same stages
                        run in one Python process, with the same options, folders and files
  --workdir DIR         where data/, dump/ and exp/ go (default: this recipe's folder)

GM-OT:
  --teacher MODEL       pretrained language model: a folder or a Hugging Face name (e.g. bert-base-chinese)
  --teacher_layer N     its layer, 0 to N or -1 for the last; several, "4 8 12", for a configuration with as many taps
                        or with teacher_mix: true (default: what gmot_conf in the configuration says)
  --teacher_mode MODE   archive: compute its features once, before stage 10 (default); online: in every training step
  --teacher_opts OPTS   more options for dump-teacher, e.g. "--device cuda --normalise whiten --precision int8"
  --teacher_name NAME   folder of the features beside each set's text, another one for other teacher_opts
                        [teacher, with layers named as in teacher_4_8_12]
  Without --asr_tag, the experiment's name holds --asr_args (as asr.sh's does), --teacher_layer and --teacher_name.

Frozen features instead of filterbanks:
  --frontend_model MODEL    speech encoder (folder or Hugging Face name) whose features stage 1 computes once;
                            implies --feats_type extracted and no speed perturbation
  --frontend_layer N        its layer (default: -1)
  --frontend_opts OPTS      more options for dump-frontend

Every option of ESPnet's asr.sh, among them (defaults in brackets):
  --stage N [1] --stop_stage N [10000] --ngpu N [4] --nj N [32] --inference_nj N [32] --gpu_inference true|false [false]
  --asr_config FILE [conf/train_asr_ctc_e_branchformer_e12.yaml, with --teacher its _gmot twin] --asr_tag NAME
  --inference_config FILE [conf/decode_ctc_greedy.yaml] --inference_asr_model FILE [valid.cer_ctc.ave.pth]
  --train_set NAME [train] --valid_set NAME [dev] --test_sets NAMES ["dev test"]
  --speed_perturb_factors FACTORS ["0.9 1.0 1.1"] --token_type char|word|bpe [char] --use_lm true|false [false]
  --feats_type raw|extracted [raw] --audio_format wav|flac|wav.ark|flac.ark [flac.ark] --dumpdir DIR [dump] --expdir DIR [exp]
  --asr_args OPTS --inference_args OPTS --skip_packing true|false [true]
  all of them: python3 -m espnet_gmot recipe --help

Examples:
  ./run.sh --data_url openslr --ngpu 4                                             the CTC baseline
  ./run.sh --teacher bert-base-chinese --ngpu 4 --stage 2 --asr_tag gmot           GM-OT on the same data
  ./run.sh --espnet_root ~/espnet --asr_config conf/train_asr_conformer_e12.yaml \
           --inference_config conf/decode_asr.yaml --inference_asr_model valid.acc.ave.pth
TEXT
)

fail() {
    echo "run.sh: error: $*" >&2
    exit 1
}

log() {
    echo "$(date '+%Y-%m-%dT%H:%M:%S') (run.sh) $*"
}

absolute() { # an existing path, absolute; anything else (a hub name, say) as it is
    if [ -e "$1" ]; then readlink -f -- "$1"; else printf '%s\n' "$1"; fi
}

# ---- options of this recipe
espnet_root=${ESPNET_ROOT:-}
workdir=
data=
data_url=
max_utts=
max_bad=0
teacher=
teacher_layer=
teacher_mode=archive
teacher_opts=
teacher_name=
frontend_model=
frontend_layer=
frontend_opts=

# ---- options of asr.sh that are needed here too
stage=1
stop_stage=10000
look_to=
train_set=train
valid_set=dev
test_sets="dev test"
feats_type=
speed_perturb_factors='<unset>'
token_type=char
nbpe=30
lang=zh
dumpdir=dump
asr_tag=
asr_exp=
asr_config=
asr_args=
inference_config=conf/decode_ctc_greedy.yaml
nlsyms_txt=none
skip_train=false
others=()
given=()

while [ $# -gt 0 ]; do
    case "$1" in
        -h|--help) echo "${help_message}"; exit 0 ;;
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --*) ;;
        *) fail "'$1': every argument is an option with a value, as in --stage 1; see --help" ;;
    esac
    [ $# -ge 2 ] || fail "$1: give a value"
    name=${1#--}
    name=${name//-/_}
    [[ "${name}" =~ ^[A-Za-z][A-Za-z0-9_]*$ ]] || fail "'$1': no option's name; see --help"
    [[ "$2" != *[$'\n\r']* ]] || fail "--${name}: its value has a line break, which tables and logs can't hold"
    given+=("${name}" "$2")
    case "${name}" in
        espnet_root|workdir|data|data_url|max_utts|max_bad|teacher|teacher_layer|teacher_mode|teacher_opts|teacher_name|\
        frontend_model|frontend_layer|frontend_opts|stage|stop_stage|look_to|train_set|valid_set|test_sets|feats_type|\
        speed_perturb_factors|token_type|nbpe|lang|dumpdir|asr_tag|asr_exp|asr_config|asr_args|inference_config|nlsyms_txt|skip_train)
            printf -v "${name}" '%s' "$2" ;;
        *) others+=("--${name}" "$2") ;;
    esac
    shift 2
done

case "${teacher_mode}" in
    archive|online) ;;
    *) fail "--teacher_mode ${teacher_mode}: must be archive or online" ;;
esac
[ "${teacher_mode}" = archive ] || [ -z "${teacher_opts}" ] || \
    fail "--teacher_opts '${teacher_opts}': for --teacher_mode archive; an online teacher has options in gmot_conf"
[[ "${teacher_name}" =~ ^[A-Za-z0-9_.-]*$ ]] || fail "--teacher_name '${teacher_name}': must be a plain folder name"
read -ra chosen <<< "${teacher_layer}"
teacher_layer=${chosen[*]}
[[ "${teacher_layer}" =~ ^(-?[0-9]+( -?[0-9]+)*)?$ ]] || fail "--teacher_layer '${teacher_layer}': must be whole numbers"
case "${skip_train}" in
    true|false) ;;
    *) fail "--skip_train '${skip_train}': must be true or false" ;;
esac
[[ "${max_bad}" =~ ^[0-9]+$ ]] || fail "--max_bad ${max_bad}: must be a whole number"
[[ "${stage}" =~ ^[0-9]+$ ]] || fail "--stage ${stage}: must be a whole number"
[[ "${stop_stage}" =~ ^[0-9]+$ ]] || fail "--stop_stage ${stop_stage}: must be a whole number"

if [ -n "${frontend_model}" ]; then
    [ "${feats_type:-extracted}" = extracted ] || fail "--feats_type ${feats_type}: --frontend_model needs extracted"
    feats_type=extracted
fi
feats_type=${feats_type:-raw}
if [ "${speed_perturb_factors}" = '<unset>' ]; then
    speed_perturb_factors="0.9 1.0 1.1"
    [ "${feats_type}" != extracted ] || speed_perturb_factors=
elif [ -n "${speed_perturb_factors}" ] && [ "${feats_type}" = extracted ]; then
    fail "--speed_perturb_factors '${speed_perturb_factors}': extracted features can't be perturbed; give ''"
fi
if [ -z "${asr_config}" ]; then
    asr_config=conf/train_asr_ctc_e_branchformer_e12${teacher:+_gmot}.yaml
fi
sp=${speed_perturb_factors:+_sp}
if [ -n "${teacher}" ] && [ -z "${asr_tag}${asr_exp}" ]; then
    # asr.sh's own name, without the paths that --teacher adds to asr_args
    asr_tag=$(basename "${asr_config}" .yaml)_${feats_type}
    [ "${lang}" = noinfo ] || asr_tag+=_${lang}
    asr_tag+=_${token_type}
    [ "${token_type}" != bpe ] || asr_tag+="${nbpe}"
    asr_tag+=$(sed 's/--/_/g;s/[ |=/]//g' <<< "${asr_args}")${sp}
    [ -z "${teacher_layer}" ] || asr_tag+=_layer_${teacher_layer// /_}
    [ -z "${teacher_name}" ] || [ "${teacher_name}" = teacher ] || asr_tag+=_${teacher_name}
fi

if [ -n "${espnet_root}" ]; then
    for name in dumpdir workdir teacher asr_config inference_config nlsyms_txt; do
        [[ "${!name}" != *[[:space:]]* ]] || \
            fail "--${name} '${!name}': asr.sh splits words at spaces; give a path without, or leave out --espnet_root"
    done
    # asr.sh's parse_options.sh evaluates every value, and run.pl puts every word into a shell's command line
    for ((i = 0; i < ${#given[@]}; i += 2)); do
        name=${given[i]}
        case "${name}" in
            espnet_root|data|data_url|max_utts|frontend_*|teacher_opts) continue ;; # not asr.sh's
            bpe_nlsyms) signs=$'*[$`"\\\\]*' ;;                                  # <noise> and the like
            *_args|*_opts) signs=$'*[$`"\\\\;&|<>()]*' ;;
            *) signs=$'*[$`"\\\\;&|<>()\']*' ;;
        esac
        # shellcheck disable=SC2053
        [[ "${given[i + 1]}" != ${signs} ]] || \
            fail "--${name} '${given[i + 1]}': a shell would act on its signs in asr.sh; rename, or leave out --espnet_root"
    done
fi
quoted() { # one word of asr_args; the engine in Python reads quotes
    if [[ "$1" == *[[:space:]\'\"\\]* ]]; then printf "'%s'" "${1//\'/\'\"\'\"\'}"; else printf '%s' "$1"; fi
}

# ---- paths are relative to where run.sh was called; the rest happens in the work folder
for name in espnet_root data teacher frontend_model asr_config inference_config nlsyms_txt; do
    if [ -n "${!name}" ]; then printf -v "${name}" '%s' "$(absolute "${!name}")"; fi
done
recipe=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
workdir=${workdir:-${recipe}}
mkdir -p -- "${workdir}"
workdir=$(readlink -f -- "${workdir}")
cd "${workdir}"

link() { # link TARGET as NAME in the work folder, unless a file of the user's own is there
    if [ -L "$2" ] || [ ! -e "$2" ]; then
        [ "$(readlink -f "$2")" = "$(readlink -f "$1")" ] || ln -sfn "$1" "$2"
    fi
}
for name in conf local path.sh cmd.sh; do
    [ "${PWD}" = "${recipe}" ] || link "${recipe}/${name}" "${name}"
done
if [ -n "${espnet_root}" ]; then
    template=${espnet_root}/egs2/TEMPLATE/asr1
    [ -f "${template}/asr.sh" ] || fail "--espnet_root ${espnet_root}: no egs2/TEMPLATE/asr1/asr.sh there"
    for name in asr.sh scripts pyscripts utils steps db.sh; do
        link "${template}/${name}" "${name}"
    done
fi
export ESPNET_ROOT=${espnet_root}
[ -z "${data}" ] || export AISHELL=${data}
[ -z "${data_url}" ] || export AISHELL_URL=${data_url}
[ -z "${max_utts}" ] || export GMOT_MAX_UTTS=${max_utts}
export GMOT_MAX_BAD=${max_bad}
[ -z "${frontend_model}" ] || export GMOT_FRONTEND_MODEL=${frontend_model}
[ -z "${frontend_layer}" ] || export GMOT_FRONTEND_LAYER=${frontend_layer}
[ -z "${frontend_opts}" ] || export GMOT_FRONTEND_OPTS=${frontend_opts}

# shellcheck disable=SC1091
. ./path.sh

if [ -n "${espnet_root}" ]; then
    command -v sclite > /dev/null || [ "${stop_stage}" -lt 13 ] || \
        fail "asr.sh scores with sclite: install Debian's sctk, or give --stop_stage 12 and score without --espnet_root"
    if [ "${stage}" -le 3 ] && [ "${stop_stage}" -ge 2 ]; then
        [ -z "${sp}" ] || command -v sox > /dev/null || \
            fail "asr.sh perturbs speed with sox: install it, or run stages 1 to 3 without --espnet_root"
        if [ "${stage}" -ge 2 ]; then # data of the user's own, which asr.sh neither cleans nor checks
            folders=()
            if [ "${skip_train}" != true ]; then
                folders=("data/${train_set}" "data/${valid_set}")
                [ "${stage}" -eq 2 ] || folders[0]+=${sp} # what stage 2 made of it
            fi
            read -ra scored <<< "${test_sets}"
            [ ${#scored[@]} -eq 0 ] || folders+=(--tests "${scored[@]/#/data/}")
            python3 -m espnet_gmot check-data "${folders[@]}" || fail "data/ isn't fit for asr.sh, see above"
        fi
    fi
fi

engine() { # engine ASR_ARGS OPTIONS…: run the stages
    local args=$1
    shift
    # asr.sh has no such options
    local command=(python3 -m espnet_gmot recipe --max_bad "${max_bad}" --look_to "${look_to:-${stop_stage}}")
    if [ -n "${espnet_root}" ]; then
        command=(./asr.sh --python "python3 -m espnet_gmot")
    fi
    "${command[@]}" \
        --nj 32 \
        --inference_nj 32 \
        --ngpu 4 \
        --lang "${lang}" \
        --audio_format "flac.ark" \
        --feats_type "${feats_type}" \
        --token_type "${token_type}" \
        --nbpe "${nbpe}" \
        --use_lm false \
        --asr_config "${asr_config}" \
        --asr_tag "${asr_tag}" \
        --asr_exp "${asr_exp}" \
        --inference_config "${inference_config}" \
        --inference_asr_model valid.cer_ctc.ave.pth \
        --train_set "${train_set}" \
        --valid_set "${valid_set}" \
        --test_sets "${test_sets}" \
        --speed_perturb_factors "${speed_perturb_factors}" \
        --asr_speech_fold_length 512 \
        --asr_text_fold_length 150 \
        --lm_fold_length 150 \
        --lm_train_text "data/${train_set}/text" \
        --bpe_train_text "data/${train_set}/text" \
        --dumpdir "${dumpdir}" \
        --skip_train "${skip_train}" \
        --nlsyms_txt "${nlsyms_txt}" \
        --asr_args "${args}" \
        "${others[@]}" "$@"
}

if [ -z "${teacher}" ] || [ "${skip_train}" = true ] || [ "${stage}" -gt 11 ] || [ "${stop_stage}" -lt 10 ]; then
    engine "${asr_args}" --stage "${stage}" --stop_stage "${stop_stage}"
    exit 0
fi
# what the configuration or the teacher lacks is said before the stages, not after
transfer=
if [ -n "${teacher_layer}" ]; then
    transfer="--model_conf gmot_conf.teacher_layer=${teacher_layer} "
    [[ "${teacher_layer}" != *" "* ]] || transfer="--model_conf gmot_conf.teacher_layer=[${teacher_layer// /,}] "
fi
layers=$(python3 -m espnet_gmot recipe --layers "${asr_config}" "${transfer}${asr_args}" "${teacher}") || exit 1
if [ "${teacher_mode}" = online ]; then
    # the width is the model's own, whatever the configuration says of archives
    transfer="--model_conf $(quoted "gmot_conf.teacher=${teacher}") --model_conf gmot_conf.teacher_width=null ${transfer}"
    engine "${transfer}${asr_args}" --stage "${stage}" --stop_stage "${stop_stage}"
    exit 0
fi

# The teacher's features are made from the transcripts that stage 4 leaves, and read from stage 10 on.
if [ "${stage}" -le 9 ]; then
    engine "${asr_args}" --stage "${stage}" --stop_stage 9
    stage=10
fi
if [ -z "${teacher_name}" ]; then
    teacher_name=teacher
    [ "${layers}" = -1 ] || teacher_name=teacher_${layers// /_} # so that systems with other layers keep theirs
fi
read -ra chosen <<< "${layers}"
read -ra options <<< "${teacher_opts}"
streams=
stats=()
symbols=()
[ "${nlsyms_txt}" = none ] || symbols=(--nlsyms_txt "${nlsyms_txt}")
for dset in "train ${train_set}${sp}" "valid ${valid_set}"; do
    directory=${dumpdir}/${feats_type}/${dset#* }
    [ -f "${directory}/text" ] || fail "${directory}/text: no such file; run stages 3 and 4 first"
    features=${directory}/${teacher_name}
    log "Teacher's features of ${directory}/text: ${features}"
    python3 -m espnet_gmot dump-teacher --model "${teacher}" --layer "${chosen[@]}" --text "${directory}/text" \
        --out "${features}" "${options[@]}" "${symbols[@]}" "${stats[@]}" || \
        fail "dump-teacher failed, see above; features of other --teacher_opts want another --teacher_name"
    read -r width normalise < <(python3 -c 'import json, sys
note = json.load(open(sys.argv[1], encoding="utf8"))
print(note["width"], note.get("normalise", "none"))' "${features}/teacher.json")
    [ "${normalise}" = none ] || stats=(--stats "${features}") # the training set's serve for the valid set
    streams+="--${dset% *}_data_path_and_name_and_type $(quoted "${features}/teacher.scp,teacher,kaldi_ark") "
done
if [ ${#stats[@]} -gt 0 ]; then
    # a running mean r of rows less their exact mean m would bring r back: (x - m) - (r - m) = x - r
    streams+="--model_conf gmot_conf.centre=false "
fi
transfer+="--model_conf gmot_conf.teacher_width=${width} "
engine "${streams}${transfer}${asr_args}" --stage "${stage}" --stop_stage "${stop_stage}"
