// Ethernet, up to two VLAN tags, IPv4 with options, TCP options one by one.
#include "common.h"

SEC("xdp")
int parse(struct xdp_md *ctx)
{
	u8 *at = DATA(ctx), *end = END(ctx);
	struct eth *eth = (void *)at;
	if ((void *)(eth + 1) > (void *)end)
		return XDP_DROP;
	u16 proto = eth->proto;
	at += sizeof(*eth);
	for (int i = 0; i < 2; i++) {
		if (proto != BE16(0x8100))
			break;
		struct vlan *tag = (void *)at;
		if ((void *)(tag + 1) > (void *)end)
			return XDP_DROP;
		proto = tag->proto;
		at += sizeof(*tag);
	}
	if (proto != BE16(0x0800))
		return XDP_PASS;
	struct ipv4 *ip = (void *)at;
	if ((void *)(ip + 1) > (void *)end)
		return XDP_DROP;
	if (ip->proto != 6)
		return XDP_PASS;
	at += ip->ihl * 4;
	struct tcp *tcp = (void *)at;
#ifndef BAD
	if ((void *)(tcp + 1) > (void *)end)
		return XDP_DROP;
#endif
	u32 length = (BE16(tcp->flags) >> 12) * 4;
	u8 *option = (void *)(tcp + 1);
	for (u32 i = 20; i < length; i++) {
		if (i >= 60 || (void *)(option + 1) > (void *)end)
			return XDP_DROP;
		if (*option == 0)
			break;
		option++;
	}
	return tcp->dst == BE16(80) ? XDP_TX : XDP_PASS;
}
