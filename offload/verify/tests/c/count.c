// Packets and bytes by protocol in an array, the last time of a source in a hash.
#include "common.h"

struct count {
	u64 packets, bytes;
};

struct {
	__uint(type, MAP_PERCPU_ARRAY);
	__type(key, u32);
	__type(value, struct count);
	__uint(max_entries, 256);
} counts SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__type(key, u32);
	__type(value, u64);
	__uint(max_entries, 1024);
} seen SEC(".maps");

SEC("xdp")
int count(struct xdp_md *ctx)
{
	void *data = DATA(ctx), *end = END(ctx);
	struct eth *eth = data;
	struct ipv4 *ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	u32 key = ip->proto;
	struct count *c = map_lookup(&counts, &key);
#ifndef BAD
	if (!c)
		return XDP_ABORTED;
#endif
	c->packets++;
	c->bytes += end - data;
	u32 source = ip->src;
	u64 now = ktime(), *last = map_lookup(&seen, &source);
	if (last) {
		if (now - *last < 1000)
			return XDP_DROP;
		__sync_fetch_and_add(last, now - *last);
	} else {
		map_update(&seen, &source, &now, 0);
	}
	return XDP_PASS;
}
