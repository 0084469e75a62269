#!/bin/bash
# Train both segmentation networks from nothing: coarse (4 mm, whole head, any pose), then fine
# (2 mm, on the brain laid onto the template), then fine again with half of its images real.
# What was stopped goes on with the same command.
# WORKDIR/release then holds the files that `--segmentation` reads and that ship with jaxreg.
#
#   experiments/train_segmentation.sh DATA[,DATA...] WORKDIR
#
# DATA are folders of labelled subjects, or folders of such folders, with images of both contrasts
# where there are some. For a GPU:
#   COARSE_STEPS=1000 FINE_STEPS=2500 REAL_STEPS=500 BATCH_SIZE=8 DTYPE=bfloat16 VOXELS=all \
#     experiments/...
# The defaults are for two cores.
set -euo pipefail
if [ $# -ne 2 ]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
  exit 2
fi
mkdir -p "$2"
workdir=$(cd "$2" && pwd)
IFS=, read -r -a given <<< "$1"
data=
for folder in "${given[@]}"; do data=${data:+$data,}$(cd "$folder" && pwd); done
common=(
  --stage=seg "--data=$data"
  "--batch-size=${BATCH_SIZE:-1}"
  "--dtype=${DTYPE:-float32}"
  "--convolution=${CONVOLUTION:-auto}"
  "--voxels=${VOXELS:-corner}"
  "--validate-every=${VALIDATE_EVERY:-500}"
)
cd "$(dirname "$0")/.."
python train.py "${common[@]}" --resolution=coarse "--workdir=$workdir/coarse" \
  "--steps=${COARSE_STEPS:-12000}" "--learning-rate=${LEARNING_RATE:-1e-3}"
python train.py "${common[@]}" --resolution=fine "--workdir=$workdir/fine" \
  "--steps=${FINE_STEPS:-15000}" "--learning-rate=${LEARNING_RATE:-1e-3}"
python train.py "${common[@]}" --resolution=fine "--workdir=$workdir/real/fine" \
  "--init-from=$workdir" --real-fraction=0.5 "--steps=${REAL_STEPS:-800}" --learning-rate=3e-4
python experiments/release_segmentation.py "--workdir=$workdir/real" "--start=$workdir" --share=0.8 \
  "--out=$workdir/release" "--about=${ABOUT:-$data}"
