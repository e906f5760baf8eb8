#!/bin/bash
# Stores two small studies as a commit of this repository writes them, and what it reads of them:
#
#   tests/stored/make.sh c7cd15c
#
# writes study-c7cd15c.tar.xz and study-c7cd15c.json beside this script (3 minutes on 2 cores).
# PYTHON names an interpreter that has the packages of that commit (default: that of .venv).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone -q "$here/../.." "$work/code"
git -C "$work/code" checkout -q "$1"
# MLflow and ONNX files keep the paths of the code: nothing of this machine but a temporary folder.
git -C "$work/code" remote remove origin
ln -s "$here/../../.venv" "$work/venv"
python=${PYTHON:-$work/venv/bin/python}
name=study-$(git -C "$work/code" rev-parse --short=7 HEAD)
mkdir "$work/studies"
cd "$work/studies"
export PYTHONPATH=$work/code OMP_NUM_THREADS=1 RAY_USAGE_STATS_ENABLED=0

run() { "$python" -m "$@"; }

# Kills a command as soon as a file is there that is newer than the command: kill_at FILE run ...
kill_at() {
    local file=$1 marker=$work/.marker
    shift
    touch "$marker"
    setsid "$python" -m "$@" &
    local process=$!
    until [ -n "$(find . -path "$file" -newer "$marker")" ]; do
        kill -0 $process || { echo "ended before $file was written" >&2; exit 1; }
        sleep 0.05
    done
    kill -KILL -- -$process
    wait $process || true
}

# The designs have some 5,000 parameters, so that their weights are small files. The baseline, which
# has 426,608, hardly learns: it is not on the front, so its checkpoint is not kept.
cat > space.yaml <<'END'
name: small
baseline: retinaface_mobile025
dimensions:
  backbone:
    choice:
      mobilenet: {backbone.kind: mobilenet_v1, backbone.stem: 8, backbone.widths: [8, 8, 8, 8, 16],
                  backbone.depths: [1, 1, 1, 1, 1]}
      yunet: {backbone.kind: yunet, backbone.stem: 8, backbone.widths: [8, 8, 8, 8, 8, 8],
              backbone.depths: [1, 1, 1, 1, 1, 1], pixels.mean: [0, 0, 0]}
  neck.width: {choice: [8, 16]}
  context.kind: {choice: [ssh, none]}
  head:
    choice:
      retinaface: {head.score: softmax, head.coding: anchor}
      yunet: {head.score: objectness, head.coding: point, head.block: unit, head.predictor: unit,
              anchors.name: cell, anchors.offset: 0, recipe.loss.assignment: simota,
              recipe.loss.class_loss: cross_entropy, recipe.loss.box_loss: eiou}
  head.landmarks: {choice: [true, false], when: {head: retinaface}}
  recipe.optimizer.lr: {float: [1.0e-2, 6.0e-2], log: true}
proxy:
  size: 96
  batch_size: 4
  optimizer: {kind: adamw, lr: 1.0e-6, momentum: 0.8, weight_decay: 0.02, schedule: cosine}
  augmentation: {scales: [0.4, 0.6, 0.8, 1.0]}
  loss: {match_iou: 0.25, box_weight: 1.0, landmark_weight: 0.1}
  evaluation: {size: 160, every: 0, pre_nms: 500, keep: 300}
rungs: [1, 2]
eta: 2
objective: {metric: macs, best: 5.0e7, worst: 1.0e10}
constraints: {max_params: 6_000}
END
cat > design.yaml <<'END'
detector:
  backbone: {kind: mobilenet_v1, stem: 8, widths: [8, 8, 16, 16, 16], depths: [1, 1, 1, 1, 1]}
  neck: {levels: [3, 4, 5], width: 8}
  head: {landmarks: false}
END
cat > enqueue.yaml <<'END'
designs:
  - params: {backbone: yunet, neck.width: 8, context.kind: none, head: yunet}
  - config: design.yaml
  - params: {neck.width: 16}
END
cat > objective.yaml <<'END'
objective: {metric: params, best: 1.0e3, worst: 1.0e6, weights: {accuracy: 1, speed: 3}}
END

data=(--data synthetic --fraction 0.3)
run nas.search --space space.yaml --study first --trials 4 "${data[@]}" --enqueue enqueue.yaml
run nas.search --space space.yaml --study second --trials 4 "${data[@]}" --from-study first:2
kill_at './runs/first/trials/*/last.pt' nas.search --space space.yaml --study first --trials 6 \
    --resume
run nas.retrain --best --study first --epochs 8 --size 160 --eval-every 4
run nas.evaluate --study first
run nas.export --study first --format onnx
kill_at './runs/first/retrained/r001-training/last.pt' nas.retrain --trial 1 --study first \
    --epochs 6 --size 64 --eval-every 3

run analysis.report --study first --json report.json
run analysis.choose --study first --json choose.json
run nas.rescore --study first --objective objective.yaml --json rescore.json
"$python" "$here/expect.py" "$here/$name.json"

# Pictures, pages and decoded images can be made again.
XZ_OPT=-9e tar -cJf "$here/$name.tar.xz" --sort=name --owner=0 --group=0 --numeric-owner \
    --exclude='*.html' --exclude='*.png' --exclude=cache --exclude=figures --exclude=.lock \
    design.yaml enqueue.yaml objective.yaml space.yaml mlflow.db mlruns runs
ls -l "$here/$name".*
