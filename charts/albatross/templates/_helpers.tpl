{{- define "albatross.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for the longest name that is made of it, that of the webhooks' Service, to have 63 characters. */}}
{{- define "albatross.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 47 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 47 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 47 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "albatross.serviceAccountName" -}}
{{- $default := ternary (include "albatross.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $default .Values.serviceAccount.name -}}
{{- end -}}

{{- define "albatross.selectorLabels" -}}
app.kubernetes.io/name: {{ include "albatross.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "albatross.labels" -}}
{{ include "albatross.labelsFor" (list . (include "albatross.name" .)) }}
{{- end -}}

{{/* The labels of an object, with the name of the application that it is part of. aws-load-balancer-controller's webhooks pass
over objects that carry its own name: what it made and must be able to remove while none of its pods answers. */}}
{{- define "albatross.labelsFor" -}}
{{- $name := index . 1 -}}
{{- with index . 0 -}}
{{- if eq (default "helm" .Values.creator) "helm" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ end -}}
app.kubernetes.io/name: {{ $name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- with .Values.additionalLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* The port of an address such as `:8080`; nothing of `0`, which is no server. */}}
{{- define "albatross.port" -}}
{{- if ne (toString .) "0" }}{{ regexFind "[0-9]+$" (toString .) }}{{ end -}}
{{- end -}}
{{- define "albatross.metricsPort" -}}
{{- include "albatross.port" (default ":8080" .Values.metricsBindAddr) -}}
{{- end -}}
{{- define "albatross.healthPort" -}}
{{- include "albatross.port" (default ":61779" .Values.healthProbeBindAddr) -}}
{{- end -}}

{{/* The port of the state, where others than the pod itself reach it. */}}
{{- define "albatross.debugPort" -}}
{{- $address := toString (default "" .Values.debugBindAddr) -}}
{{- if not (regexMatch "^(127\\.|localhost:|\\[::1\\])" $address) }}{{ include "albatross.port" $address }}{{ end -}}
{{- end -}}

{{/* The class that the controller takes for its own: its flag's default when empty. */}}
{{- define "albatross.ingressClass" -}}
{{- default "alb" .Values.ingressClass -}}
{{- end -}}

{{- define "albatross.ingressClassParamsName" -}}
{{- default (include "albatross.ingressClass" .) .Values.ingressClassParams.name -}}
{{- end -}}

{{/* A value that may be a template. */}}
{{- define "albatross.template" -}}
{{- $value := index . 1 -}}
{{- if $value }}{{ tpl (toString $value) (index . 0) }}{{ end -}}
{{- end -}}

{{/* What a pod asks for where `resources` says nothing. Not defaults in values.yaml: Helm would mix them with a request that
is larger than this limit. The most memory that was measured is 49 MB with 200 Ingresses, and less than 100 MB with 20,000 pods. */}}
{{- define "albatross.resources" -}}
requests:
  cpu: 50m
  memory: 64Mi
limits:
  memory: 256Mi
{{- end -}}

{{/* Where the certificate of the webhooks comes from: `none` without webhooks, else `controller`, `values` or `cert-manager`. */}}
{{- define "albatross.webhookCertificate" -}}
{{- $given := .Values.webhookTLS -}}
{{- if not .Values.webhooks.enabled -}}none
{{- else if .Values.enableCertManager -}}cert-manager
{{- else if and $given.caCert $given.cert $given.key -}}values
{{- else -}}controller
{{- end -}}
{{- end -}}

{{/* A value as text: a map as key=value,…, a list with commas between, a number without an exponent. */}}
{{- define "albatross.text" -}}
{{- if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $key, $value := . }}{{ $pairs = append $pairs (printf "%s=%s" $key (include "albatross.text" $value)) }}{{ end -}}
{{- join "," $pairs -}}
{{- else if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if and (kindIs "float64" .) (eq (. | int64 | float64) .) -}}
{{- . | int64 -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* Tags as key=value,…, each value as aws-load-balancer-controller's chart writes it: a large number of a values file in
Helm's own notation (1.2e+11). AWS has it so, and another spelling would rewrite the tags of everything. */}}
{{- define "albatross.tags" -}}
{{- $pairs := list -}}
{{- range $key, $value := . }}{{ $pairs = append $pairs (printf "%s=%v" $key $value) }}{{ end -}}
{{- join "," $pairs -}}
{{- end -}}

{{/* The keys of defaultTags that a number was written for, in which Helm's notation shows. */}}
{{- define "albatross.notedTags" -}}
{{- $keys := list -}}
{{- range $key, $value := .Values.defaultTags }}
{{- if contains "e+" (printf "%v" $value) }}{{ if not (kindIs "string" $value) }}{{ $keys = append $keys $key }}{{ end }}{{ end -}}
{{- end -}}
{{- join ", " $keys -}}
{{- end -}}

{{/* A flag and its value, where one is given: true and false are, and nothing that is empty. */}}
{{- define "albatross.flag" -}}
{{- $value := index . 1 -}}
{{- if or $value (kindIs "bool" $value) }}
- {{ printf "--%s=%s" (index . 0) (include "albatross.text" $value) | quote }}
{{- end -}}
{{- end -}}

{{- define "albatross.arguments" -}}
{{- $certificate := include "albatross.webhookCertificate" . -}}
- controller
{{- include "albatross.flag" (list "cluster-name" (required "clusterName is required: the name of the cluster, which is part of the names and tags of everything in AWS (--set clusterName=NAME)" (include "albatross.template" (list . .Values.clusterName)))) }}
{{- with .Values }}
{{- include "albatross.flag" (list "ingress-class" (include "albatross.ingressClass" $)) }}
{{- include "albatross.flag" (list "load-balancer-class" .loadBalancerClass) }}
{{- include "albatross.flag" (list "aws-region" (include "albatross.template" (list $ .region))) }}
{{- include "albatross.flag" (list "aws-vpc-id" (include "albatross.template" (list $ .vpcId))) }}
{{- include "albatross.flag" (list "aws-vpc-tags" .vpcTags) }}
{{- include "albatross.flag" (list "aws-api-endpoints" .awsApiEndpoints) }}
{{- include "albatross.flag" (list "aws-api-throttle" .awsApiThrottle) }}
{{- include "albatross.flag" (list "aws-max-retries" .awsMaxRetries) }}
{{- include "albatross.flag" (list "default-target-type" .defaultTargetType) }}
{{- include "albatross.flag" (list "default-load-balancer-scheme" .defaultLoadBalancerScheme) }}
{{- include "albatross.flag" (list "default-ssl-policy" .defaultSSLPolicy) }}
{{- include "albatross.flag" (list "default-tags" (include "albatross.tags" .defaultTags)) }}
{{- include "albatross.flag" (list "external-managed-tags" .externalManagedTags) }}
{{- include "albatross.flag" (list "allowed-certificate-authority-arns" .certDiscovery.allowedCertificateAuthorityARNs) }}
{{- include "albatross.flag" (list "default-pca-arn" .certManagement.defaultPCAARN) }}
{{- include "albatross.flag" (list "tolerate-non-existent-backend-service" .tolerateNonExistentBackendService) }}
{{- include "albatross.flag" (list "tolerate-non-existent-backend-action" .tolerateNonExistentBackendAction) }}
{{- include "albatross.flag" (list "enable-backend-security-group" .enableBackendSecurityGroup) }}
{{- include "albatross.flag" (list "backend-security-group" .backendSecurityGroup) }}
{{- include "albatross.flag" (list "enable-manage-backend-security-group-rules" .enableManageBackendSecurityGroupRules) }}
{{- include "albatross.flag" (list "disable-restricted-sg-rules" .disableRestrictedSecurityGroupRules) }}
{{- include "albatross.flag" (list "enable-wafv2" .enableWafv2) }}
{{- include "albatross.flag" (list "enable-shield" .enableShield) }}
{{- include "albatross.flag" (list "service-target-eni-security-group-tags" .serviceTargetENISGTags) }}
{{- include "albatross.flag" (list "max-targets-per-target-group" .maxTargetsPerTargetGroup) }}
{{- include "albatross.flag" (list "ingress-max-concurrent-reconciles" .ingressMaxConcurrentReconciles) }}
{{- include "albatross.flag" (list "targetgroupbinding-max-concurrent-reconciles" .targetgroupbindingMaxConcurrentReconciles) }}
{{- include "albatross.flag" (list "targetgroupbinding-requeue-duration" .targetgroupbindingRequeueDuration) }}
{{- include "albatross.flag" (list "sync-period" .syncPeriod) }}
{{- include "albatross.flag" (list "replaced-load-balancer-hold" .replacedLoadBalancerHold) }}
{{- include "albatross.flag" (list "replaced-listener-hold" .replacedListenerHold) }}
{{- include "albatross.flag" (list "target-health-deadline" .targetHealthDeadline) }}
{{- include "albatross.flag" (list "propagation-time" .propagationTime) }}
{{- include "albatross.flag" (list "watch-namespace" .watchNamespace) }}
{{- include "albatross.flag" (list "feature-gates" .controllerConfig.featureGates) }}
{{- include "albatross.flag" (list "metrics-bind-addr" .metricsBindAddr) }}
{{- include "albatross.flag" (list "health-probe-bind-addr" .healthProbeBindAddr) }}
{{- include "albatross.flag" (list "debug-bind-addr" .debugBindAddr) }}
{{- include "albatross.flag" (list "log-level" .logLevel) }}
{{- include "albatross.flag" (list "log-format" .logFormat) }}
{{- include "albatross.flag" (list "enable-pod-readiness-gate-inject" .enablePodReadinessGateInject) }}
{{- include "albatross.flag" (list "disable-ingress-class-annotation" .disableIngressClassAnnotation) }}
{{- include "albatross.flag" (list "disable-ingress-group-name-annotation" .disableIngressGroupNameAnnotation) }}
{{- end }}
{{- if ne $certificate "none" }}
{{- include "albatross.flag" (list "enable-webhooks" true) }}
{{- include "albatross.flag" (list "webhook-bind-port" .Values.webhookBindPort) }}
{{- if eq $certificate "controller" }}
{{- include "albatross.flag" (list "webhook-service-name" (printf "%s-webhook-service" (include "albatross.fullname" .))) }}
{{- include "albatross.flag" (list "webhook-secret-name" (printf "%s-certificate" (include "albatross.fullname" .))) }}
{{- include "albatross.flag" (list "webhook-configuration-name" (printf "%s-webhook" (include "albatross.fullname" .))) }}
{{- else }}
{{- include "albatross.flag" (list "webhook-cert-dir" "/etc/albatross/webhook") }}
{{- end }}
{{- end }}
{{- range $flag, $value := include "albatross.withoutEffect" . | fromYaml }}
{{- include "albatross.flag" (list $flag $value) }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Flags that albatross takes and that do nothing yet, with their values. The log and NOTES.txt name those that are given. */}}
{{- define "albatross.withoutEffect" -}}
{{- $v := .Values -}}
{{- dict
  "alb-gateway-max-concurrent-reconciles" $v.albGatewayMaxConcurrentReconciles
  "enable-endpoint-slices" $v.enableEndpointSlices
  "enable-waf" $v.enableWaf
  "globalaccelerator-max-concurrent-reconciles" $v.globalAcceleratorMaxConcurrentReconciles
  "globalaccelerator-max-exponential-backoff-delay" $v.globalAcceleratorMaxExponentialBackoffDelay
  "lb-stabilization-monitor-interval" $v.lbStabilizationMonitorInterval
  "nlb-gateway-max-concurrent-reconciles" $v.nlbGatewayMaxConcurrentReconciles
  "service-max-concurrent-reconciles" $v.serviceMaxConcurrentReconciles
  "targetgroupbinding-max-exponential-backoff-delay" $v.targetgroupbindingMaxExponentialBackoffDelay
  | toYaml -}}
{{- end -}}

{{/* Feature gates of aws-load-balancer-controller that are taken and that do nothing yet. */}}
{{- define "albatross.gatesWithoutEffect" -}}
ALBGatewayAPI ALBTargetControlAgent EnableRGTAPI GatewayListenerSet GlobalAcceleratorController NLBGatewayAPI
{{- end -}}

{{/* Every value that there is. */}}
{{- define "albatross.values" -}}
additionalLabels affinity albGatewayMaxConcurrentReconciles autoscaling awsApiEndpoints awsApiThrottle awsMaxRetries backendSecurityGroup certDiscovery certManagement certManager cluster clusterName clusterSecretsPermissions configureDefaultAffinity controllerConfig createIngressClassResource creator debugBindAddr defaultLoadBalancerScheme defaultSSLPolicy defaultTags defaultTargetType deploymentAnnotations disableIngressClassAnnotation disableIngressGroupNameAnnotation disableRestrictedSecurityGroupRules dnsPolicy enableBackendSecurityGroup enableCertManager enableEndpointSlices enableManageBackendSecurityGroupRules enablePodReadinessGateInject enableServiceMutatorWebhook enableShield enableWaf enableWafv2 env envFrom envSecretName externalManagedTags extraArgs extraVolumeMounts extraVolumes fullnameOverride globalAcceleratorMaxConcurrentReconciles globalAcceleratorMaxExponentialBackoffDelay grafanaDashboard healthProbeBindAddr hostNetwork image imagePullSecrets ingressClass ingressClassConfig ingressClassParams ingressMaxConcurrentReconciles keepTLSSecret lbStabilizationMonitorInterval livenessProbe loadBalancerClass logFormat logLevel maxTargetsPerTargetGroup metricsBindAddr nameOverride networkPolicy nlbGatewayMaxConcurrentReconciles nodeSelector objectSelector podAnnotations podDisruptionBudget podLabels podMutatorWebhookConfig podSecurityContext priorityClassName propagationTime rbac readinessProbe region replacedListenerHold replacedLoadBalancerHold replicaCount resources revisionHistoryLimit runtimeClassName securityContext serviceAccount serviceAnnotations serviceMaxConcurrentReconciles serviceMonitor serviceMutatorWebhookConfig serviceTargetENISGTags syncPeriod targetgroupbindingMaxConcurrentReconciles targetgroupbindingMaxExponentialBackoffDelay targetgroupbindingRequeueDuration terminationGracePeriodSeconds targetHealthDeadline tolerateNonExistentBackendAction tolerateNonExistentBackendService tolerations topologySpreadConstraints updateStrategy vpcId vpcTags watchNamespace webhookBindPort webhookConfig webhookNamespaceSelectors webhookTLS webhooks
{{- end -}}

{{/* What every webhook says in the same way: where it is served, and that it changes nothing else. */}}
{{- define "albatross.webhookClient" -}}
{{- $root := index . 0 -}}
admissionReviewVersions: [v1]
sideEffects: None
timeoutSeconds: 5
clientConfig:
  service:
    name: {{ include "albatross.fullname" $root }}-webhook-service
    namespace: {{ $root.Release.Namespace }}
    path: {{ index . 1 }}
  {{- with index . 2 }}
  caBundle: {{ . }}
  {{- end }}
{{- end -}}
