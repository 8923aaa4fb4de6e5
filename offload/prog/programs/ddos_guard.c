/* Denial of service: each source gets a bucket of packets and one of TCP SYNs, and each destination one of the
 * SYNs it may get from all sources together, forged ones too. Buckets fill with time; what finds one of its buckets
 * empty is dropped. Addresses that were not heard of for longest are forgotten first. Where several workers
 * take from a bucket at once, one of them may go uncounted. */
#include "dash_bpf.h"

struct limit {
	__u32 per_second;
	__u32 at_once; /* what the bucket holds; 0: no limit */
};

/* limits[0], written by control. */
struct limits {
	struct limit packets, syns; /* of one source */
	struct limit syns_to;	    /* of one destination */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct limits);
} limits SEC(".maps");

struct address {
	__u8 bytes[16];
};

/* What is in the buckets, in billionths of a packet, and when that was. */
struct source {
	__u64 packets, syns, at;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct address);
	__type(value, struct source);
} sources SEC(".maps");

struct target {
	__u64 syns, at;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct address);
	__type(value, struct target);
} targets SEC(".maps");

enum why {
	OVER_PACKETS,
	OVER_SYNS,
	OVER_SYNS_TO,
	REASONS,
};

/* Packets dropped, by enum why. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, __u64);
} dropped SEC(".maps");

#define WHOLE 1000000000ull

static __always_inline __u64 full(const struct limit *limit)
{
	return limit->at_once * WHOLE;
}

/* What is in a bucket after `elapsed` ns more. */
static __always_inline __u64 fill(__u64 level, __u64 elapsed, const struct limit *limit)
{
	__u64 most = full(limit), rate = limit->per_second;

	/* Seldom; below, the product does not overflow. */
	if (elapsed > 2 * WHOLE && rate && elapsed > most / rate)
		return most;
	level += elapsed * rate;
	return level > most ? most : level;
}

/* Takes a packet out of a bucket; 0 if there is none in it. */
static __always_inline int take(__u64 *level, const struct limit *limit)
{
	if (!limit->at_once)
		return 1;
	if (*level < WHOLE)
		return 0;
	*level -= WHOLE;
	return 1;
}

static __always_inline int drop(__u32 why)
{
	__u64 *count = bpf_map_lookup_elem(&dropped, &why);
	if (count)
		(*count)++;
	return XDP_DROP;
}

SEC("xdp")
int ddos_guard(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet p;
	struct address from, to;
	__u32 zero = 0;

	struct limits *limit = bpf_map_lookup_elem(&limits, &zero);
	if (!limit || !parse(data, end, &p))
		return XDP_PASS;
	__builtin_memcpy(from.bytes, p.src, 16);
	__u64 now = bpf_ktime_get_ns();
	struct source *source = bpf_map_lookup_elem(&sources, &from);
	if (!source) {
		struct source fresh = {
			.packets = full(&limit->packets),
			.syns = full(&limit->syns),
			.at = now,
		};
		bpf_map_update_elem(&sources, &from, &fresh, BPF_NOEXIST);
		source = bpf_map_lookup_elem(&sources, &from);
		if (!source)
			return XDP_PASS;
	}
	__u64 elapsed = now - source->at;
	source->at = now;
	source->packets = fill(source->packets, elapsed, &limit->packets);
	source->syns = fill(source->syns, elapsed, &limit->syns);
	if (!take(&source->packets, &limit->packets))
		return drop(OVER_PACKETS);
	if ((p.tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return XDP_PASS;
	if (!take(&source->syns, &limit->syns))
		return drop(OVER_SYNS);
	if (!limit->syns_to.at_once)
		return XDP_PASS;

	__builtin_memcpy(to.bytes, p.dst, 16);
	struct target *target = bpf_map_lookup_elem(&targets, &to);
	if (!target) {
		struct target fresh = {.syns = full(&limit->syns_to), .at = now};
		bpf_map_update_elem(&targets, &to, &fresh, BPF_NOEXIST);
		target = bpf_map_lookup_elem(&targets, &to);
		if (!target)
			return XDP_PASS;
	}
	elapsed = now - target->at;
	target->at = now;
	target->syns = fill(target->syns, elapsed, &limit->syns_to);
	if (!take(&target->syns, &limit->syns_to))
		return drop(OVER_SYNS_TO);
	return XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
