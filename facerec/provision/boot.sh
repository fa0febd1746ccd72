#!/bin/bash
# Makes an EC2 instance ready for `facerec worker`. Runs as root before every start of the worker; what is there already
# stays, so that an instance that was stopped and started again is ready within seconds.
#
# Reads /etc/facerec/deployment.env, which the user data wrote. Leaves facerec in /opt/facerec/venv, the model in
# /var/lib/facerec/model (neither is the worker's to write) and the worker's environment in /etc/facerec/worker.env.
# BOOT_ROOT puts all of these below another directory.
set -euo pipefail
umask 022

root=${BOOT_ROOT:-}
home=$root/opt/facerec
venv=$home/venv
installed=$home/package
deployment=$root/etc/facerec/deployment.env
environment=$root/etc/facerec/worker.env
model=$root/var/lib/facerec/model
doing="read $deployment"

say() {
  printf 'facerec: %s\n' "$*" >&2
  # What `aws ec2 get-console-output` shows of an instance that nobody can log in to.
  { printf 'facerec: %s\n' "$*" >>"$root/dev/console"; } 2>/dev/null || true
}

trap 'status=$?; [[ $status -eq 0 ]] || say "boot failed: could not $doing; the lines above (journalctl -u facerec-worker) tell why"' EXIT

metadata() {
  curl --silent --show-error --fail --noproxy '*' --max-time 5 --retry 8 --retry-connrefused --retry-delay 1 "$@"
}

find_python() {
  local name
  for name in python3.12 python3.11 python3; do
    if "$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  return 1
}

install_python() {
  if command -v dnf >/dev/null; then # Amazon Linux 2023, whose own python3 is 3.9
    dnf install --assumeyes --quiet python3.12 python3.12-pip
  elif command -v apt-get >/dev/null; then # Debian 12, Ubuntu 24.04
    apt-get update --quiet --quiet && DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --quiet python3-venv
  fi
}

fetch() { # s3://bucket/key directory
  "$venv/bin/python" - "$@" <<'PYTHON'
import os
import sys
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

url, directory = urlsplit(sys.argv[1]), sys.argv[2]
endpoint = os.environ.get("FACEREC_AWS__ENDPOINT_URL")
config = Config(s3={"addressing_style": "path"} if endpoint else {})
s3 = boto3.client("s3", region_name=os.environ["FACEREC_AWS__REGION"], endpoint_url=endpoint, config=config)
s3.download_file(url.netloc, url.path.lstrip("/"), os.path.join(directory, os.path.basename(url.path)))
PYTHON
}

install_package() {
  local python download=$home/download
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input --no-cache-dir --quiet install)
  say "installing $package"
  rm -f "$installed"
  doing="find Python 3.11 or newer with its venv module; choose another AMI"
  python=$(find_python) || { install_python && python=$(find_python); }
  doing="make $venv"
  "$python" -m venv --clear "$venv"
  doing="install boto3, which fetches $package"
  "${pip[@]}" boto3
  rm -rf "$download" && mkdir "$download"
  doing="fetch $package"
  fetch "$package" "$download"
  doing="fetch ${package%/*}/constraints.txt, which belongs beside the wheel"
  fetch "${package%/*}/constraints.txt" "$download"
  doing="install $package"
  "${pip[@]}" --constraint "$download/constraints.txt" "$download/${package##*/}[worker]"
  rm -r "$download"
  # Last: an installation that was cut off begins again.
  printf '%s\n' "$package" >"$installed"
}

set -a
# shellcheck source=/dev/null
. "$deployment"
set +a

url=${FACEREC_WORKER__METADATA_URL%/}
doing="learn this instance's id and region from $url"
token=$(metadata --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$url/latest/api/token")
instance=$(metadata --header @- "$url/latest/meta-data/instance-id" <<<"X-aws-ec2-metadata-token: $token")
region=$(metadata --header @- "$url/latest/meta-data/placement/region" <<<"X-aws-ec2-metadata-token: $token")
[[ $instance =~ ^[A-Za-z0-9-]+$ && $region =~ ^[a-z0-9-]+$ ]]

doing="write $environment"
{
  cat "$deployment"
  echo "FACEREC_AWS__REGION=$region"
  echo "FACEREC_WORKER__INSTANCE_ID=$instance"
  echo "FACEREC_MODEL__DIR=\"$model\""
  echo "FACEREC_MODEL__CACHE_DIR=\"$root/var/cache/facerec\""
  # The instance role's credentials may come a moment after the instance.
  echo "AWS_EC2_METADATA_SERVICE_ENDPOINT=$url"
  echo "AWS_METADATA_SERVICE_NUM_ATTEMPTS=5"
} >"$environment.new"
mv "$environment.new" "$environment"
set -a
# shellcheck source=/dev/null
. "$environment"
set +a

package=${FACEREC_INSTANCES__PACKAGE:-}
if [[ -n $package && $(cat "$installed" 2>/dev/null) != "$package" ]]; then
  install_package
fi
doing="run $venv/bin/facerec; set FACEREC_INSTANCES__PACKAGE, or choose an AMI that has it"
version=$("$venv/bin/facerec" --version)

doing="fetch the model; has \`facerec model push\` been run?"
"$venv/bin/facerec" model pull

say "$instance in $region is ready to start $version"
