// A checksum over the IPv4 header, as many words as it says, and a table of sums on the stack.
#include "common.h"

SEC("xdp")
int checksum(struct xdp_md *ctx)
{
	u8 *data = DATA(ctx), *end = END(ctx);
	struct ipv4 *ip = (void *)(data + sizeof(struct eth));
	if ((void *)(ip + 1) > (void *)end)
		return XDP_DROP;
	u32 words = ip->ihl * 2, sum = 0;
	u16 *word = (void *)ip;
	u32 sums[8] = {};
	for (u32 i = 0; i < 30; i++) {
		if (i >= words)
			break;
		if ((void *)(word + i + 1) > (void *)end)
			return XDP_DROP;
		sum += word[i];
#ifdef BAD
		sums[sum & 15] += 1;
#else
		sums[sum & 7] += 1;
#endif
	}
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff && sums[words & 7] < 9 ? XDP_PASS : XDP_DROP;
}
