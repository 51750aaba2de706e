# Sourced by the other scripts here: what a fresh machine lacks, and virtual environments from locked requirements.
# POSIX sh, which has no local variables: all that are set below are the callers' too.
# The caller stands in the checkout's top directory and has set -eu.
# shellcheck shell=sh

say() {
    echo "$(basename "$0"): $*" >&2
}

fail() {
    say "$*"
    exit 1
}

# as_root COMMAND...: run it as root, and say so before a password may be asked for.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        say "with sudo: $*"
        sudo "$@"
    else
        fail "this needs root, and there is no sudo: $*"
    fi
}

# have COMMAND: also where an ordinary user's PATH lacks the sbin directories (runc lies there).
have() {
    # shellcheck disable=SC2016 # $1 is for the inner shell
    env "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin" sh -c 'command -v "$1"' have "$1" >/dev/null 2>&1
}

# install_missing COMMAND=PACKAGE...: install the Debian package of every command that is not there.
install_missing() {
    missing_commands=''
    missing_packages=''
    for pair in "$@"; do
        if ! have "${pair%%=*}"; then
            missing_commands="$missing_commands ${pair%%=*}"
            missing_packages="$missing_packages ${pair#*=}"
        fi
    done
    install_packages "$missing_commands" "$missing_packages"
}

# install_packages WHAT PACKAGES: two lists in one string each; nothing is done where the second is empty.
install_packages() {
    [ -n "$2" ] || return 0
    if ! have apt-get; then
        fail "missing on this system:$1; install what provides it (Debian's packages:$2), and run this again"
    fi
    say "missing:$1; installing Debian packages:$2"
    log=$(mktemp)
    # The package lists of a fresh machine are empty or old: try, and fetch them only then.
    # shellcheck disable=SC2086 # a list of names
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $2 >"$log" 2>&1; then
        if ! as_root apt-get update >"$log" 2>&1 ||
            ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $2 >>"$log" 2>&1; then
            cat "$log" >&2
            rm -f "$log"
            fail "apt-get could not install:$2 (its output is above)"
        fi
    fi
    rm -f "$log"
}

usable_python() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# find_python: set $python to a Python of 3.11 or newer that can make virtual environments.
# The system's own comes first: root can run it wherever the user's home is, and the sandbox shows scripts the same one.
find_python() {
    for python in "${SECUREWORKER_PYTHON:-}" /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if [ -n "$python" ] && usable_python "$python"; then
            return 0
        fi
    done
    return 1
}

choose_python() {
    find_python && return 0
    have apt-get || fail "Python 3.11 or newer with venv and ensurepip is missing; install it, or name it in SECUREWORKER_PYTHON"
    install_packages " Python 3.11 with venv" " python3 python3-venv"
    find_python || fail "this system's Python is older than 3.11; install a newer one, and name it in SECUREWORKER_PYTHON"
}

# stamp FILES...: what an environment made from these files, in this place, is known by.
stamp() {
    echo "$PWD"
    cksum "$@"
}

# make_environment DIRECTORY LOCK...: a virtual environment with what the locks name, made anew when they change.
# Only wheels whose hash is in the lock are taken: nothing that was downloaded is run to install it.
# Returns 1 where the environment was there already.
make_environment() {
    environment=$1
    shift
    if [ -x "$environment/bin/python" ] && [ "$(stamp "$@" pyproject.toml)" = "$(cat "$environment/stamp" 2>/dev/null)" ]; then
        return 1
    fi
    choose_python
    say "making $environment with $python from $*"
    rm -rf "$environment"
    "$python" -m venv "$environment" || fail "$python cannot make a virtual environment in $environment"
    locked=
    for lock in "$@"; do
        locked="$locked -r $lock"
    done
    # shellcheck disable=SC2086 # a list of options
    pip_install "$environment" --require-hashes --only-binary :all: $locked
}

# finish_environment DIRECTORY LOCK...: only now does the environment count as made.
finish_environment() {
    environment=$1
    shift
    stamp "$@" pyproject.toml >"$environment/stamp"
}

# pip_install DIRECTORY ARGUMENTS...: quiet, unless it fails.
pip_install() {
    environment=$1
    shift
    log=$(mktemp)
    if ! "$environment/bin/python" -m pip install --disable-pip-version-check "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        fail "pip could not install into $environment (its output is above); is the package index reachable?"
    fi
    rm -f "$log"
}
