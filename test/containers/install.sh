#!/usr/bin/env bash
# Installs containerd and runc where that is possible; says so where it is not.
# The test then skips, it does not fail.
set -euo pipefail

missing=()
for program in containerd runc ctr containerd-shim-runc-v2; do
	command -v "$program" >/dev/null || missing+=("$program")
done
if (( ${#missing[@]} == 0 )); then
	exit 0
fi
if [[ $(id -u) != 0 ]]; then
	echo "test-containers: ${missing[*]} not found and not root: the test will be skipped. As root: apt-get install containerd runc"
	exit 0
fi
if ! command -v apt-get >/dev/null; then
	echo "test-containers: ${missing[*]} not found and no apt-get: the test will be skipped. Install containerd and runc"
	exit 0
fi
echo "test-containers: installing containerd and runc with apt-get"
export DEBIAN_FRONTEND=noninteractive
if ! { timeout 120 apt-get update -qq && timeout 300 apt-get install -y -qq --no-install-recommends containerd runc; } >/dev/null; then
	echo "test-containers: apt-get could not install containerd and runc: the test will be skipped"
fi
