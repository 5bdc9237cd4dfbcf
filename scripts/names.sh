# shellcheck shell=bash
# Namespace and names of what deploy_k8s.sh brings and manage_k8s.sh looks after; source it.
#
# The manifests name everything paper-trading-bot, trading-bot-…, or trading. With --namespace and
# --name several bots, each with an account of its own, live in one cluster, or one namespace.

namespace=trading-bot name=paper-trading-bot

# From namespace and name the names of all other objects:
#   objects-config, -secrets, -models, -checkpoints, -logs; cluster, training, redis; and own, before
#   those that otherwise stay as they are.
set_names() {
  local option value
  for option in namespace name; do
    value=${!option}
    [[ $value =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
      misuse "--$option is $value; it must be 1 to 40 of a-z, 0-9 and -, beginning with a letter"
  done
  # shellcheck disable=SC2034
  if [ "$name" = paper-trading-bot ]; then
    objects=trading-bot cluster=trading training=train redis=trading-redis own=''
  else
    objects=$name cluster=$name training=$name-train redis=$name-redis own=$name-
  fi
}

# Manifests of standard input, renamed. Images and what is in configuration files keep their names.
named() {
  sed -E \
    -e "s/^( *)namespace: trading-bot$/\\1namespace: $namespace/" \
    -e "s/^  name: trading-bot$/  name: $namespace/" \
    -e "/image: |regex: |import_path: /! {
      s/\\bpaper-trading-bot\\b/$name/g
      s/\\btrading-bot-(config|secrets|models|checkpoints|logs)\\b/$objects-\\1/g
      s/\\btrading-redis\\b/$redis/g
      s/^  name: trading$/  name: $cluster/
      s/^  name: train$/  name: $training/
      s/(ray\\.io\\/cluster: )trading$/\\1$cluster/
      s/^  name: (ray-nodes|ray-head-to-api-server|live-market-to-massive|trading-live-market)$/  name: $own\\1/
    }"
}
