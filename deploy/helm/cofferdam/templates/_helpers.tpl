{{- define "cofferdam.name" -}}
{{- .Chart.Name -}}
{{- end }}

{{- define "cofferdam.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "cofferdam.selector" -}}
app.kubernetes.io/name: {{ include "cofferdam.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: worker
{{- end }}

{{- define "cofferdam.labels" -}}
{{ include "cofferdam.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "cofferdam.image" -}}
{{- $image := .image -}}
{{ $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Two minutes: TEARDOWN in src/worker.rs, what sessions get after the drain to be put away. */}}
{{- define "cofferdam.graceSeconds" -}}
{{ add .Values.drain.seconds 120 .Values.drain.marginSeconds }}
{{- end }}

{{- define "cofferdam.sandboxNamespace" -}}
{{ .Values.sandboxes.namespace | default (printf "%s-sandboxes" .Release.Namespace) }}
{{- end }}

{{/* What no schema can say. Each ends the rendering with its own reason. */}}
{{- define "cofferdam.check" -}}
{{- if not .Values.secrets.broker.name }}{{ fail "secrets.broker.name: name the Secret that holds the broker's address (amqps://USER:PASSWORD@HOST/VHOST)" }}{{ end }}
{{- if not .Values.config }}{{ fail "config: give the worker its config.toml; deploy/config.example.toml is one to begin with" }}{{ end }}
{{- if regexMatch "(?m)^\\s*url\\s*=\\s*[\"']amqps?://[^/\"']*:[^/\"']*@" .Values.config }}{{ fail "config: the broker's address with its password stands there: put it into a Secret and name that in secrets.broker" }}{{ end }}
{{- range $key := list "state_dir" "drain_s" "concurrency" }}
{{- if regexMatch (printf "(?m)^\\s*%s\\s*=" $key) $.Values.config }}{{ fail (printf "config: %s is set by the chart, take it out" $key) }}{{ end }}
{{- end }}
{{- $given := list "COFFERDAM_AMQP_URL" "OTEL_EXPORTER_OTLP_ENDPOINT" "COFFERDAM__QUEUE__URL_ENV" "COFFERDAM__QUEUE__PREFIX" "COFFERDAM__STATE_DIR" "COFFERDAM__DRAIN_S" "COFFERDAM__CONCURRENCY" "COFFERDAM__ADMIN__LISTEN" "COFFERDAM__CREDENTIALS__DIRECTORY" "COFFERDAM__CREDENTIALS__IDENTITIES" "COFFERDAM__SANDBOX__DOCKER_SOCKET" "COFFERDAM__SANDBOX__PULL" "COFFERDAM__SANDBOX__BACKEND" "COFFERDAM__SANDBOX__RUNTIME" }}
{{- range $name, $value := .Values.variables }}
{{- if or (has $name $given) (hasPrefix "COFFERDAM__SANDBOX__KUBERNETES__" $name) }}{{ fail (printf "variables.%s: the chart sets it, by a value of its own" $name) }}{{ end }}
{{- if or (regexMatch "(?i)(key|token|secret|passw(or)?d|credential)s?$" $name) (regexMatch "://[^/@]*:[^/@]*@" (toString $value)) }}{{ fail (printf "variables.%s: it looks like a secret: put it into a Secret, and name that in secrets.environment" $name) }}{{ end }}
{{- range $.Values.secrets.environment }}{{ if eq .variable $name }}{{ fail (printf "variables.%s: it is in secrets.environment too, take one of them out" $name) }}{{ end }}{{ end }}
{{- end }}
{{- if .Values.networkPolicy.enabled }}
{{- if and .Values.traces.endpoint (not (hasKey .Values.networkPolicy.exits "traces")) }}{{ fail "networkPolicy.exits.traces: say where the collector of traces.endpoint is, or no span reaches it" }}{{ end }}
{{- if not (hasKey .Values.networkPolicy.exits "broker") }}{{ fail "networkPolicy.exits.broker: say where the broker is, or no worker reaches it" }}{{ end }}
{{- if and .Values.monitoring.podMonitor (not .Values.networkPolicy.scrapers) }}{{ fail "networkPolicy.scrapers: name the namespace of your Prometheus by its labels, or nobody reads the metrics" }}{{ end }}
{{- if and (eq .Values.backend "kubernetes") (not (hasKey .Values.networkPolicy.exits "kubernetes")) }}{{ fail "networkPolicy.exits.kubernetes: say where the API server is, or no sandbox can be made" }}{{ end }}
{{- end }}
{{- if and (eq .Values.form "scaledjob") (le (int .Values.scaledjob.deadlineSeconds) (int .Values.scaledjob.idleSeconds)) }}{{ fail "scaledjob.deadlineSeconds: must be more than scaledjob.idleSeconds, and than a session takes" }}{{ end }}
{{- if and (eq .Values.form "scaledjob") (lt (int .Values.scaledjob.maxReplicas) (int .Values.scaledjob.minReplicas)) }}{{ fail "scaledjob.maxReplicas: must not be less than scaledjob.minReplicas" }}{{ end }}
{{- if and (eq .Values.backend "kubernetes") (eq (include "cofferdam.sandboxNamespace" .) .Release.Namespace) }}{{ fail "sandboxes.namespace: must not be the workers' own: who may make pods there could mount the workers' Secrets" }}{{ end }}
{{- end }}

{{/* The pod of both forms. Given: root, arguments, restartPolicy. */}}
{{- define "cofferdam.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $docker := eq $values.backend "docker" -}}
{{- $userns := eq $values.engine.walls "userns" -}}
metadata:
  labels:
    {{- include "cofferdam.labels" $root | nindent 4 }}
    {{- with $values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    # A changed configuration is another pod.
    checksum/config: {{ $values.config | sha256sum }}
    kubectl.kubernetes.io/default-container: worker
    cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
    karpenter.sh/do-not-disrupt: "true"
    {{- with $values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  serviceAccountName: {{ include "cofferdam.fullname" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "cofferdam.graceSeconds" $root }}
  {{- if and $docker $userns }}
  # Root of the pod is nobody of the node.
  hostUsers: false
  {{- end }}
  {{- with $values.runtimeClass }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with $values.priorityClass }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{ include "cofferdam.selector" $root | nindent 10 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 1000
    runAsGroup: 1000
    fsGroup: 1000
    seccompProfile: {type: RuntimeDefault}
  {{- if or $docker $values.secrets.identities.name }}
  initContainers:
    {{- if $docker }}
    # What the engine is shown of the volume is made before, as the worker's user: nobody else could close it.
    - name: directories
      image: {{ include "cofferdam.image" (dict "image" $values.image "root" $root) }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [/usr/bin/install, -d, -m, "0700"]
      args: [/var/lib/cofferdam/state, /var/lib/cofferdam/state/sandboxes, /var/lib/cofferdam/state/inside, /var/lib/cofferdam/engine]
      securityContext: {{ include "cofferdam.sealed" $root | nindent 8 }}
      resources:
        requests: {cpu: 10m, memory: 16Mi}
        limits: {memory: 64Mi}
      volumeMounts:
        - {name: state, mountPath: /var/lib/cofferdam}
    # A sidecar: it starts before the worker and ends after it.
    - name: engine
      image: {{ include "cofferdam.image" (dict "image" $values.engine.image "root" $root) }}
      imagePullPolicy: {{ $values.engine.image.pullPolicy }}
      restartPolicy: Always
      {{- with $values.engine.arguments }}
      env:
        - name: ENGINE_ARGUMENTS
          value: {{ join " " . | quote }}
      {{- end }}
      securityContext:
        {{- if $userns }}
        # What a rootless engine needs: name spaces and mounts (no profiles), a /proc for each sandbox, newuidmap (two capabilities, by a file).
        allowPrivilegeEscalation: true
        appArmorProfile: {type: Unconfined}
        procMount: Unmasked
        capabilities:
          drop: [ALL]
          add: [SETUID, SETGID]
        {{- else }}
        privileged: true
        {{- end }}
        readOnlyRootFilesystem: true
        runAsNonRoot: true
        runAsUser: 1000
        runAsGroup: 1000
        seccompProfile: {type: Unconfined}
      startupProbe:
        exec:
          command: [docker, version]
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 60
      resources: {{ toYaml $values.engine.resources | nindent 8 }}
      volumeMounts:
        # Of the worker's volume only what it mounts into sandboxes, by the same paths, and its own socket: no mirrors, no staging, no kept work.
        - {name: state, mountPath: /var/lib/cofferdam/engine, subPath: engine}
        - {name: state, mountPath: /var/lib/cofferdam/state/sandboxes, subPath: state/sandboxes}
        - {name: state, mountPath: /var/lib/cofferdam/state/inside, subPath: state/inside, readOnly: true}
        - {name: engine, mountPath: /var/lib/engine}
        - {name: engine-run, mountPath: /run/engine}
        - {name: engine-home, mountPath: /home/engine}
        - {name: engine-tmp, mountPath: /tmp}
    {{- end }}
    {{- with $values.secrets.identities.name }}
    # The worker takes private keys only from files that nobody else may read, which a Secret's are not where fsGroup is set.
    - name: identities
      image: {{ include "cofferdam.image" (dict "image" $values.image "root" $root) }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [/usr/bin/install, -m, "0600", -t, /keys]
      args:
        {{- range $values.secrets.identities.keys }}
        - /secret/{{ . }}
        {{- end }}
      securityContext: {{ include "cofferdam.sealed" $root | nindent 8 }}
      resources:
        requests: {cpu: 10m, memory: 16Mi}
        limits: {memory: 64Mi}
      volumeMounts:
        - {name: secret-identities, mountPath: /secret, readOnly: true}
        - {name: identities, mountPath: /keys}
    {{- end }}
  {{- end }}
  containers:
    - name: worker
      image: {{ include "cofferdam.image" (dict "image" $values.image "root" $root) }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args: {{ toJson .arguments }}
      env:
        - name: COFFERDAM_AMQP_URL
          valueFrom:
            secretKeyRef: {{ toYaml $values.secrets.broker | nindent 14 }}
        {{- range $values.secrets.environment }}
        - name: {{ .variable }}
          valueFrom:
            secretKeyRef:
              name: {{ .name }}
              key: {{ .key }}
        {{- end }}
        {{- range $name, $value := $values.variables }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
        {{- with $values.traces.endpoint }}
        - name: OTEL_EXPORTER_OTLP_ENDPOINT
          value: {{ . | quote }}
        {{- end }}
        - name: COFFERDAM__QUEUE__URL_ENV
          value: COFFERDAM_AMQP_URL
        - name: COFFERDAM__QUEUE__PREFIX
          value: {{ $values.queue.prefix | quote }}
        - name: COFFERDAM__STATE_DIR
          value: /var/lib/cofferdam/state
        - name: COFFERDAM__DRAIN_S
          value: {{ $values.drain.seconds | int | quote }}
        - name: COFFERDAM__CONCURRENCY
          value: {{ ternary 1 ($values.concurrency | int) (eq $values.form "scaledjob") | quote }}
        - name: COFFERDAM__ADMIN__LISTEN
          value: {{ printf "%s:9464" $values.listen | quote }}
        {{- if $values.secrets.tokens }}
        - name: COFFERDAM__CREDENTIALS__DIRECTORY
          value: /etc/cofferdam/tokens
        {{- end }}
        {{- if $values.secrets.identities.name }}
        - name: COFFERDAM__CREDENTIALS__IDENTITIES
          value: {{ include "cofferdam.identities" $root | quote }}
        {{- end }}
        {{- if $docker }}
        - name: COFFERDAM__SANDBOX__DOCKER_SOCKET
          value: /var/lib/cofferdam/engine/engine.sock
        # A new pod's engine has no image.
        - name: COFFERDAM__SANDBOX__PULL
          value: "true"
        {{- else }}
        {{- include "cofferdam.kubernetesEnvironment" $root | nindent 8 }}
        {{- end }}
      ports:
        - {name: admin, containerPort: 9464}
        {{- if not $docker }}
        - {name: gateway, containerPort: {{ $values.sandboxes.gatewayPort }}}
        {{- end }}
      securityContext: {{ include "cofferdam.sealed" $root | nindent 8 }}
      startupProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 20
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
      lifecycle:
        preStop:
          exec:
            # Until the worker has ended; a SIGTERM meanwhile would be its second word, and end sessions at once.
            command: [/usr/local/bin/cofferdam, drain, --wait]
      resources: {{ toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: state, mountPath: /var/lib/cofferdam}
        - {name: tmp, mountPath: /tmp}
        - {name: config, mountPath: /etc/cofferdam/config.toml, subPath: config.toml, readOnly: true}
        {{- if $values.secrets.tokens }}
        - {name: tokens, mountPath: /etc/cofferdam/tokens, readOnly: true}
        {{- end }}
        {{- if $values.secrets.identities.name }}
        - {name: identities, mountPath: /etc/cofferdam/keys, readOnly: true}
        {{- end }}
        {{- if not $docker }}
        - {name: kubernetes, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
        {{- end }}
  volumes:
    - name: state
      emptyDir: {sizeLimit: {{ $values.state.size }}}
    - name: tmp
      emptyDir: {sizeLimit: 1Gi}
    - name: config
      configMap: {name: {{ include "cofferdam.fullname" $root }}}
    {{- with $values.secrets.tokens }}
    - name: tokens
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- with $values.secrets.identities.name }}
    - name: secret-identities
      secret: {secretName: {{ . }}, defaultMode: 0440}
    - name: identities
      emptyDir: {medium: Memory, sizeLimit: 1Mi}
    {{- end }}
    {{- if $docker }}
    - name: engine
      emptyDir: {sizeLimit: {{ $values.engine.size }}}
    - name: engine-run
      emptyDir: {medium: Memory, sizeLimit: 64Mi}
    - name: engine-home
      emptyDir: {medium: Memory, sizeLimit: 16Mi}
    - name: engine-tmp
      emptyDir: {sizeLimit: 1Gi}
    {{- else }}
    # The only token, and only in the worker's own container.
    - name: kubernetes
      projected:
        defaultMode: 0440
        sources:
          - serviceAccountToken: {path: token, expirationSeconds: 3600}
          - configMap:
              name: kube-root-ca.crt
              items: [{key: ca.crt, path: ca.crt}]
          - downwardAPI:
              items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
    {{- end }}
{{- end }}

{{- define "cofferdam.sealed" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "cofferdam.identities" -}}
{{- $paths := list -}}
{{- range .Values.secrets.identities.keys }}{{ $paths = append $paths (printf "/etc/cofferdam/keys/%s" .) }}{{ end -}}
{{ toJson $paths }}
{{- end }}

{{/* What the worker has to know for the backend kubernetes. */}}
{{- define "cofferdam.kubernetesEnvironment" -}}
- name: COFFERDAM__SANDBOX__BACKEND
  value: kubernetes
- name: COFFERDAM__SANDBOX__KUBERNETES__NAMESPACE
  value: {{ include "cofferdam.sandboxNamespace" . }}
- name: COFFERDAM__SANDBOX__KUBERNETES__LISTEN
  value: {{ printf "%s:%d" .Values.listen (.Values.sandboxes.gatewayPort | int) | quote }}
# Nodes pull what they do not have, the tools too.
- name: COFFERDAM__SANDBOX__PULL
  value: "true"
- name: COFFERDAM__SANDBOX__KUBERNETES__TOOLS_IMAGE
  value: {{ include "cofferdam.image" (dict "image" .Values.image "root" .) }}
{{- with .Values.sandboxes.pullSecrets }}
- name: COFFERDAM__SANDBOX__KUBERNETES__PULL_SECRETS
  value: {{ toJson . | quote }}
{{- end }}
{{- with .Values.sandboxes.seccompProfile }}
- name: COFFERDAM__SANDBOX__KUBERNETES__SECCOMP_PROFILE
  value: {{ . | quote }}
{{- end }}
{{- with .Values.sandboxes.runtimeClass }}
- name: COFFERDAM__SANDBOX__RUNTIME
  value: {{ . }}
{{- end }}
- name: COFFERDAM__SANDBOX__KUBERNETES__ADVERTISE
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: COFFERDAM__SANDBOX__KUBERNETES__POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: COFFERDAM__SANDBOX__KUBERNETES__POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
{{- end }}
