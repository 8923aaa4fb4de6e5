// Makes room for an outer header and fills it; old pointers are of no use then.
#include "common.h"

SEC("xdp")
int encap(struct xdp_md *ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	struct eth *eth = (void *)data;
	struct ipv4 *ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > (void *)end)
		return XDP_DROP;
	struct eth saved = *eth;
	u32 src = ip->src;
	if (adjust_head(ctx, -(int)sizeof(struct ipv4)))
		return XDP_ABORTED;
	data = DATA(ctx);
	end = END(ctx);
#ifdef BAD
	ip->src = src;
#endif
	eth = (void *)data;
	ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > (void *)end)
		return XDP_ABORTED;
	*eth = saved;
	ip->version = 4;
	ip->ihl = 5;
	ip->src = src;
	u32 sum = 0;
	u16 *word = (void *)ip;
	for (int i = 0; i < 10; i++)
		sum += word[i];
	ip->check = ~((sum & 0xffff) + (sum >> 16));
	return XDP_TX;
}
