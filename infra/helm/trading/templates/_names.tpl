{{/* Names, as scripts/names.sh has them. */}}
{{- define "trading.objects" -}}
{{ if eq .Values.name "paper-trading-bot" }}trading-bot{{ else }}{{ .Values.name }}{{ end }}
{{- end }}
{{- define "trading.cluster" -}}
{{ if eq .Values.name "paper-trading-bot" }}trading{{ else }}{{ .Values.name }}{{ end }}
{{- end }}
{{- define "trading.redis" -}}
{{ if eq .Values.name "paper-trading-bot" }}trading-redis{{ else }}{{ .Values.name }}-redis{{ end }}
{{- end }}
{{- define "trading.own" -}}
{{ if ne .Values.name "paper-trading-bot" }}{{ .Values.name }}-{{ end }}
{{- end }}
{{- define "trading.secret" -}}
{{ .Values.secret | default (printf "%s-secrets" (include "trading.objects" .)) }}
{{- end }}
{{- define "trading.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "%s%s" .Chart.AppVersion (ternary "-cuda" "" .Values.gpu)) }}
{{- end }}
{{/* The settings' file, with what the values change. */}}
{{- define "trading.settings" -}}
{{- $values := (index . 0).Values -}}
{{- $changes := deepCopy $values.settings -}}
{{- if $values.feed -}}
{{- $changes = mergeOverwrite (dict "data" (dict "massive" (dict "feed_url" "http://trading-feed:8765"))) $changes -}}
{{- end -}}
{{- if $values.account -}}
{{- $changes = mergeOverwrite $changes (dict "account" (dict "id" $values.account)) -}}
{{- end -}}
{{- if $changes -}}
{{ mergeOverwrite (fromYaml (index . 1)) $changes | toYaml }}
{{- else -}}
{{ index . 1 }}
{{- end -}}
{{- end }}
{{/* Of the content of files: what reads them starts again when it changes. */}}
{{- define "trading.digest" -}}
{{- $content := "" -}}
{{- range $path, $_ := (index . 0).Files.Glob (index . 1) -}}
{{- $content = printf "%s%s" $content ((index $ 0).Files.Get $path) -}}
{{- end -}}
{{ $content | sha256sum | trunc 10 }}
{{- end }}
{{/* A password that is made once and stays. */}}
{{- define "trading.password" -}}
{{- $context := index . 0 -}}
{{- $secret := lookup "v1" "Secret" $context.Release.Namespace (index . 1) -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ index . 1 }}
  namespace: {{ $context.Release.Namespace }}
  annotations:
    helm.sh/resource-policy: keep
type: Opaque
data:
  password: {{ if $secret }}{{ $secret.data.password }}{{ else }}{{ randAlphaNum 48 | b64enc }}{{ end }}
{{- end }}
