{{/* What the operator may do, and nothing more. It applies (patch, and create where the object is new), deletes only what
it made as an option (autoscaler, routes, NetworkPolicy, PodMonitor), and leaves the rest to the garbage collector. */}}
{{- define "switchboard.rules" -}}
- apiGroups: [switchboard.dev]
  resources: [voicegateways, voiceagents, phonenumbers]
  verbs: [get, list, watch]
# The finalizers of PhoneNumber and VoiceAgent are a patch of their metadata.
- apiGroups: [switchboard.dev]
  resources: [phonenumbers, voiceagents]
  verbs: [patch]
- apiGroups: [switchboard.dev]
  resources: [voicegateways/status, voiceagents/status, phonenumbers/status]
  verbs: [patch]
# Owner references that block deletion, where the cluster checks them.
- apiGroups: [switchboard.dev]
  resources: [voicegateways/finalizers, voiceagents/finalizers]
  verbs: [update]
# Secrets that resources name are read; stream keyrings are made and rotated. Their names are not known beforehand, and
# roles know no patterns, so these verbs are for every Secret; watchNamespaces limits them to namespaces.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [configmaps, services, serviceaccounts]
  verbs: [get, list, watch, create, patch]
# Addresses of media pods, to ask them for their load; annotations: deletion cost, and the configuration to load.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
# The number of pods, where the operator scales itself.
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses, networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# Of other projects, where the cluster has them.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
