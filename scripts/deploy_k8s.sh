#!/usr/bin/env bash
# Brings the bot to a Kubernetes cluster: image, namespace, secrets, settings, volumes, application.
# May be run again at any time; it changes only what differs.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/deploy_k8s.sh [options]

  --kuberay           on a Ray cluster (needs the KubeRay operator) instead of as one pod
  --rayservice        on a Ray cluster, as a RayService: an upgrade hands the account over from one
                      cluster to the next, and the endpoints go on answering
  --nodes             replicas on several nodes: a StatefulSet, a strategy and claims for each pod
  --gpu               learn on a GPU, with the CUDA image
  --image NAME:TAG    image to run (default: paper-trading-bot:VERSION, or VERSION-cuda with --gpu)
  --no-build          the image is there already: neither build nor load it
  --push              push the image to its registry instead of loading it into a local cluster
  --env-file FILE     makes the Secret trading-bot-secrets of it (default: .env where there is one)
  --feed              a feed as well, which holds the connection to Massive.com, and the bot reads it: for
                      several bots, or replicas, with one key. The vendor's keys of the env file become
                      the feed's, the bot shows one of the feed's own
  --config FILE       the application's settings (default: those in the manifests)
  --model PATH        uploads a checkpoint or a file of weights and trades with it once the bot runs
  --monitoring        Prometheus and Grafana as well
  --runbooks URL      where people read what to do about an alert: your page of docs/monitoring.md, without
                      an anchor (default: what was given last, else Grafana's dashboard of it)
  --namespace NAME    where it runs (default: trading-bot)
  --name NAME         what Deployment and Service, or the Ray cluster, are called, and what the other
                      names begin with (default: paper-trading-bot); a second one has its own account
  --context NAME      kubectl's context (default: the current one)
  --timeout SECONDS   for each wait (default: 900)
  --yes               asks nothing
  --dry-run           prints what would be done and changes nothing
  --help
TEXT
}

die() { echo "deploy_k8s.sh: $*" >&2; exit 1; }
misuse() { echo "deploy_k8s.sh: $*; see --help" >&2; exit 2; }
say() { echo "==> $*"; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/names.sh
. "$root/scripts/names.sh"

kuberay=false rayservice=false gpu=false build=true push=false monitoring=false yes=false dry_run=false feed=false
nodes=false image='' env_file='' config='' model='' context='' timeout=900 runbooks=''

while [ $# -gt 0 ]; do
  case $1 in
    --image|--env-file|--config|--model|--context|--timeout|--namespace|--name|--runbooks)
      [ $# -ge 2 ] || misuse "$1 needs a value" ;;
  esac
  case $1 in
    --kuberay) kuberay=true ;;
    --rayservice) kuberay=true rayservice=true ;;
    --gpu) gpu=true ;;
    --no-build) build=false ;;
    --push) push=true ;;
    --monitoring) monitoring=true ;;
    --feed) feed=true ;;
    --nodes) nodes=true ;;
    --yes) yes=true ;;
    --dry-run) dry_run=true ;;
    --image) image=$2; shift ;;
    --env-file) env_file=$2; shift ;;
    --config) config=$2; shift ;;
    --model) model=$2; shift ;;
    --context) context=$2; shift ;;
    --namespace) namespace=$2; shift ;;
    --name) name=$2; shift ;;
    --timeout) timeout=$2; shift ;;
    --runbooks) runbooks=$2; shift ;;
    --help) usage; exit 0 ;;
    *) misuse "unknown option $1" ;;
  esac
  shift
done

set_names
bot=deployment/$name
if $nodes; then
  ! $kuberay || misuse "--nodes is for the form of pods; a Ray cluster has several nodes anyway"
  bot=statefulset/$name
fi
[[ $timeout =~ ^[1-9][0-9]*$ ]] || misuse "--timeout is $timeout; it must be whole seconds"
if [ -n "$runbooks" ]; then
  $monitoring || misuse "--runbooks is for --monitoring"
  [[ $runbooks =~ ^https?://[^[:space:]\"\'#]+$ ]] ||
    misuse "--runbooks is $runbooks; it must be an address as https://docs.example/monitoring.html"
fi
[ -z "$config" ] || [ -f "$config" ] || die "--config: $config is no file"
[ -z "$model" ] || [ -e "$model" ] || die "--model: there is no $model"
if [ -n "$env_file" ]; then
  [ -f "$env_file" ] || die "--env-file: $env_file is no file"
elif [ -f "$root/.env" ]; then
  env_file=$root/.env
fi
if [ -n "$env_file" ] && line=$(grep -nE "^export |=[\"']|"$'\r' "$env_file" | cut -d: -f1); then
  # kubectl takes values as they stand: quotes would become part of a key.
  die "$env_file: line ${line//$'\n'/, }: write NAME=value, without export, quotes or carriage returns"
fi
if [ -z "$image" ]; then
  image=paper-trading-bot:$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
  if $gpu; then image+=-cuda; fi
fi
tag=${image##*:}
[[ $image == *:* && $tag != */* ]] || misuse "--image is $image; it must have a tag, as in $image:1"

kubectl=(kubectl)
if [ -n "$context" ]; then kubectl+=(--context "$context"); fi

# Does, or with --dry-run only tells.
run() {
  if $dry_run; then printf '+'; printf ' %q' "$@"; echo; else "$@"; fi
}

# The same for `kubectl apply -f -` with the text of standard input.
apply() {
  local manifest
  manifest=$(cat)
  if $dry_run; then
    echo "+ ${kubectl[*]} apply -f - <<MANIFEST"
    # A Secret is applied by its name only; its values are not printed.
    grep -E '^(kind:|  name:)' <<<"$manifest" || true
    echo MANIFEST
  else
    "${kubectl[@]}" apply -f - <<<"$manifest"
  fi
}

exists() {
  local found
  found=$("${kubectl[@]}" get "$@" --ignore-not-found -o name) || die "cannot see whether $* exists"
  [ -n "$found" ]
}

confirm() {
  if $yes || $dry_run; then return; fi
  [ -t 0 ] || die "$1 needs --yes where nobody can be asked"
  local answer
  read -r -p "$1 [y/N] " answer
  [[ $answer == [yY]* ]] || die "stopped"
}

check_tools() {
  command -v kubectl >/dev/null || die "kubectl is not installed"
  if $build; then
    command -v docker >/dev/null || die "docker is not installed; --no-build needs none"
  fi
  current=${context:-$("${kubectl[@]}" config current-context 2>/dev/null)} ||
    die "kubectl has no current context; choose one with --context"
  "${kubectl[@]}" version -o json >/dev/null || die "the cluster of context $current does not answer"
  if $kuberay && ! exists crd rayclusters.ray.io; then
    die "the KubeRay operator is not installed: see infra/kuberay/README.md"
  fi
  if $kuberay; then
    local other=rayservice/$cluster form=--rayservice
    if $rayservice; then other=raycluster/$cluster form=--kuberay; fi
    if exists "$other" -n "$namespace"; then
      die "the bot runs as $other: \`manage_k8s.sh $form --yes delete\` ends it, the account stays"
    fi
  fi
  if ! $kuberay; then
    local stands=statefulset/$name option='with'
    if $nodes; then stands=deployment/$name option='without'; fi
    if exists "$stands" -n "$namespace"; then
      die "the bot runs as $stands, whose accounts are in other claims: deploy $option --nodes, or end it \
by \`manage_k8s.sh --yes delete\` and begin with new accounts"
    fi
  fi
  if $feed; then
    if [ -n "$env_file" ]; then
      grep -qE '^MASSIVE_API_KEYS?=.' "$env_file" ||
        die "--feed: $env_file has neither MASSIVE_API_KEY nor MASSIVE_API_KEYS, which the feed shows"
    elif ! exists secret trading-feed-secrets -n "$namespace"; then
      die "--feed needs the vendor's key: write MASSIVE_API_KEY=... into .env, or name an --env-file"
    fi
  fi
  confirm "deploy $image to the cluster of context $current?"
}

image_step() {
  if ! $build; then return; fi
  say "image $image"
  local variant=cpu
  if $gpu; then variant=cuda; fi
  run docker build --build-arg "VARIANT=$variant" -t "$image" "$root"
  if $push; then
    run docker push "$image"
    return
  fi
  case $current in
    kind-*) run kind load docker-image "$image" --name "${current#kind-}" ;;
    minikube*) run minikube -p "$current" image load "$image" ;;
    k3s*|k3d-*)
      if [[ $current == k3d-* ]]; then
        run k3d image import "$image" -c "${current#k3d-}"
      elif $dry_run; then
        echo "+ docker save $image | sudo k3s ctr images import -"
      else
        docker save "$image" | sudo k3s ctr images import -
      fi ;;
    *) say "context $current is no local cluster: its nodes pull $image from a registry (--push)" ;;
  esac
}

# A Secret with a random password, made once.
password_secret() {
  if exists secret "$1" -n "$namespace"; then return; fi
  (umask 077 && od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$work/password")
  "${kubectl[@]}" create secret generic "$1" -n "$namespace" --dry-run=client -o yaml \
    --from-file=password="$work/password" | apply
}

# The vendor's keys are the feed's alone; the bot gets one that opens nothing but the feed. Files, since
# what stands on a command line all processes of this machine may read.
feed_secrets() {
  local key applied
  key=$(sed -n 's/^FEED_KEYS=//p' "$env_file")
  if [ -z "$key" ]; then
    key=$("${kubectl[@]}" get secret trading-feed-secrets -n "$namespace" --ignore-not-found \
      -o 'jsonpath={.data.FEED_KEYS}' | base64 -d) || die "cannot read the Secret trading-feed-secrets"
  fi
  key=${key:-$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')}
  { grep -E '^MASSIVE_API_KEYS?=' "$env_file" || true; echo "FEED_KEYS=$key"; } >"$work/feed.env"
  { grep -vE '^(MASSIVE_API_KEYS?|FEED_KEYS|FEED_URL)=' "$env_file" || true
    echo "MASSIVE_API_KEY=${key%% *}"; } >"$work/bot.env"
  applied=$("${kubectl[@]}" create secret generic trading-feed-secrets -n "$namespace" \
    --from-env-file="$work/feed.env" --dry-run=client -o yaml | apply)
  echo "$applied"
  if [[ $applied == *" configured"* ]]; then feed_changed=true; fi
}

# Notes whether what the bot reads at its start is new.
watch_settings() {
  if [[ $1 == *"configmap/$objects-config configured"* ]] ||
    [[ $1 == *"secret/$objects-secrets configured"* ]]; then
    settings_changed=true
  fi
}

secrets_step() {
  say "namespace and secrets"
  named <"$root/infra/k8s/configs/namespace.yaml" | apply
  if [ -n "$env_file" ]; then
    local applied variables=$env_file
    if $feed; then
      feed_secrets
      variables=$work/bot.env
    fi
    applied=$("${kubectl[@]}" create secret generic "$objects-secrets" -n "$namespace" \
      --from-env-file="$variables" --dry-run=client -o yaml | apply)
    echo "$applied"
    watch_settings "$applied"
  else
    echo "no .env file: the Secret $objects-secrets stays as it is"
  fi
  if $kuberay; then password_secret "$redis"; fi
  if $monitoring; then password_secret trading-grafana; fi
}

# What is added to the chosen manifests.
components() {
  local chosen=()
  if $nodes; then chosen+=(../infra/k8s/components/nodes); fi
  if $feed; then chosen+=(../infra/k8s/components/feed); fi
  local IFS=,
  echo "${chosen[*]}"
}

# A kustomization over the chosen manifests, with the image and the settings of this call.
overlay() {
  local base=$1
  cat >"$work/kustomization.yaml" <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../infra/$base
components: [$(components)]
images:
  - name: paper-trading-bot
    newName: ${image%:*}
    newTag: "$tag"
YAML
  if [ -n "$config" ]; then
    cp "$config" "$work/config.yaml"
    cat >>"$work/kustomization.yaml" <<YAML
configMapGenerator:
  - name: trading-bot-config
    namespace: trading-bot
    behavior: replace
    files: [config.yaml]
generatorOptions:
  disableNameSuffixHash: true
YAML
  fi
  if ! $kuberay; then
    keep_replicas >>"$work/kustomization.yaml"
  else
    echo patches: >>"$work/kustomization.yaml"
    keep_env_runners >>"$work/kustomization.yaml"
  fi
  if $rayservice; then
    # What a pod reads at its start is part of what the cluster is: new settings are an upgrade.
    cat >>"$work/kustomization.yaml" <<YAML
  - target: {kind: RayService}
    patch: |
      - op: test
        path: /spec/rayClusterConfig/workerGroupSpecs/0/groupName
        value: live-market
      - op: add
        path: /spec/rayClusterConfig/workerGroupSpecs/0/template/metadata/annotations
        value: {trading-bot/settings: "$(settings_digest)"}
YAML
  fi
  "${kubectl[@]}" kustomize "$work" | named
}

# Prometheus and Grafana with the image of this call, and with where the runbooks are.
monitoring_overlay() {
  local read_at=$runbooks
  if [ -z "$read_at" ]; then
    read_at=$("${kubectl[@]}" get deployment/prometheus -n "$namespace" --ignore-not-found \
      -o 'jsonpath={.spec.template.spec.containers[0].env[?(@.name=="RUNBOOKS_URL")].value}') ||
      die "cannot read where Prometheus says that the runbooks are"
  fi
  mkdir "$work/monitoring"
  cat >"$work/monitoring/kustomization.yaml" <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../infra/k8s/monitoring]
images:
  - name: paper-trading-bot
    newName: ${image%:*}
    newTag: "$tag"
YAML
  if [ -n "$read_at" ]; then
    cat >>"$work/monitoring/kustomization.yaml" <<YAML
patches:
  - patch: |
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: prometheus, namespace: trading-bot}
      spec:
        template:
          spec:
            containers:
              - name: prometheus
                env: [{name: RUNBOOKS_URL, value: "$read_at"}]
YAML
  fi
  "${kubectl[@]}" kustomize "$work/monitoring" | named
}

# Replicas stay as many as `manage_k8s.sh scale` asked for.
keep_replicas() {
  local count
  count=$("${kubectl[@]}" get "$bot" -n "$namespace" --ignore-not-found \
    -o 'jsonpath={.spec.replicas}') || die "cannot read how many replicas $bot has"
  if [[ $count =~ ^[1-9][0-9]*$ ]]; then
    printf 'replicas:\n  - {name: paper-trading-bot, count: %s}\n' "$count"
  fi
}

# A patch by which env runners stay as many as `manage_k8s.sh scale` allowed, and as the autoscaler made.
keep_env_runners() {
  local kind=RayCluster path=.spec object=raycluster/$cluster key count
  if $rayservice; then kind=RayService path=.spec.rayClusterConfig object=rayservice/$cluster; fi
  cat <<YAML
  - target: {kind: $kind}
    patch: |
      - op: test
        path: ${path//.//}/workerGroupSpecs/2/groupName
        value: env-runners
YAML
  for key in maxReplicas replicas; do
    count=$("${kubectl[@]}" get "$object" -n "$namespace" --ignore-not-found \
      -o "jsonpath={$path.workerGroupSpecs[?(@.groupName==\"env-runners\")].$key}") ||
      die "cannot read how many env runners $object may have"
    if [[ $count =~ ^[0-9]+$ ]]; then
      cat <<YAML
      - {op: replace, path: ${path//.//}/workerGroupSpecs/2/$key, value: $count}
YAML
    fi
  done
}

settings_digest() {
  local secret
  secret=$("${kubectl[@]}" get secret "$objects-secrets" -n "$namespace" --ignore-not-found \
    -o 'jsonpath={.data}') || die "cannot read the Secret $objects-secrets"
  { cat "${config:-$root/infra/kuberay/cluster/config.yaml}"; echo "$secret"; } | sha256sum | cut -c -16
}

application_step() {
  say "settings, volumes and application"
  local base=k8s applied
  if $gpu; then base=k8s/overlays/gpu; fi
  if $kuberay; then
    base=kuberay/overlays/cpu-only
    if $gpu; then base=kuberay/overlays/gpu; fi
    if $rayservice; then base=${base/overlays\//overlays/service-}; fi
  fi
  if $kuberay && ! $rayservice && exists "raycluster/$cluster" -n "$namespace"; then
    local changes code=0
    changes=$(overlay "$base" | "${kubectl[@]}" diff -f -) || code=$?
    [ $code -le 1 ] || die "kubectl diff failed: it is not known what would change"
    if [[ $changes == *RayCluster.* ]]; then
      # Its pods are all replaced: the bot ends in order first.
      cluster_changed=true
      manage stop
    fi
  fi
  applied=$(overlay "$base" | apply)
  echo "$applied"
  watch_settings "$applied"
  if $monitoring; then
    monitoring_overlay | apply
  fi
}

manage() {
  local options=(--timeout "$timeout" --namespace "$namespace" --name "$name")
  if $rayservice; then options+=(--rayservice); elif $kuberay; then options+=(--kuberay); fi
  if [ -n "$context" ]; then options+=(--context "$context"); fi
  run "$root/scripts/manage_k8s.sh" "${options[@]}" "$@"
}

start_step() {
  say "waiting until it is ready"
  if $feed; then
    if $feed_changed; then
      run "${kubectl[@]}" rollout restart deployment/trading-feed -n "$namespace"
    fi
    run "${kubectl[@]}" rollout status deployment/trading-feed -n "$namespace" --timeout="${timeout}s"
  fi
  if $rayservice; then
    manage start
  elif $kuberay; then
    local await=("${kubectl[@]}" wait -n "$namespace")
    if $cluster_changed; then
      run "${await[@]}" "raycluster/$cluster" --for=condition=HeadPodReady=false --timeout=60s || true
    fi
    run "${await[@]}" "raycluster/$cluster" --for=condition=RayClusterProvisioned --timeout="${timeout}s"
    if $settings_changed && ! $cluster_changed; then
      # A running pod keeps its environment, and for a minute its old settings.
      manage stop
      run "${kubectl[@]}" delete pods -n "$namespace" \
        -l "ray.io/cluster=$cluster,ray.io/group=live-market"
    fi
    run "${await[@]}" pods -l "ray.io/cluster=$cluster" --for=condition=Ready --timeout="${timeout}s"
    manage start
  elif $settings_changed; then
    manage restart
  else
    manage start
  fi
  if $monitoring; then
    for each in prometheus grafana; do
      run "${kubectl[@]}" rollout status "deployment/$each" -n "$namespace" --timeout="${timeout}s"
    done
  fi
  if [ -n "$model" ]; then
    say "model $model"
    manage update-model "$model"
  fi
}

addresses() {
  local forward="${kubectl[*]} port-forward -n $namespace"
  say "inside the cluster: http://$name.$namespace:8000/status"
  echo "from here:          $forward service/$name 8000"
  if $kuberay; then echo "Ray's dashboard:    $forward service/$cluster-head-svc 8265"; fi
  if $monitoring; then
    echo "Prometheus:         $forward service/prometheus 9090"
    echo "Grafana:            $forward service/grafana 3000   (user admin, password in the Secret trading-grafana)"
  fi
}

# Within the checkout: a kustomization names others by a relative path.
work=$(mktemp -d "$root/.deploy.XXXXXX")
trap 'rm -rf "$work"' EXIT
settings_changed=false cluster_changed=false feed_changed=false

check_tools
image_step
secrets_step
application_step
start_step
addresses
