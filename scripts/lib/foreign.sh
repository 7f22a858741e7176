# For scripts that run other people's client tests: starts etcd or holdfast for them. To be sourced, from the root.
#
#   start_cluster etcd|holdfast COUNT    sets client_ports and endpoints; members are named pifpaf0, pifpaf1, ..
#   stop_cluster                         also done when the script ends
#
# Environment: ETCD_BIN and HOLDFAST_BIN name the binaries (default: target/peers/etcd; a release build of this tree).

work=$PWD/target/foreign
mkdir -p "$work"
members=()
data=

skip() {
  echo "skipped: $*"
  exit 0
}

binary() {
  case $1 in
    etcd) echo "${ETCD_BIN:-target/peers/etcd}" ;;
    holdfast)
      if [ -z "${HOLDFAST_BIN:-}" ]; then cargo build --release --locked -p holdfast-server >&2; fi
      echo "${HOLDFAST_BIN:-target/release/holdfast}"
      ;;
  esac
}

free_ports() {
  python3 - "$1" <<'PYTHON'
import socket, sys
taken = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in taken:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in taken))
PYTHON
}

start_cluster() {
  local system=$1 count=$2 program ports cluster="" at
  program=$(binary "$system")
  [ -x "$program" ] || skip "there is no $program; scripts/fetch-peers fetches etcd, HOLDFAST_BIN names holdfast"
  read -r -a ports <<<"$(free_ports $((count * 2)))"
  client_ports=("${ports[@]:0:count}")
  data=$(mktemp -d)
  for ((at = 0; at < count; at++)); do
    cluster+="${cluster:+,}pifpaf$at=http://127.0.0.1:${ports[count + at]}"
  done
  endpoints=""
  for ((at = 0; at < count; at++)); do
    local client=http://127.0.0.1:${ports[at]} peer=http://127.0.0.1:${ports[count + at]}
    "$program" --name "pifpaf$at" --data-dir "$data/$at" --listen-client-urls "$client" \
      --advertise-client-urls "$client" --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
      --initial-cluster "$cluster" >"$data/$at.log" 2>&1 &
    members+=($!)
    endpoints+="${endpoints:+,}$client"
  done
  local deadline=$((SECONDS + 60))
  for ((at = 0; at < count; at++)); do
    until curl -fs "http://127.0.0.1:${ports[at]}/health" | grep -q '"health":"true"'; do
      if [ "$SECONDS" -ge "$deadline" ]; then
        echo "$system does not serve within 60 s:" >&2
        tail -n 20 "$data/$at.log" >&2
        exit 1
      fi
      sleep 0.2
    done
  done
}

stop_cluster() {
  if [ ${#members[@]} -gt 0 ]; then
    kill -KILL "${members[@]}" 2>/dev/null || true
    wait "${members[@]}" 2>/dev/null || true
  fi
  members=()
  if [ -n "$data" ]; then rm -rf "$data"; fi
  data=
}
trap stop_cluster EXIT
