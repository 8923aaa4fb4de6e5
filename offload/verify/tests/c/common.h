// What the test programs need of Linux's headers, in our own words.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name

enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX };
enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6 };

struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*const ktime)(void) = (void *)5;
static long (*const adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;

struct eth {
	u8 dst[6], src[6];
	u16 proto;
} __attribute__((packed));

struct vlan {
	u16 tci, proto;
} __attribute__((packed));

struct ipv4 {
	u8 ihl : 4, version : 4;
	u8 tos;
	u16 len, id, frag;
	u8 ttl, proto;
	u16 check;
	u32 src, dst;
} __attribute__((packed));

struct tcp {
	u16 src, dst;
	u32 seq, ack;
	u16 flags, window, check, urgent;
} __attribute__((packed));

#define DATA(ctx) ((void *)(long)(ctx)->data)
#define END(ctx) ((void *)(long)(ctx)->data_end)
#define BE16(n) ((u16)((n) << 8 | (n) >> 8))

char _license[] SEC("license") = "Apache-2.0";
