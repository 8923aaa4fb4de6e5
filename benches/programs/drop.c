/* a: looks at the Ethernet type behind at most one VLAN tag; IPv6 is dropped. */
#include "common.h"

PROGRAM int program(struct context *ctx)
{
	u8 *data = START(ctx), *end = END(ctx);
	if (data + 18 > end)
		return XDP_DROP;
	u16 type = ((struct ethernet *)data)->type;
	if (type == be16(0x8100))
		type = *(u16 *)(data + 16);
	return type == be16(0x86dd) ? XDP_DROP : XDP_PASS;
}
