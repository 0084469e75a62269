#!/bin/bash
# Train both segmentation networks from nothing: coarse (4 mm, whole head, any pose), then fine
# (2 mm, on the brain laid onto the template). What was stopped goes on with the same command.
# WORKDIR/release then holds the files that `--segmentation` reads and that ship with jaxreg.
#
#   experiments/train_segmentation.sh DATA[,DATA...] WORKDIR
#
# DATA are folders of labelled subjects, or folders of such folders. For a GPU:
#   COARSE_STEPS=1000 FINE_STEPS=2500 BATCH_SIZE=8 DTYPE=bfloat16 VOXELS=all experiments/...
# The defaults are for two cores.
set -euo pipefail
if [ $# -ne 2 ]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
  exit 2
fi
data=$1 workdir=$2
common=(
  --stage=seg "--data=$data"
  "--batch-size=${BATCH_SIZE:-1}"
  "--dtype=${DTYPE:-float32}"
  "--convolution=${CONVOLUTION:-auto}"
  "--voxels=${VOXELS:-corner}"
  "--learning-rate=${LEARNING_RATE:-1e-3}"
  "--validate-every=${VALIDATE_EVERY:-500}"
)
cd "$(dirname "$0")/.."
python train.py "${common[@]}" --resolution=coarse "--workdir=$workdir/coarse" \
  "--steps=${COARSE_STEPS:-12000}"
python train.py "${common[@]}" --resolution=fine "--workdir=$workdir/fine" \
  "--steps=${FINE_STEPS:-15000}"
python experiments/release_segmentation.py "--workdir=$workdir" "--out=$workdir/release" \
  "--about=${ABOUT:-$data}"
