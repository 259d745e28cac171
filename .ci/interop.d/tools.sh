# Sourced by the checks: tools at pinned versions, fetched once, outside the repository.

tools=${WARDROBE_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/wardrobe/tools}
mkdir -p "$tools"

not_checked() {
  echo "NOT CHECKED: $1"
  exit 0
}

# Runs "$@" with no other check fetching the same: locked NAME COMMAND...
locked() {
  local name=$1
  shift
  if command -v flock > /dev/null; then
    (
      flock 9
      "$@"
    ) 9> "$tools/$name.lock"
  else
    "$@"
  fi
}

# A virtual environment with what a requirements file pins; sets python.
python_with() {
  local requirements=$1 venv stamp
  command -v python3 > /dev/null || not_checked "python3 was not found"
  venv=$tools/$(basename "$requirements" .txt)
  stamp=$(python3 -VV; cat "$requirements")
  python=$venv/bin/python
  locked "${venv##*/}" make_venv "$venv" "$stamp" "$requirements" || not_checked "the packages of $(basename "$requirements") could not be installed"
}

make_venv() {
  local venv=$1 stamp=$2 requirements=$3
  [ "$(cat "$venv/stamp" 2> /dev/null)" != "$stamp" ] || return 0
  rm -rf "$venv"
  python3 -m venv "$venv" &&
    timeout 300 "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 3 --requirement "$requirements" > "$venv.log" 2>&1 &&
    printf '%s\n' "$stamp" > "$venv/stamp"
}

# go install of a module at a version, from the module proxy: go_tool NAME MODULE@VERSION; sets tool.
go_tool() {
  local name=$1 module=$2
  tool=$tools/$name@${module##*@}/$name
  command -v go > /dev/null || [ -x "$tool" ] || not_checked "go was not found, with which $name is built"
  locked "$name" install_go "$tool" "$module" || not_checked "$module could not be fetched or built"
}

install_go() {
  [ ! -x "$1" ] || return 0
  GOBIN=$(dirname "$1") GOFLAGS=-modcacherw timeout 600 go install "$2" > "$tools/go.log" 2>&1
}

# A command of an npm package at a version: npm_tool COMMAND PACKAGE@VERSION; sets tool.
npm_tool() {
  local command=$1 package=$2 home
  home=$tools/npm-$(printf '%s' "$package" | tr '/@' '--')
  tool=$home/node_modules/.bin/$command
  [ -x "$tool" ] || command -v npm > /dev/null || not_checked "npm was not found, with which $package is installed"
  locked "npm-$command" install_npm "$home" "$package" "$tool" || not_checked "$package could not be installed"
}

install_npm() {
  [ ! -x "$3" ] || return 0
  mkdir -p "$1" && timeout 300 npm install --silent --no-audit --no-fund --prefix "$1" "$2" > "$tools/npm.log" 2>&1
}
