/* c: translates source address and port, keeps both checksums right, and puts the frame into VXLAN. */
#include "common.h"

#define OUTER (14 + 20 + 8 + 8)

PROGRAM int program(struct context *ctx)
{
	u8 *data = START(ctx), *end = END(ctx);
	struct ethernet *eth = (void *)data;
	struct ipv4 *ip = (void *)(data + 14);
	struct udp *l4 = (void *)(data + 34);
	if (data + 14 + 20 + 8 > end || eth->type != be16(0x0800) || ip->version != 0x45)
		return XDP_PASS;
	if (ip->fragment & be16(0x3fff))
		return XDP_PASS;
	u16 *check;
	if (ip->protocol == 17) {
		check = (u16 *)(data + 40);
	} else if (ip->protocol == 6) {
		if (data + 54 > end)
			return XDP_DROP;
		check = (u16 *)(data + 50);
	} else {
		return XDP_PASS;
	}
	u32 hash = mix3(ip->from, ip->to, *(u32 *)l4);
	u32 from = ip->from, public = be32(0xc6336401);
	u16 port = l4->from, other = be16(0x8000 | (hash & 0x7fff));
	ip->from = public;
	ip->check = changed(ip->check, from, public);
	l4->from = other;
	if (ip->protocol == 6 || *check) {
		u64 sum = (u64)(u16)~*check + (u32)~from + public + (u16)~port + other;
		*check = ~fold(sum);
	}
	u16 length = end - data;
	/* Now, not after the packet moved: pointers into it are worth nothing then. */
	__asm__ volatile("" : "+r"(length));

	if (adjust_head(ctx, -OUTER))
		return XDP_DROP;
	data = START(ctx);
	end = END(ctx);
	if (data + OUTER > end)
		return XDP_DROP;
	eth = (void *)data;
	ip = (void *)(data + 14);
	l4 = (void *)(data + 34);
	struct vxlan *vxlan = (void *)(data + 42);
	*(u32 *)eth->to = be32(0x02000064);
	*(u16 *)(eth->to + 4) = be16(0x0001);
	*(u32 *)eth->from = be32(0x02000064);
	*(u16 *)(eth->from + 4) = be16(0x00fe);
	eth->type = be16(0x0800);
	ip->version = 0x45;
	ip->tos = 0;
	ip->length = be16(length + OUTER - 14);
	ip->id = 0;
	ip->fragment = be16(0x4000);
	ip->ttl = 64;
	ip->protocol = 17;
	ip->check = 0;
	ip->from = be32(0x0a000001);
	ip->to = be32(0x0a000002);
	ip->check = header_check(ip);
	l4->from = be16(0xc000 | (hash >> 18));
	l4->to = be16(4789);
	l4->length = be16(length + 16);
	l4->check = 0;
	vxlan->flags = be32(0x08000000);
	vxlan->vni = be32(77 << 8);
	return XDP_TX;
}
