/* Exports flows: counts packets and bytes of each direction of a connection, and writes a record to a ring
 * buffer when one begins, when TCP ends it, and every so many packets. Lets everything pass. */
#include "dash_bpf.h"

struct flow {
	__u8 src[16], dst[16];
	__be16 sport, dport;
	__u8 proto, v6;
	__u16 pad;
	__u32 eni; /* as dash_meta says; 0 on Linux */
	__u32 pad2;
};

struct counts {
	__u64 packets, bytes;
};

enum {
	FLOW_BEGINS = 1,
	FLOW_GOES_ON = 2,
	FLOW_ENDS = 3,
};

struct record {
	struct flow flow;
	struct counts counts;
	__u32 event;
	__u32 pad;
};

#define EVERY 1024

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, struct counts);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} records SEC(".maps");

/* Records that found no room. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

DASH_META;

SEC("xdp")
int flow_export(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet p;
	struct flow flow = {};
	__u32 event = FLOW_GOES_ON;

	if (!parse(data, end, &p))
		return XDP_PASS;
	__builtin_memcpy(flow.src, p.src, 32);
	flow.sport = p.sport;
	flow.dport = p.dport;
	flow.proto = p.proto;
	flow.v6 = p.v6;
	const struct dash_meta *meta = dash_packet_meta();
	if (meta)
		flow.eni = meta->eni;
	struct counts *counts = bpf_map_lookup_elem(&flows, &flow);
	if (!counts) {
		struct counts none = {};
		bpf_map_update_elem(&flows, &flow, &none, BPF_NOEXIST);
		counts = bpf_map_lookup_elem(&flows, &flow);
		if (!counts)
			return XDP_PASS;
		event = FLOW_BEGINS;
	}
	counts->packets++;
	counts->bytes += (long)end - (long)data;
	if (p.tcp_flags & (TCP_FIN | TCP_RST))
		event = FLOW_ENDS;
	if (event == FLOW_GOES_ON && counts->packets % EVERY)
		return XDP_PASS;
	struct record *record = bpf_ringbuf_reserve(&records, sizeof *record, 0);
	if (record) {
		record->flow = flow;
		record->counts = *counts;
		record->event = event;
		record->pad = 0;
		bpf_ringbuf_submit(record, 0);
	} else {
		__u32 zero = 0;
		__u64 *count = bpf_map_lookup_elem(&lost, &zero);
		if (count)
			(*count)++;
	}
	if (event == FLOW_ENDS)
		bpf_map_delete_elem(&flows, &flow);
	return XDP_PASS;
}

char _license[] SEC("license") = "Apache-2.0";
