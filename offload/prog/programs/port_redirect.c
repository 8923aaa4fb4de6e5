/* Sends what comes in by a port out of another, as a patch cable does; ports without one pass. */
#include "dash_bpf.h"

/* By the number of the port a packet comes in by. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 256);
	__uint(key_size, 4);
	__uint(value_size, 4);
} ports SEC(".maps");

SEC("xdp")
int port_redirect(struct xdp_md *ctx)
{
	return bpf_redirect_map(&ports, ctx->ingress_ifindex, XDP_PASS);
}

char _license[] SEC("license") = "Apache-2.0";
