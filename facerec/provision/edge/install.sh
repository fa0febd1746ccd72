#!/bin/sh
# Install step of the component com.facerec.FaceDetection: makes WORK/venv from the wheels of the artefact in FILES.
#
#     sh install.sh FILES WORK
#
# The nucleus runs it before each start of its own, too: without a change of the artefact it ends at once. It needs no
# network, unless the artefact has no model. A half-made environment has no mark, and is made again.
set -eu
files=$1 work=$2
venv=$work/venv mark=$work/venv/facerec-artefact

find_python() {
  for version in $(cat "$files/pythons"); do
    for python in "python$version" python3; do
      found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
      if [ "$found" = "$version" ]; then echo "$python"; return; fi
    done
  done
  echo "the artefact has wheels for Python $(tr '\n' ' ' < "$files/pythons")alone, and there is none on this device:" \
    "install it, or package with --python $(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')" >&2
  return 1
}

if ! cmp -s "$files/artefact.json" "$mark"; then
  python=$(find_python)
  rm -rf "$venv"
  "$python" -m venv "$venv" || { echo "$python has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
  pip() { "$venv/bin/python" -I -m pip --disable-pip-version-check --isolated "$@"; }
  pip install --quiet --no-cache-dir --no-index --no-deps --only-binary :all: --require-hashes \
    --find-links "$files/wheels" --requirement "$files/requirements.txt"
  pip check
  cp "$files/artefact.json" "$mark"
fi
if [ ! -d "$files/model" ]; then
  "$venv/bin/python" -I -m facerec.cli model pull
fi
