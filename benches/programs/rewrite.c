/* b: parses, hashes the 5-tuple, chooses one of eight next hops by it, rewrites MACs, destination and TTL, and
 * keeps both checksums right. */
#include "common.h"

PROGRAM int program(struct context *ctx)
{
	u8 *data = START(ctx), *end = END(ctx);
	struct ethernet *eth = (void *)data;
	struct ipv4 *ip = (void *)(data + 14);
	u32 *ports;
	u16 *check;
	if (data + 14 + 20 + 8 > end || eth->type != be16(0x0800) || ip->version != 0x45)
		return XDP_PASS;
	if (ip->fragment & be16(0x3fff) || ip->ttl <= 1)
		return XDP_PASS;
	ports = (u32 *)(data + 34);
	if (ip->protocol == 17) {
		check = (u16 *)(data + 40);
	} else if (ip->protocol == 6) {
		if (data + 54 > end)
			return XDP_DROP;
		check = (u16 *)(data + 50);
	} else {
		return XDP_PASS;
	}
	u32 seed = 0xdeadbeef + (5 << 2);
	u32 a = ip->from + seed, b = ip->to + seed, c = *ports + seed;
	u32 hash = mix3(a + rol(ip->protocol, 7), b, c);
	hash = mix3(hash, b ^ c, a);

	u32 before = ip->to, after = be32(0x0a640000 | (hash & 7));
	ip->to = after;
	ip->check = changed(ip->check, before, after);
	/* Time to live and protocol are one word of the checksum. */
	u16 word = *(u16 *)&ip->ttl;
	ip->ttl--;
	ip->check = changed(ip->check, word, *(u16 *)&ip->ttl);
	if (ip->protocol == 6 || *check)
		*check = changed(*check, before, after);

	__builtin_memcpy(eth->from, eth->to, 6);
	*(u16 *)eth->to = be16(0x0200);
	*(u32 *)(eth->to + 2) = be32(0x00640000 | (hash & 7));
	return XDP_TX;
}
