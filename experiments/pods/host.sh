#!/usr/bin/env bash
# What each host of a slice does for a run, called over ssh by experiments/pods/queued.py:
#   host.sh setup MOUNT          installs the source archive beside this file; mounts storage
#   host.sh start MOUNT [NAME=VALUE...] ARG...
#                                ends what is left of an earlier start, then `marco ARG...`
#   host.sh status               "HOST running", "HOST exited CODE [stopped]" or "HOST idle"
#   host.sh log                  everything the run has printed on this host
#   host.sh tail LINES [follow]  the last lines of that, and those to come
#   host.sh stop                 SIGTERM, as a preemption would: the run saves and ends, for good
# MOUNT is "bucket:NAME", "nfs:SERVER:/PATH" or "none".
set -euo pipefail

home="$HOME/marco"
storage=/mnt/marco
name="$(hostname)"

setup() {
  mkdir -p "$home/source"
  tar -xzf "$HOME/marco-source.tar.gz" -C "$home/source"
  mount_storage "$1"
  export PATH="$HOME/.local/bin:$PATH"
  command -v uv >/dev/null || python3 -m pip install --quiet --user uv
  cd "$home/source"
  [ -x "$home/venv/bin/python" ] || uv venv --quiet --python 3.12 "$home/venv"
  # The versions that the tests were run with. jax[tpu] adds the TPU's own library, demo the names of
  # languages in their own languages (language_names) and the default corpus.
  uv pip install --quiet --python "$home/venv/bin/python" -c constraints.txt -e '.[tpu,demo,gcs]'
}

mount_storage() {
  [ "$1" = none ] && return
  mountpoint -q "$storage" && return
  sudo mkdir -p "$storage"
  sudo chown "$USER" "$storage"
  case "$1" in
    bucket:*)
      command -v gcsfuse >/dev/null || install_gcsfuse
      # A checkpoint is a directory that is renamed when it is whole.
      gcsfuse --implicit-dirs --rename-dir-limit=100000 "${1#bucket:}" "$storage"
      ;;
    nfs:*)
      command -v mount.nfs >/dev/null || sudo apt-get install -qq -y nfs-common
      sudo mount -t nfs -o nfsvers=3,hard "${1#nfs:}" "$storage"
      ;;
    *)
      echo "host.sh: --mount is '$1': write bucket:NAME or nfs:SERVER:/PATH" >&2
      exit 2
      ;;
  esac
}

install_gcsfuse() {
  local list=/etc/apt/sources.list.d/gcsfuse.list key=/usr/share/keyrings/cloud.google.asc
  curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
  echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
    sudo tee "$list" >/dev/null
  sudo apt-get update -qq
  sudo apt-get install -qq -y gcsfuse
}

start() {
  local mount="$1" logs="$home/logs"
  shift
  end_run
  mkdir -p "$logs"
  rm -f "$home/exit_code" "$home/pid" "$home/stopped"
  if [ "$mount" != none ]; then
    # Programs are compiled once for all restarts, and logs outlive the machine.
    export JAX_COMPILATION_CACHE_DIR="$storage/compilation_cache"
    logs="$storage/logs"
    mkdir -p "$logs"
  fi
  # Variables of the launcher's --env. A command of marco comes behind them.
  while [[ "${1:-}" == [A-Za-z_]*=* ]]; do
    export "${1?}"
    shift
  done
  ln -sfn "$logs/$name.log" "$home/run.log"
  cd "$home/source"
  # A session of its own: it outlives this connection. `marco train` joins the other hosts by
  # jax.distributed, from what the TPU's metadata say.
  # shellcheck disable=SC2016
  setsid nohup bash -c '
    home="$1"; shift
    "$home/venv/bin/marco" "$@" &
    child=$!
    echo "$child" > "$home/pid"
    wait "$child"
    echo $? > "$home/exit_code.new"
    mv "$home/exit_code.new" "$home/exit_code"
  ' marco "$home" "$@" >>"$logs/$name.log" 2>&1 </dev/null &
  until [ -e "$home/pid" ]; do sleep 0.1; done
}

stop() {
  # A launcher that watches must not start the run again.
  [ -e "$home/pid" ] && touch "$home/stopped"
  end_run
}

end_run() {
  running || return 0
  local pid seconds
  pid="$(cat "$home/pid")"
  kill -TERM "$pid" 2>/dev/null || return 0
  for ((seconds = 0; seconds < ${MARCO_STOP_SECONDS:-600}; seconds++)); do
    running || return 0
    sleep 1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

running() {
  [ -e "$home/pid" ] && [ ! -e "$home/exit_code" ] && kill -0 "$(cat "$home/pid")" 2>/dev/null
}

status() {
  local why=""
  [ ! -e "$home/stopped" ] || why=" stopped"
  if [ -e "$home/exit_code" ]; then
    echo "$name exited $(cat "$home/exit_code")$why"
  elif running; then
    echo "$name running"
  elif [ -e "$home/pid" ]; then
    # Killed with all that watched over it, or restarted: nobody wrote a code.
    echo "$name exited 137$why"
  else
    echo "$name idle"
  fi
}

log() {
  cat "$home/run.log"
}

tail_log() {
  tail -n "$1" ${2:+-F} "$home/run.log"
}

case "${1:-}" in
  setup | start | status | log | stop) "$@" ;;
  tail) tail_log "${@:2}" ;;
  *)
    echo "usage: host.sh setup|start|status|log|tail|stop" >&2
    exit 2
    ;;
esac
