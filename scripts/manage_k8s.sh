#!/usr/bin/env bash
# Looks after the bot that scripts/deploy_k8s.sh brought to a cluster.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/manage_k8s.sh [options] COMMAND

  status              pods, claims, and the bot's own account of itself
  logs [ARGS]         its log; ARGS go to `kubectl logs`, to `ray job logs` with --kuberay, and to
                      `tail` with --rayservice
  metrics             its metrics, as Prometheus sees them
  scale N             replicas of the bot: 0 or 1, or where its settings have strategies as many as
                      these; on a Ray cluster most nodes of env runners
  restart             stops it in order and starts it again
  stop                writes a checkpoint and stops trading; nothing is lost
  start               starts it, and waits until it is ready
  delete              stops the bot, waits until its account is at rest, and removes it; the claims
                      and the secrets stay without --with-data
  port-forward [PORT] on this machine the endpoints at PORT (default: 8000), and Grafana at 3000 and
                      Prometheus at 9090 where they are deployed
  exec [COMMAND...]   a command beside the bot (default: a shell)
  update-model PATH   trades with the weights in PATH without a restart: a checkpoint's folder, a
                      .tar.gz of one, or a file of weights (.pt, see \`trading checkpoints export\`);
                      what does not fit is refused and changes nothing

  --kuberay           the bot runs on a Ray cluster
  --rayservice        the bot runs as a RayService
  --namespace NAME    where it was deployed (default: trading-bot)
  --name NAME         what it was called then (default: paper-trading-bot)
  --context NAME      kubectl's context (default: the current one)
  --strategy NAME     update-model: the strategy that it is for, where the settings have strategies
  --timeout SECONDS   for each wait (default: 900)
  --with-data         delete: the claims and the secrets too, the account with them, and the namespace
                      when no other bot has claims in it
  --yes               delete: asks nothing
  --help
TEXT
}

die() { echo "manage_k8s.sh: $*" >&2; exit 1; }
misuse() { echo "manage_k8s.sh: $*; see --help" >&2; exit 2; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/names.sh
. "$root/scripts/names.sh"

job=paper-trading-bot
application=(python -m trading)
state=(--config /etc/trading/config.yaml --set paths.state_dir=/var/lib/trading)

kuberay=false rayservice=false yes=false with_data=false context='' timeout=900
while [ $# -gt 0 ]; do
  case $1 in
    --kuberay) kuberay=true ;;
    --rayservice) kuberay=true rayservice=true ;;
    --yes) yes=true ;;
    --with-data) with_data=true ;;
    --context|--timeout|--namespace|--name|--strategy)
      [ $# -ge 2 ] || misuse "$1 needs a value"
      case $1 in
        --context) context=$2 ;;
        --timeout) timeout=$2 ;;
        --namespace) namespace=$2 ;;
        --name) name=$2 ;;
        --strategy) state+=(--set "strategy=$2") ;;
      esac
      shift ;;
    --help) usage; exit 0 ;;
    -*) misuse "unknown option $1" ;;
    *) break ;;
  esac
  shift
done
[[ $timeout =~ ^[1-9][0-9]*$ ]] || misuse "--timeout is $timeout; it must be whole seconds"
set_names
app=deployment/$name
service=rayservice/$cluster
[ $# -gt 0 ] || misuse "no command"
command=$1
shift

k() {
  local options=(-n "$namespace")
  if [ -n "$context" ]; then options+=(--context "$context"); fi
  kubectl "${options[@]}" "$@"
}

# Where deploy_k8s.sh had --nodes, a StatefulSet stands for the Deployment, with claims for each pod.
find_bot() {
  if ! $kuberay && [ -n "$(k get "statefulset/$name" --ignore-not-found -o name)" ]; then
    app=statefulset/$name
  fi
}

# The name of the Ray cluster, of a RayService that of the one which answers.
ray_cluster() {
  local found=$cluster
  if $rayservice; then
    found=$(k get "$service" -o 'jsonpath={.status.activeServiceStatus.rayClusterName}') || true
  fi
  [ -n "$found" ] || die "the RayService has no cluster"
  echo "$found"
}

# The name of the one pod of the Ray cluster with this label.
ray_pod() {
  local found labels
  labels=ray.io/cluster=$(ray_cluster),$1
  found=$(k get pods -l "$labels" --field-selector=status.phase=Running \
    -o "jsonpath={.items[0].metadata.name}" 2>/dev/null) || true
  [ -n "$found" ] || die "no running pod with the labels $labels"
  echo "$found"
}

# Runs a command in the container of the bot, or of the Ray node that it runs on.
beside() {
  local flags=(-i) pod
  if [ "$1" = --tty ]; then
    shift
    if [ -t 0 ] && [ -t 1 ]; then flags+=(-t); fi
  fi
  if $kuberay; then
    pod=$(ray_pod ray.io/group=live-market)
    k exec "${flags[@]}" "$pod" -c ray-worker -- "$@"
  else
    k exec "${flags[@]}" "$app" -c trading -- "$@"
  fi
}

on_head() {
  local pod
  pod=$(ray_pod ray.io/node-type=head)
  k exec -i "$pod" -c ray-head -- "$@"
}

ray_job() {
  local verb=$1
  shift
  on_head ray job "$verb" --address http://127.0.0.1:8265 "$@"
}

job_runs() { [[ $(ray_job status "$job" 2>/dev/null || true) =~ (RUNNING|PENDING) ]]; }

# GET of an endpoint, from inside: the cluster need not expose it.
http() {
  local get='import sys, urllib.request as r; print(r.urlopen("http://127.0.0.1:8000" + sys.argv[1], timeout=10).read().decode())'
  if $kuberay && ! $rayservice; then on_head python -c "$get" "$1"; else beside python -c "$get" "$1"; fi
}

await_ready() {
  local deadline=$((SECONDS + timeout))
  until (http /ready) >/dev/null 2>&1; do
    $rayservice || job_runs || die "the job $job ended: see \`manage_k8s.sh --kuberay logs\`"
    [ $SECONDS -lt $deadline ] || die "not ready within $timeout s: see \`manage_k8s.sh\` status and logs"
    sleep 5
  done
}

suspend() { k patch "$service" --type=merge -p "{\"spec\": {\"suspend\": $1}}"; }

# Waits until the operator has done what the RayService says; an upgrade then answers from its cluster.
await_service() {
  local generation
  generation=$(k get "$service" -o 'jsonpath={.metadata.generation}')
  k wait "$service" --for="jsonpath={.status.observedGeneration}=$generation" --timeout="${timeout}s"
  k wait "$service" --for=condition=UpgradeInProgress=false --timeout="${timeout}s"
  k wait "$service" --for=condition=Ready --timeout="${timeout}s"
}

start() {
  if $rayservice; then
    suspend false
    await_service
    await_ready
    return
  fi
  if ! $kuberay; then
    local count
    count=$(k get "$app" --ignore-not-found -o 'jsonpath={.spec.replicas}')
    # Several trade a strategy each.
    [[ $count =~ ^[1-9] ]] || k scale "$app" --replicas=1
    k rollout status "$app" --timeout="${timeout}s"
    return
  fi
  if job_runs; then
    echo "the job $job runs already"
  else
    # A job that has ended keeps its name until it is deleted.
    ray_job delete "$job" >/dev/null 2>&1 || true
    # Ray runs it by `sh -c`, and waits for all below it when it stops: without `exec` the shell would
    # end first, and Ray wait for an orphan.
    ray_job submit --submission-id "$job" --no-wait \
      --entrypoint-resources '{"live_market": 0.001}' -- \
      exec "${application[@]}" up "${state[@]}" --set serving.host=0.0.0.0
  fi
  await_ready
}

stop() {
  if $rayservice; then
    suspend true
    k wait "$service" --for=condition=Suspended --timeout="${timeout}s"
    return
  fi
  if $kuberay; then
    if job_runs; then ray_job stop "$job"; else echo "the job $job does not run"; fi
    return
  fi
  k scale "$app" --replicas=0
  await_rest
}

# Until no pod that can trade the account is there.
await_rest() { k wait pods -l "app=$name" --for=delete --timeout="${timeout}s"; }

status() {
  if $rayservice; then
    k get rayservices,rayclusters,pods,services,persistentvolumeclaims
  elif $kuberay; then
    k get rayclusters,pods,services,persistentvolumeclaims
    ray_job status "$job"
  else
    k get deployments,statefulsets,pods,services,persistentvolumeclaims
  fi
  http /status
}

logs() {
  if $rayservice; then
    # What the supervisor, the live market and the other workers of its node write.
    beside sh -c 'tail "$@" /tmp/ray/session_latest/logs/worker-*.err' logs "$@"
  elif $kuberay; then ray_job logs "$job" "$@"; else k logs "$app" -c trading "$@"; fi
}

scale() {
  local count=${1-}
  [[ $count =~ ^[0-9]+$ ]] || misuse "scale needs a whole number"
  if ! $kuberay; then
    scale_bot "$count"
    return
  fi
  # Of a RayService what its next cluster is made of, and the cluster that it has: the operator takes no
  # notice of a count for the latter.
  if $rayservice; then most_env_runners "$count" "$service" /spec/rayClusterConfig; fi
  most_env_runners "$count" "raycluster/$(ray_cluster)" /spec
}

# One account has one owner: more than one replica is for strategies, of which each claims one.
scale_bot() {
  local count=$1 most
  if [ "$count" -gt 1 ]; then
    most=$(strategies)
    [ "$most" -gt 0 ] || die "scale $count: one account has one owner, so there is one pod or none; \
several are for settings with strategies (configs/strategies.yaml)"
    [ "$count" -le "$most" ] || die "scale $count: the settings have $most strategies to \
claim, all that share a learner as one, and a replica without one would never be ready"
  fi
  if [ "$count" = 0 ]; then
    stop
  else
    k scale "$app" --replicas="$count"
    k rollout status "$app" --timeout="${timeout}s"
  fi
}

# How many replicas the strategies of the bot's settings are for: the keys just below `strategies:`, and
# of those that share a learner all at once.
strategies() {
  k get "configmap/$objects-config" --ignore-not-found -o 'jsonpath={.data.config\.yaml}' | awk '
    { sub(/(^| )#.*/, "") }
    /^learner:/ { learner = $2 }
    /^strategies:/ { inside = 1; next }
    /^[^ ]/ { inside = 0 }
    inside && match($0, /^ +[^ ]/) {
      if (!width) width = RLENGTH
      if (RLENGTH == width) count++
      if (match($0, /learner: *[a-z]+/)) learners[count] = substr($0, RSTART, RLENGTH)
    }
    END {
      for (each = 1; each <= count; each++)
        if ((each in learners ? learners[each] : learner) ~ /shared$/) together = 1; else alone++
      print alone + together
    }'
}

# Bounds the group env-runners of the cluster that OBJECT describes at PATH.
most_env_runners() {
  local count=$1 object=$2 path=$3 groups index=0
  groups=$(k get "$object" -o "jsonpath={${path//\//.}.workerGroupSpecs[*].groupName}")
  for group in $groups; do
    [ "$group" != env-runners ] || break
    index=$((index + 1))
  done
  path+=/workerGroupSpecs/$index
  k patch "$object" --type=json -p "[
    {\"op\": \"test\", \"path\": \"$path/groupName\", \"value\": \"env-runners\"},
    {\"op\": \"replace\", \"path\": \"$path/maxReplicas\", \"value\": $count}]"
}

restart() {
  if $kuberay; then
    stop
    start
  else
    k rollout restart "$app"
    start
  fi
}

delete() {
  local what="the bot in namespace $namespace"
  if $with_data; then what+=", its account, models and secrets"; fi
  if ! $yes; then
    [ -t 0 ] || die "delete needs --yes where nobody can be asked"
    local answer
    read -r -p "delete $what? [y/N] " answer
    [[ $answer == [yY]* ]] || die "nothing was deleted"
  fi
  local wait=(--ignore-not-found --timeout="${timeout}s")
  find_bot
  at_rest
  if $kuberay; then
    # Redis last: the operator removes there what the cluster has left.
    k delete "rayservice/$cluster" "rayjob/$training" "raycluster/$cluster" "${wait[@]}"
    await_rest
    k delete "statefulset/$redis" "service/$redis" "networkpolicy/$redis" "${wait[@]}"
    k delete "networkpolicy/${own}ray-nodes" "networkpolicy/${own}ray-head-to-api-server" \
      "networkpolicy/${own}live-market-to-massive" "poddisruptionbudget/${own}trading-live-market" \
      "service/$name" "configmap/$objects-config" "${wait[@]}"
  else
    k delete "$app" "service/$name" "service/$name-pods" "configmap/$objects-config" \
      "poddisruptionbudget/$name" "networkpolicy/$name" "${wait[@]}"
  fi
  if $with_data; then delete_data "${wait[@]}"; fi
}

delete_data() {
  local others
  k delete "persistentvolumeclaim/$objects-models" "persistentvolumeclaim/$objects-checkpoints" \
    "persistentvolumeclaim/$objects-logs" "persistentvolumeclaim/data-$redis-0" \
    "secret/$objects-secrets" "secret/$redis" "$@"
  # Those that a StatefulSet made.
  k delete persistentvolumeclaims -l "app.kubernetes.io/name=$name" "$@"
  others=$(k get persistentvolumeclaims -o name)
  if [ -n "$(grep -v '/prometheus$' <<<"$others" || true)" ]; then
    echo "the namespace $namespace stays: it holds claims of others"
  else
    k delete "namespace/$namespace" "$@"
  fi
}

# Ends trading in order where something trades.
at_rest() {
  local owner=$app
  if $rayservice; then owner=$service; elif $kuberay; then owner=raycluster/$cluster; fi
  if [ -z "$(k get "$owner" --ignore-not-found -o name)" ]; then
    await_rest
    return
  fi
  # Without its head a Ray cluster has no job to stop; the live market's pod ends it then.
  stop || echo "not stopped in order: the pods end it" >&2
}

port_forward() {
  local port=${1:-8000} forward forwards
  [[ $port =~ ^[0-9]+$ ]] || misuse "port-forward: $port is no port"
  forwards=("service/$name $port:8000")
  for forward in "service/grafana 3000" "service/prometheus 9090"; do
    if [ -n "$(k get "${forward% *}" --ignore-not-found -o name)" ]; then forwards+=("$forward"); fi
  done
  trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
  for forward in "${forwards[@]}"; do k port-forward "${forward% *}" "${forward#* }" & done
  # One that ends, for its pod did, ends all.
  wait -n
}

update_model() {
  local path=${1-} model target receive
  [ -n "$path" ] || misuse "update-model needs a folder, a .tar.gz or a .pt"
  if [ -d "$path" ]; then
    path=$(cd "$path" && pwd)
  else
    [ -f "$path" ] || die "update-model: there is no $path"
    [[ $path == *.pt ]] || tar -tzf "$path" >/dev/null 2>&1 ||
      die "update-model: $path is neither a folder nor a .tar.gz nor a .pt"
  fi
  model=$(basename "$path" .tar.gz)
  model=${model%.pt}-$(date -u +%Y%m%dT%H%M%SZ)
  [[ $model =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
    die "update-model: rename $path to letters, digits, dots, - and _"
  target=/models/$model
  # Under another name until it is whole.
  receive="set -e; mkdir $target.part; tar -xzf - -C $target.part; mv $target.part $target"
  if [[ -f $path && $path == *.pt ]]; then
    target+=.pt
    receive="set -e; cat >$target.part; mv $target.part $target"
  fi
  echo "uploading $path to $target"
  if [ -d "$path" ]; then
    tar -czf - -C "$path" . | beside sh -c "$receive"
  else
    beside sh -c "$receive" <"$path"
  fi
  if ! beside "${application[@]}" checkpoints promote "$target" "${state[@]}"; then
    beside rm -rf "$target"
    die "update-model: $path was refused; the bot trades on with what it had"
  fi
}

case $command in
  status|stop|start|restart|delete) [ $# -eq 0 ] || misuse "$command takes no argument" ;;
esac
case $command in
  status|logs|metrics|scale|restart|stop|start|exec|update-model) find_bot ;;
esac
case $command in
  status|logs|scale|restart|stop|start|delete) "$command" "$@" ;;
  metrics) http /metrics ;;
  port-forward) port_forward "$@" ;;
  exec)
    [ $# -gt 0 ] || set -- bash
    beside --tty "$@" ;;
  update-model) update_model "$@" ;;
  *) misuse "unknown command $command" ;;
esac
