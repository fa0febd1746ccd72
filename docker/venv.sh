#!/bin/sh
# Makes the virtual environment /opt/facerec/venv of an image. The argument is an extra of setup.cfg: what that tier
# needs is installed, facerec itself is not. Without an argument facerec alone is installed.
set -eu
venv=/opt/facerec/venv
pip="/opt/tools/bin/pip --disable-pip-version-check --python $venv/bin/python"

python3 -m venv --without-pip "$venv"
if [ $# -eq 0 ]; then
  $pip install --quiet --no-cache-dir --no-compile --no-deps .
else
  # Wheels only: there is no compiler here, nor in the image.
  $pip install --quiet --no-cache-dir --no-compile --only-binary :all: --constraint constraints.txt ".[$1]"
  $pip uninstall --quiet --yes facerec
  # The tests of packages (numpy, matplotlib, tornado and others).
  find "$venv" -type d \( -name test -o -name tests \) -prune -exec rm -r {} +
  # OpenVINO's plugins of other devices, and its readers of formats that no model pack has: 79 MB.
  find "$venv" -path '*/openvino/libs/*' \( -name '*_gpu_plugin*' -o -name '*_npu_plugin*' -o -name cache.json \
    -o -name '*_gguf_*' -o -name '*_paddle_*' -o -name '*_pytorch_*' -o -name '*_tensorflow_*' \) -delete
  find "$venv" -type d -path '*/openvino/include' -prune -exec rm -r {} +
fi
# Nothing can be written beside the sources later. Their times are not compared, since copies may change them.
"$venv/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$venv/lib"
