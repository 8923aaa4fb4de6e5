/* Counts packets and bytes by IP protocol; lets everything pass. */
#include "dash_bpf.h"

struct count {
	__u64 packets, bytes;
};

/* By protocol number; 255 for what is not IP. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct count);
} protocols SEC(".maps");

SEC("xdp")
int proto_count(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct eth *eth = data;
	__u32 proto = 255;

	if ((void *)(eth + 1) <= end) {
		struct ipv4 *v4 = (void *)(eth + 1);
		struct ipv6 *v6 = (void *)(eth + 1);
		if (eth->type == htons(ETH_IPV4) && (void *)(v4 + 1) <= end)
			proto = v4->proto;
		else if (eth->type == htons(ETH_IPV6) && (void *)(v6 + 1) <= end)
			proto = v6->next;
	}
	struct count *count = bpf_map_lookup_elem(&protocols, &proto);
	if (count) {
		count->packets++;
		count->bytes += (long)end - (long)data;
	}
	return XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
