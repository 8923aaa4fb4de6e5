/* L4 load balancer: packets to a service's address and port get the address and MAC of one of its backends,
 * the same one for all packets of a connection, and checksums follow. Where the packet goes then is the
 * service's: XDP_TX, back out of the port, or XDP_PASS, on through the pipeline. IPv4. */
#include "dash_bpf.h"

struct service {
	__be32 address;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

struct backends {
	__u32 first, count; /* elements of `backends` */
	__u32 action;	    /* XDP_TX or XDP_PASS */
};

struct backend {
	__be32 address;
	__u8 mac[6];
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct service);
	__type(value, struct backends);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

static __always_inline __u32 mix(__u32 h, __u32 word)
{
	h = (h ^ word) * 0x9e3779b1u;
	return h ^ (h >> 15);
}

SEC("xdp")
int load_balancer(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct eth *eth = data;
	struct ipv4 *ip = (void *)(eth + 1);
	struct packet p;

	if (!parse(data, end, &p) || p.v6 || !p.l4)
		return XDP_PASS;
	/* parse() has seen it, the verifier of Linux wants to see it again. */
	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	struct service key = {.address = ip->dst, .port = p.dport, .proto = p.proto};
	struct backends *service = bpf_map_lookup_elem(&services, &key);
	if (!service || !service->count)
		return XDP_PASS;
	__u32 hash = mix(mix(mix(0, ip->src), (__u32)p.sport << 16 | p.dport), p.proto);
	__u32 at = service->first + hash % service->count;
	struct backend *backend = bpf_map_lookup_elem(&backends, &at);
	if (!backend)
		return XDP_DROP;

	__u32 before = ip->dst, after = backend->address;
	__u16 was[2] = {before & 0xffff, before >> 16}, is[2] = {after & 0xffff, after >> 16};
	ip->check = checksum_after(checksum_after(ip->check, was[0], is[0]), was[1], is[1]);
	if (p.proto == PROTO_TCP) {
		struct tcp *tcp = (void *)(ip + 1);
		if ((void *)(tcp + 1) > end)
			return XDP_PASS;
		tcp->check = checksum_after(checksum_after(tcp->check, was[0], is[0]), was[1], is[1]);
	} else {
		struct udp *udp = (void *)(ip + 1);
		if ((void *)(udp + 1) > end)
			return XDP_PASS;
		/* 0 is no checksum, and is written 0xffff. */
		if (udp->check) {
			__u16 check = checksum_after(checksum_after(udp->check, was[0], is[0]), was[1], is[1]);
			udp->check = check ? check : 0xffff;
		}
	}
	ip->dst = after;
	__builtin_memcpy(eth->src, eth->dst, 6);
	__builtin_memcpy(eth->dst, backend->mac, 6);
	return service->action == XDP_TX ? XDP_TX : XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
