{{/* What a schema cannot say: values that are right by themselves and wrong together, or whose mistake needs a sentence. */}}
{{- define "switchboard.validate" -}}
{{- $values := .Values -}}
{{- range $name, $image := dict "image" $values.image "mediaImage" $values.mediaImage -}}
{{- if regexMatch "[:@]" $image.repository -}}
{{- fail (printf "%s.repository (%s) must not hold a tag or a digest: put it into %s.tag or %s.digest, and the registry's host and port into %s.registry" $name $image.repository $name $name $name) -}}
{{- end -}}
{{- end -}}
{{- if and $values.podDisruptionBudget.enabled (not (or $values.podDisruptionBudget.maxUnavailable (kindIs "string" $values.podDisruptionBudget.maxUnavailable))) -}}
{{- fail "podDisruptionBudget.maxUnavailable is 0, with which no node could ever be drained: set it to at least 1, or podDisruptionBudget.enabled to false" -}}
{{- end -}}
{{- if and (not $values.priorityClass.create) $values.priorityClass.name (eq $values.priorityClass.name (include "switchboard.fullname" .)) -}}
{{- fail (printf "priorityClass.name is %s, which this chart makes, but priorityClass.create is false: name another class, or let the chart make it" $values.priorityClass.name) -}}
{{- end -}}
{{- if and $values.defaultGateway.enabled (not $values.defaultGateway.spec) -}}
{{- fail "defaultGateway.enabled needs defaultGateway.spec with at least publicUrl, carrier and store: the example is in the chart's README" -}}
{{- end -}}
{{- if $values.defaultGateway.enabled -}}
{{- range $field := list "publicUrl" "carrier" "store" -}}
{{- if not (hasKey $values.defaultGateway.spec $field) -}}
{{- fail (printf "defaultGateway.spec.%s is missing: kubectl explain voicegateway.spec.%s" $field $field) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key := list "defaultGateway" "sampleAgent" -}}
{{- $resource := get $values $key -}}
{{- $namespace := $resource.namespace | default $.Release.Namespace -}}
{{- if and $resource.enabled $values.watchNamespaces (not (has $namespace $values.watchNamespaces)) -}}
{{- fail (printf "%s.namespace is %s, which is not among watchNamespaces (%s): no operator would serve it; add the namespace, or move the resource" $key $namespace (join ", " $values.watchNamespaces)) -}}
{{- end -}}
{{- end -}}
{{- if and $values.sampleAgent.enabled (not $values.sampleAgent.spec) -}}
{{- fail "sampleAgent.spec is empty: leave out sampleAgent.spec to get the scripted one" -}}
{{- end -}}
{{- end }}
