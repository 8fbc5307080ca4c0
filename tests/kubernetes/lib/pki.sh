# Keys and certificates of the test cluster, made once per state folder with openssl. Sourced.
# shellcheck shell=bash

issue() { # name, subject, [subjectAltName]
  local name=$1 subject=$2 names=${3:-}
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$subject" \
    -keyout "$pki/$name.key" -out "$pki/$name.csr" 2>/dev/null
  local extension="extendedKeyUsage=clientAuth,serverAuth"
  [ -z "$names" ] || extension+=$'\n'"subjectAltName=$names"
  openssl x509 -req -in "$pki/$name.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial \
    -days 3650 -out "$pki/$name.crt" -extfile <(printf '%s\n' "$extension") 2>/dev/null
}

kubeconfig() { # certificate name, file
  cat >"$2" <<EOF
apiVersion: v1
kind: Config
clusters:
- name: leasehold-test
  cluster: {server: "https://$api_address:6443", certificate-authority: $pki/ca.crt}
users:
- name: me
  user: {client-certificate: $pki/$1.crt, client-key: $pki/$1.key}
contexts:
- name: leasehold-test
  context: {cluster: leasehold-test, user: me}
current-context: leasehold-test
EOF
}

make_pki() {
  [ ! -f "$pki/.complete" ] || return 0
  mkdir -p "$pki"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -subj /CN=leasehold-test -keyout "$pki/ca.key" -out "$pki/ca.crt" 2>/dev/null
  openssl genrsa -out "$pki/sa.key" 2048 2>/dev/null
  openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub" 2>/dev/null
  issue apiserver /CN=kube-apiserver \
    "IP:$api_address,IP:127.0.0.1,IP:198.19.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  issue admin /O=system:masters/CN=admin
  issue controller-manager /CN=system:kube-controller-manager
  issue scheduler /CN=system:kube-scheduler
  issue proxy /CN=system:kube-proxy
  local i
  for i in "${nodes[@]}"; do
    issue "node$i" "/O=system:nodes/CN=system:node:node$i" "IP:$(node_address "$i")"
    kubeconfig "node$i" "$state/node$i.kubeconfig"
  done
  kubeconfig admin "$admin"
  for i in controller-manager scheduler proxy; do kubeconfig "$i" "$state/$i.kubeconfig"; done
  touch "$pki/.complete"
}
