# shellcheck shell=bash
# What arm.sh and avx512.sh share; sourced by both.

# Runs a command as root.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs those of the named packages that are not installed.
install_missing() {
    local package missing=()
    command -v apt-get >/dev/null || { echo "this needs Debian's packages: $*" >&2; return 1; }
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    echo "installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Fails unless a file has a line that contains the text.
require_line() {
    grep -qF -- "$1" "$2" || { echo "not found in $2: $1" >&2; return 1; }
}
