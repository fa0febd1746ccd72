#!/bin/bash -p
# Makes an EC2 instance ready for `facerec worker`. Runs as root before every start of the worker; what is there already
# stays, so that an instance that was stopped and started again is ready within seconds.
#
# Reads /etc/facerec/deployment.env, which the user data wrote. Leaves facerec in /opt/facerec/venv, the model in
# /var/lib/facerec/model (neither is the worker's to write) and the worker's environment in /etc/facerec/worker.env.
# Nothing that it reads is the worker's to write. BOOT_ROOT puts all of these below another directory.
set -euo pipefail
umask 022
root=${BOOT_ROOT:-}
home=$root/opt/facerec

# The unit's environment is the worker's. Root's programs would read what the worker has written into its HOME.
if [[ ${1:-} != clean ]]; then
  kept=(LANG=C.UTF-8 "HOME=$home" PYTHONNOUSERSITE=1 PYTHONSAFEPATH=1)
  for name in PATH BOOT_ROOT HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy; do
    [[ -z ${!name:-} ]] || kept+=("$name=${!name}")
  done
  cd /
  exec /usr/bin/env -i "${kept[@]}" /bin/bash -p "$0" clean
fi

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
  curl -q --silent --show-error --fail --noproxy '*' --max-time 5 --retry 8 --retry-connrefused --retry-delay 1 "$@"
}

ask() { # what the metadata service has there
  metadata --header @- "$url/latest/meta-data/$1" <<<"X-aws-ec2-metadata-token: $token"
}

find_python() {
  local name
  for name in python3.12 python3.11 python3; do
    if "$name" -I -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
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

fetch() { # python s3://bucket/key file; with the role's rights, and without a package that would have to be installed first
  local s3=${FACEREC_AWS__ENDPOINT_URL:-} role empty
  [[ -n $s3 ]] || s3=https://s3.$region.$(ask services/domain)
  role=$(ask iam/security-credentials/)
  empty=$(sha256sum </dev/null)
  # A configuration on stdin, because everybody can read the arguments of a process.
  ask "iam/security-credentials/$role" | "$1" -I -c '
import json, sys
from urllib.parse import quote
role = json.load(sys.stdin)
options = {
    "url": sys.argv[1].rstrip("/") + quote(sys.argv[2].removeprefix("s3:/"), safe="/~"),
    "user": role["AccessKeyId"] + ":" + role["SecretAccessKey"],
    "header": "x-amz-security-token: " + role["Token"],
}
for name, value in options.items():
    print(name, "=", json.dumps(value))
' "$s3" "$2" | curl -q --config - --silent --show-error --fail --connect-timeout 10 --speed-limit 1 --speed-time 60 \
    --retry 5 --header "x-amz-content-sha256: ${empty%% *}" --aws-sigv4 "aws:amz:$region:s3" --output "$3"
}

install_package() {
  local python download=$home/download address=${package%%#*} sha256=${package##*#sha256=} wheel requirements version
  local pip=("$venv/bin/python" -I -m pip --disable-pip-version-check --no-input --no-cache-dir --quiet install)
  wheel=$download/${address##*/}
  say "installing $address"
  rm -f "$installed"
  doing="find Python 3.11 or newer with its venv module; choose another AMI"
  python=$(find_python) || { install_python && python=$(find_python); }
  rm -rf "$download" && mkdir "$download"
  doing="fetch $address"
  fetch "$python" "$address" "$wheel"
  doing="check $address against the hash in FACEREC_INSTANCES__PACKAGE"
  sha256sum --check --quiet <<<"$sha256  $wheel"
  doing="read the hashes of what $address needs: build it with \`make release\`"
  "$python" -I -m zipfile --extract "$wheel" "$download/content"
  requirements=$download/content/facerec/provision/requirements.txt
  [[ -f $requirements ]]
  doing="make $venv"
  "$python" -I -m venv --clear "$venv"
  version=$("$python" -I -V)
  doing="install what $address needs, whose hashes must be of ${version%.*} and $(uname -m)"
  "${pip[@]}" --require-hashes --only-binary :all: --requirement "$requirements"
  doing="install $address"
  "${pip[@]}" --no-index "$wheel[worker]"
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
instance=$(ask instance-id)
region=$(ask placement/region)
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
version=$("$venv/bin/python" -I "$venv/bin/facerec" --version)

doing="fetch the model; has \`facerec model push\` been run?"
"$venv/bin/python" -I "$venv/bin/facerec" model pull

say "$instance in $region is ready to start $version"
