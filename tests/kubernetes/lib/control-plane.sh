# etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kube-proxy as host processes. Sourced.
# shellcheck shell=bash

start_etcd() {
  start etcd "$bin/etcd" --name leasehold --data-dir "$state/etcd" \
    --listen-client-urls http://127.0.0.1:12379 --advertise-client-urls http://127.0.0.1:12379 \
    --listen-peer-urls http://127.0.0.1:12380 --initial-advertise-peer-urls http://127.0.0.1:12380 \
    --initial-cluster leasehold=http://127.0.0.1:12380 --log-level warn
}

start_apiserver() {
  start kube-apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:12379 \
    --advertise-address="$api_address" --bind-address=0.0.0.0 --secure-port=6443 \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --client-ca-file="$pki/ca.crt" --service-account-key-file="$pki/sa.pub" \
    --service-account-signing-key-file="$pki/sa.key" \
    --service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range=198.19.0.0/16 \
    --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
    --kubelet-preferred-address-types=InternalIP --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction --shutdown-delay-duration=0s
}

api_ready() { kube get --raw /readyz; }

start_control_plane() {
  start_etcd
  start_apiserver
  wait_for "the API server (see $logs/kube-apiserver.log)" 60 api_ready
  start kube-controller-manager "$bin/kube-controller-manager" \
    --kubeconfig="$state/controller-manager.kubeconfig" --controllers='*,-nodeipam' \
    --leader-elect=false --use-service-account-credentials --root-ca-file="$pki/ca.crt" \
    --service-account-private-key-file="$pki/sa.key" \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
    --node-monitor-grace-period=20s
  start kube-scheduler "$bin/kube-scheduler" --kubeconfig="$state/scheduler.kubeconfig" \
    --leader-elect=false
  # All nodes share this machine's network, so one proxy serves them all.
  start kube-proxy "$bin/kube-proxy" --kubeconfig="$state/proxy.kubeconfig" --proxy-mode iptables \
    --conntrack-max-per-core 0 --hostname-override node1 --cluster-cidr 198.18.0.0/17 \
    --masquerade-all
}

stop_control_plane() {
  local name
  for name in kube-proxy kube-scheduler kube-controller-manager; do stop "$name"; done
  # A clean stop of these two waits for watchers that are gone already.
  for name in kube-apiserver etcd; do stop "$name" KILL; done
}
