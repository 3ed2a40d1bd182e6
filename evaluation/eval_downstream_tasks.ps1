# Scores a model by lighteval on the tasks of the guides' tables. Edit the values here, or give them as environment variables:
#   $env:MODEL = "./runs/demo/pretrain"; $env:OUTPUT_DIR = "./eval_results"; ./evaluation/eval_downstream_tasks.ps1
$ErrorActionPreference = "Stop"

function Get-Setting($Name, $Default) {
    $Value = [Environment]::GetEnvironmentVariable($Name)
    if ($Value) { return $Value }
    return $Default
}
$MODEL = Get-Setting "MODEL" "./runs/demo/pretrain"         # a checkpoint's folder, or a name on the hub
$OUTPUT_DIR = Get-Setting "OUTPUT_DIR" "./eval_results"     # for the tables
$DATA_ROOT = Get-Setting "DATA_ROOT" "./data"               # the tasks' data, as of small-doge eval --data-root
$SUITE = Get-Setting "SUITE" "base"                         # base or instruct
$TASKS = Get-Setting "TASKS" ""                             # rows in place of all of the suite, such as arc,hellaswag
$SHOTS = Get-Setting "SHOTS" ""                             # examples before each item; as in the guides' tables if empty
$LIMIT = Get-Setting "LIMIT" ""                             # items of each task; all if empty
$BATCH_SIZE = Get-Setting "BATCH_SIZE" "8"                  # texts computed together
$DTYPE = Get-Setting "DTYPE" "float32"                      # of the weights
$MAX_LENGTH = Get-Setting "MAX_LENGTH" ""                   # tokens of the longest text; the length that the model was trained on if empty
$SAVE_DETAILS = Get-Setting "SAVE_DETAILS" ""               # anything: every item's score is kept too, in files that Windows can't name

if ($SUITE -notin "base", "instruct") { throw "SUITE=${SUITE}: lighteval asks base or instruct" }
if ($MODEL -match "^(\.|/|[A-Za-z]:)" -and -not (Test-Path $MODEL -PathType Container)) { throw "MODEL=${MODEL}: there is no such folder" }

$HERE = $PSScriptRoot
$ROOT = Split-Path $HERE
$env:PATH = "$ROOT/.venv/Scripts;$ROOT/.venv-lighteval/Scripts;$env:PATH"
$SMALL_DOGE = Get-Setting "SMALL_DOGE" "small-doge"         # name or path of the program
$LIGHTEVAL = Get-Setting "LIGHTEVAL" "lighteval"            # name or path of the program
foreach ($PROGRAM in $SMALL_DOGE, $LIGHTEVAL) {
    if (-not (Get-Command $PROGRAM -ErrorAction SilentlyContinue)) { throw "$PROGRAM is missing; docs/evaluation.md tells how to make it" }
}
$LIGHTEVAL = (Get-Command $LIGHTEVAL).Source

New-Item -ItemType Directory -Force $OUTPUT_DIR | Out-Null
$OUTPUT_DIR = (Resolve-Path $OUTPUT_DIR).Path
$env:PROMPTS_DIR = "$OUTPUT_DIR/prompts-$SUITE"

# 1. Write what small-doge eval asks.
$ARGUMENTS = @("--suite", $SUITE, "--data-root", $DATA_ROOT, "--output-dir", $env:PROMPTS_DIR)
if ($TASKS) { $ARGUMENTS += @("--tasks", $TASKS) }
if ($SHOTS) { $ARGUMENTS += @("--shots", $SHOTS) }
if ($LIMIT) { $ARGUMENTS += @("--limit", $LIMIT) }
if ($SUITE -ne "base") { $ARGUMENTS += @("--tokenizer", $MODEL) }
& $SMALL_DOGE eval prompts @ARGUMENTS
if ($LASTEXITCODE) { throw "small-doge ended with status $LASTEXITCODE" }

# 2. Ask it by lighteval. Its cache of answers knows neither the weights nor the prompts, so each run has a new one; a model's
#    folder is named from its parent, because lighteval would put that cache into a folder with an absolute path.
$CACHE = (New-Item -ItemType Directory (Join-Path ([IO.Path]::GetTempPath()) ([Guid]::NewGuid()))).FullName
$KEPT = $env:HF_HUB_OFFLINE, $env:HF_DATASETS_CACHE  # of the session, which this script may run in
Push-Location
try {
    if (Test-Path $MODEL -PathType Container) {
        $MODEL = (Resolve-Path $MODEL).Path
        Set-Location (Split-Path $MODEL)
        $MODEL = Split-Path $MODEL -Leaf
        $env:HF_HUB_OFFLINE = "1"
    }
    $env:HF_DATASETS_CACHE = "$CACHE/datasets"
    $SETTINGS = "model_name=$MODEL,batch_size=$BATCH_SIZE,dtype=$DTYPE,cache_dir=$CACHE"
    if ($MAX_LENGTH) { $SETTINGS += ",max_length=$MAX_LENGTH" }
    if ($SUITE -eq "base") {
        $SETTINGS += ",override_chat_template=False"
    } else {
        $SETTINGS += ",override_chat_template=True,add_special_tokens=False,tokenizer=$env:PROMPTS_DIR/tokenizer"
    }
    $ARGUMENTS = @("--custom-tasks", "$HERE/lighteval_tasks.py", "--output-dir", $OUTPUT_DIR, "--no-remove-reasoning-tags")
    if ($SAVE_DETAILS) { $ARGUMENTS += @("--save-details") }
    & $LIGHTEVAL accelerate $SETTINGS "$env:PROMPTS_DIR/tasks.txt" @ARGUMENTS
    if ($LASTEXITCODE) { throw "lighteval ended with status $LASTEXITCODE" }
} finally {
    Pop-Location
    $env:HF_HUB_OFFLINE, $env:HF_DATASETS_CACHE = $KEPT
    Remove-Item -Recurse -Force $CACHE
}
