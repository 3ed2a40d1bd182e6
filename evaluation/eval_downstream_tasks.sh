#!/usr/bin/env bash
# Scores a model by lighteval on the tasks of the guides' tables. Edit the values here, or give them as environment variables:
#   MODEL=./runs/demo/pretrain OUTPUT_DIR=./eval_results bash ./evaluation/eval_downstream_tasks.sh
set -euo pipefail

MODEL="${MODEL:-./runs/demo/pretrain}"      # a checkpoint's folder, or a name on the hub
OUTPUT_DIR="${OUTPUT_DIR:-./eval_results}"  # for the tables
DATA_ROOT="${DATA_ROOT:-./data}"            # the tasks' data, as of small-doge eval --data-root
SUITE="${SUITE:-base}"                      # base or instruct
TASKS="${TASKS:-}"                          # rows in place of all of the suite, such as arc,hellaswag
SHOTS="${SHOTS:-}"                          # examples before each item; as in the guides' tables if empty
LIMIT="${LIMIT:-}"                          # items of each task; all if empty
BATCH_SIZE="${BATCH_SIZE:-8}"               # texts computed together
DTYPE="${DTYPE:-float32}"                   # of the weights
MAX_LENGTH="${MAX_LENGTH:-}"                # tokens of the longest text; the length that the model was trained on if empty
SAVE_DETAILS="${SAVE_DETAILS:-}"            # anything: every item's score is kept too, in files that Windows can't name

case "$SUITE" in base | instruct) ;; *) echo "SUITE=$SUITE: lighteval asks base or instruct" >&2; exit 1 ;; esac
case "$MODEL" in ./* | ../* | /*) test -d "$MODEL" || { echo "MODEL=$MODEL: there is no such folder" >&2; exit 1; } ;; esac

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(dirname "$HERE")"
PATH="$ROOT/.venv/bin:$ROOT/.venv-lighteval/bin:$PATH"
SMALL_DOGE="${SMALL_DOGE:-small-doge}"      # name or path of the program
LIGHTEVAL="${LIGHTEVAL:-lighteval}"         # name or path of the program
for PROGRAM in "$SMALL_DOGE" "$LIGHTEVAL"; do
    command -v "$PROGRAM" >/dev/null || { echo "$PROGRAM is missing; make it with: make setup lighteval" >&2; exit 1; }
done
LIGHTEVAL="$(command -v "$LIGHTEVAL")"
case "$LIGHTEVAL" in /*) ;; *) LIGHTEVAL="$PWD/$LIGHTEVAL" ;; esac

mkdir -p "$OUTPUT_DIR"
OUTPUT_DIR="$(cd "$OUTPUT_DIR" && pwd)"
export PROMPTS_DIR="$OUTPUT_DIR/prompts-$SUITE"

# 1. Write what small-doge eval asks.
ARGUMENTS=(--suite "$SUITE" --data-root "$DATA_ROOT" --output-dir "$PROMPTS_DIR")
if [ -n "$TASKS" ]; then ARGUMENTS+=(--tasks "$TASKS"); fi
if [ -n "$SHOTS" ]; then ARGUMENTS+=(--shots "$SHOTS"); fi
if [ -n "$LIMIT" ]; then ARGUMENTS+=(--limit "$LIMIT"); fi
if [ "$SUITE" != base ]; then ARGUMENTS+=(--tokenizer "$MODEL"); fi
"$SMALL_DOGE" eval prompts "${ARGUMENTS[@]}"

# 2. Ask it by lighteval. Its cache of answers knows neither the weights nor the prompts, so each run has a new one; a model's
#    folder is named from its parent, because lighteval would put that cache into a folder with an absolute path.
CACHE="$(mktemp -d)"
trap 'rm -rf "$CACHE"' EXIT
if [ -d "$MODEL" ]; then
    MODEL="$(cd "$MODEL" && pwd)"
    cd "$(dirname "$MODEL")"
    MODEL="$(basename "$MODEL")"
    export HF_HUB_OFFLINE=1
fi
export HF_DATASETS_CACHE="$CACHE/datasets"
SETTINGS="model_name=$MODEL,batch_size=$BATCH_SIZE,dtype=$DTYPE,cache_dir=$CACHE"
if [ -n "$MAX_LENGTH" ]; then SETTINGS+=",max_length=$MAX_LENGTH"; fi
if [ "$SUITE" = base ]; then
    SETTINGS+=",override_chat_template=False"
else
    SETTINGS+=",override_chat_template=True,add_special_tokens=False,tokenizer=$PROMPTS_DIR/tokenizer"
fi
ARGUMENTS=(--custom-tasks "$HERE/lighteval_tasks.py" --output-dir "$OUTPUT_DIR" --no-remove-reasoning-tags)
if [ -n "$SAVE_DETAILS" ]; then ARGUMENTS+=(--save-details); fi
"$LIGHTEVAL" accelerate "$SETTINGS" "$PROMPTS_DIR/tasks.txt" "${ARGUMENTS[@]}"
