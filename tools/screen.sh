#!/usr/bin/env bash
# Trains the variants of configs/ours.py one after the other, skipping what is
# finished: results.json of a run is written last. Killed, it goes on where it
# was.
#
#     tools/screen.sh                      # all, in the order of the recipe
#     tools/screen.sh cosine_1 cosine_2    # these, after standard (the teacher)
#
# One core at low priority: CORE=1 by default; PYTHON and DATA_DIR as below.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
data=${DATA_DIR:-../shared/tfds}
folder=runs/screening
run() { nice -n 19 taskset -c "${CORE:-1}" env PYTHONPATH=. "$python" "$@"; }

mkdir -p "$folder"
if (($# == 0)); then
  mapfile -t variants < <(
    run -c "from configs import ours; print(*ours.DEFENSES, sep='\n')"
  )
else
  variants=(standard "$@")
fi
for variant in "${variants[@]}"; do
  workdir=$folder/$variant
  if [[ -e $workdir/results.json ]]; then
    echo "$variant: finished already"
    continue
  fi
  echo "$variant: $(date -Is)"
  # A variant that fails leaves the others their turn; its log says why.
  run -m atat_tf.train --config="configs/ours.py:$variant" \
    --workdir="$workdir" --data_dir="$data" >>"$folder/$variant.log" 2>&1 ||
    echo "$variant: failed, see $folder/$variant.log"
done
