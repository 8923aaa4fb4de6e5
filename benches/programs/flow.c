/* e: counts packets and bytes of the packet's 5-tuple in a hash map; flows that are not there pass. */
#include "common.h"

struct key {
	u32 from, to, ports;
	u8 protocol, zero[3];
};

struct count {
	u64 packets, bytes;
};

#ifdef NATIVE
#include "map.h"
#elif defined(WIDE)
#define flows (*(int *)1)
static void *(*lookup)(void *, const void *) = (void *)1;
#else
struct {
	int (*type)[1];
	int (*max_entries)[65536];
	struct key *key;
	struct count *value;
} flows __attribute__((section(".maps"), used));
static void *(*lookup)(void *, const void *) = (void *)1;
#endif

PROGRAM int program(struct context *ctx)
{
	u8 *data = START(ctx), *end = END(ctx);
	struct ethernet *eth = (void *)data;
	struct ipv4 *ip = (void *)(data + 14);
	if (data + 14 + 20 + 8 > end || eth->type != be16(0x0800) || ip->version != 0x45)
		return XDP_PASS;
	struct key key = {
		.from = ip->from,
		.to = ip->to,
		.ports = *(u32 *)(data + 34),
		.protocol = ip->protocol,
	};
	struct count *count = lookup(&flows, &key);
	if (!count)
		return XDP_PASS;
	count->packets++;
	count->bytes += end - data;
	return XDP_TX;
}
