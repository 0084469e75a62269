#!/bin/bash
# Train the registration network from nothing by the recipe of the one that comes with jaxreg
# (docs/experiments/bundled-network.md): a start by LNCC, labels and varied intensities, then images
# made from labels and brains without a hindbrain, then pairs in a second pass; each part begins
# with the mean of the earlier ones. What was stopped goes on with the same command.
# WORKDIR/release then holds the files that `--model` reads.
#
#   experiments/train_registration.sh COHORT[,COHORT...] WORKDIR
#
# COHORTS are prepared cohorts with labels, in one common space. For a GPU:
#   SHARE=20 BATCH_SIZE=8 DTYPE=bfloat16 CONVOLUTION=slices experiments/train_registration.sh ...
# takes 20 % of the steps; on an H200 a step of the last part took 97 ms. CHANNELS=24,48,72,96 gives
# a larger network, and MIXED_ANATOMY=0.6 adds mixtures of two subjects to the last part. The
# defaults, 19,700 steps of one pair, are for a day on two cores.
set -euo pipefail
if [ $# -ne 2 ]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
  exit 2
fi
mkdir -p "$2"
workdir=$(cd "$2" && pwd)
IFS=, read -r -a given <<< "$1"
cohorts=()
for cohort in "${given[@]}"; do cohorts+=("$(cd "$cohort" && pwd)"); done
cd "$(dirname "$0")/.."
joined=$workdir/joined
[ -d "$joined" ] || python experiments/join_cohorts.py "${cohorts[@]}" --out "$joined"

steps() { # of a part, by the share that is wanted, and at least one
  local n=$(($1 * ${SHARE:-100} / 100))
  echo $((n > 0 ? n : 1))
}
train() { # FOLDER STEPS FLAGS...
  python train.py --stage=reg "--data=$joined" "--workdir=$workdir/$1" "--steps=$(steps "$2")" \
    "--batch-size=${BATCH_SIZE:-1}" "--dtype=${DTYPE:-float32}" \
    "--convolution=${CONVOLUTION:-auto}" ${CHANNELS:+"--channels=$CHANNELS"} \
    "--validate-every=${VALIDATE_EVERY:-500}" "${@:3}"
}
mean() { # FOLDER RUN EARLIER: the mean of the parameters of two trainings
  [ -d "$workdir/$1" ] || python experiments/release.py "--model=$workdir/$2" \
    "--average=$workdir/$3" --lam=0.5 --refine=16 --passes=2 "--about=${ABOUT:-$joined}" \
    "--out=$workdir/$1"
}
labels=(--loss=intra_lncc --label-weight=8 --vary)
train start 1500 --loss=lncc
train first 8000 "${labels[@]}" "--init-from=$workdir/start"
train second 4000 "${labels[@]}" --synthetic-fraction=0.25 --drop-hindbrain-fraction=0.2 \
  --learning-rate=5e-4 "--init-from=$workdir/first"
mean mean second first
train third 1200 "${labels[@]}" --synthetic-fraction=0.15 --drop-hindbrain-fraction=0.2 \
  --learning-rate=3e-4 --seed=1 "--init-from=$workdir/mean"
mean mean2 third mean
train fourth 5000 "${labels[@]}" --synthetic-fraction=0.15 --drop-hindbrain-fraction=0.2 \
  --second-pass-fraction=0.5 "--mixed-anatomy-fraction=${MIXED_ANATOMY:-0}" \
  --learning-rate=5e-4 --seed=2 "--init-from=$workdir/mean2"
mean mean3 fourth mean2
mean release fourth mean3
