/* Mirrors packets to whoever reads the ring buffer: the first bytes of one in so many; lets all pass. */
#include "dash_bpf.h"

#define SNAP 256

struct mirrored {
	__u32 len;  /* of the packet */
	__u32 kept; /* bytes that follow are the packet's; the rest is zero */
	__u32 port; /* it came in by */
	__u32 place; /* enum dash_place; 0 on Linux */
	__u8 data[SNAP];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} packets SEC(".maps");

/* one_in[0], written by control: one packet in so many; 0 as 1. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} one_in SEC(".maps");

/* Packets that came. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

DASH_META;

SEC("xdp")
int mirror(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 len = end - data;
	__u32 zero = 0;
	__u32 *every = bpf_map_lookup_elem(&one_in, &zero);
	__u64 *count = bpf_map_lookup_elem(&seen, &zero);

	if (!every || !count)
		return XDP_PASS;
	__u64 nth = (*count)++;
	if (*every && nth % *every)
		return XDP_PASS;
	struct mirrored *copy = bpf_ringbuf_reserve(&packets, sizeof *copy, 0);
	if (!copy)
		return XDP_PASS;
	__u64 kept = len > SNAP ? SNAP : len;
	/* The compiler knows the bounds; verifiers are to be shown them once more. */
	asm volatile("" : "+r"(kept));
	const struct dash_meta *meta = dash_packet_meta();
	copy->len = len;
	copy->kept = kept;
	copy->port = ctx->ingress_ifindex;
	copy->place = meta ? meta->place : 0;
	__builtin_memset(copy->data, 0, SNAP);
	if (kept == 0 || kept > SNAP || bpf_xdp_load_bytes(ctx, 0, copy->data, kept)) {
		bpf_ringbuf_discard(copy, 0);
		return XDP_PASS;
	}
	bpf_ringbuf_submit(copy, 0);
	return XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
