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
#   COARSE_STEPS=6500 FINE_STEPS=18000 REAL_STEPS=1000 BATCH_SIZE=8 LEARNING_RATE=1.5e-3 \
#     DTYPE=bfloat16 VOXELS=all VALIDATE_EVERY=5000 experiments/...
# which is about what the bundled fine network has seen, and a sixth of what the coarse one has: at
# 13 and 17 ms a step seven minutes on an H200, and the compilation. The defaults are for two cores;
# in ten hours they see a tenth of that.
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
  --decay-fraction=0.4
  --weight-average=0.999
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
