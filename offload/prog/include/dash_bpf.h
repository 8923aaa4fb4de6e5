/* What C programs for dashwire's hooks include: helpers by Linux's numbers, packet headers, and what
 * the pipeline knows of a packet. Needs nothing but clang and the kernel's <linux/bpf.h>; objects made
 * with it load into Linux too.
 *
 *     clang -target bpf -mcpu=v3 -O2 -g -I offload/prog/include -c program.c -o program.o
 */
#ifndef DASH_BPF_H
#define DASH_BPF_H

#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* Definitions of maps (BTF): struct { __uint(type, ...); __type(key, ...); ... } name SEC(".maps"); */
#define __uint(name, value) int(*name)[value]
#define __type(name, type) typeof(type) *name

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "made for -target bpfel"
#endif

#define htons(x) ((__u16)__builtin_bswap16(x))
#define ntohs(x) ((__u16)__builtin_bswap16(x))
#define htonl(x) ((__u32)__builtin_bswap32(x))
#define ntohl(x) ((__u32)__builtin_bswap32(x))

/* enum bpf_func_id */
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*const bpf_xdp_adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;
static long (*const bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)51;
static long (*const bpf_xdp_adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;
static long (*const bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)130;
static void *(*const bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;
static void (*const bpf_ringbuf_discard)(void *data, __u64 flags) = (void *)133;
static long (*const bpf_xdp_load_bytes)(struct xdp_md *ctx, __u32 offset, void *to, __u32 len) = (void *)189;

/* Values of dash_meta.place: where the program runs. */
enum dash_place {
	DASH_ELSEWHERE = 0, /* not in dashwire: the map is all zeros */
	DASH_INGRESS = 1,
	DASH_ENI_OUTBOUND = 2,
	DASH_ENI_INBOUND = 3,
	DASH_EGRESS = 4,
};

/* Values of dash_meta.direction. */
enum dash_direction {
	DASH_NO_DIRECTION = 0,
	DASH_OUTBOUND = 1,
	DASH_INBOUND = 2,
};

/* Values of dash_meta.flow: was the packet's connection there before it? Known at egress. */
enum dash_flow {
	DASH_FLOW_UNKNOWN = 0,
	DASH_FLOW_HIT = 1,
	DASH_FLOW_MISS = 2,
};

#define DASH_NO_ENI 0xffffffffu

/* What the pipeline knows of the packet; specs/hooks.md. */
struct dash_meta {
	__u32 eni;	    /* index of the ENI, DASH_NO_ENI at ingress */
	__u32 vni;	    /* VNI of the encap it was received in */
	__u8 eni_mac[6];    /* MAC of the ENI */
	__u16 vnet;	    /* number of its VNET, 0 for none */
	__u8 place;	    /* enum dash_place */
	__u8 direction;	    /* enum dash_direction */
	__u8 flow;	    /* enum dash_flow */
	__u8 pad[5];
};

/* The map by which it is told: element 0 is the packet at hand's. Before each run dashwire writes it; on
 * Linux it stays zero. Put DASH_META; at file scope, then use dash_packet_meta(). */
#define DASH_META                                                                                                      \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                               \
		__uint(max_entries, 1);                                                                                \
		__type(key, __u32);                                                                                    \
		__type(value, struct dash_meta);                                                                       \
	} dash_meta SEC(".maps")

#define dash_packet_meta()                                                                                             \
	({                                                                                                             \
		__u32 dash_zero = 0;                                                                                   \
		(const struct dash_meta *)bpf_map_lookup_elem(&dash_meta, &dash_zero);                                 \
	})

/* Headers, in network order. */
struct eth {
	__u8 dst[6], src[6];
	__be16 type;
} __attribute__((packed));

struct ipv4 {
	__u8 version_ihl, tos;
	__be16 len, id, frag;
	__u8 ttl, proto;
	__u16 check;
	__be32 src, dst;
} __attribute__((packed));

struct ipv6 {
	__be32 version_class_flow;
	__be16 payload;
	__u8 next, hops;
	__u8 src[16], dst[16];
} __attribute__((packed));

struct ports {
	__be16 src, dst;
} __attribute__((packed));

struct tcp {
	__be16 src, dst;
	__be32 seq, ack;
	__u8 offset, flags;
	__be16 window;
	__u16 check;
	__be16 urgent;
} __attribute__((packed));

struct udp {
	__be16 src, dst, len;
	__u16 check;
} __attribute__((packed));

enum {
	ETH_IPV4 = 0x0800,
	ETH_IPV6 = 0x86dd,
	PROTO_ICMP = 1,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	TCP_FIN = 1,
	TCP_SYN = 2,
	TCP_RST = 4,
	TCP_ACK = 16,
};

/* What most programs want to know of an IP packet. */
struct packet {
	__u8 src[16], dst[16]; /* IPv4 in the last four bytes, the others zero */
	__be16 sport, dport;   /* 0 for what has no ports */
	__u8 proto;
	__u8 v6;
	__u8 tcp_flags;
	__u8 pad;
	void *l3; /* struct ipv4 or ipv6, whole */
	void *l4; /* what follows it; at least the ports' bytes, or for TCP the header, or null */
};

/* Reads a frame; 0 when it is not IP, has IPv4 options, is a fragment, or is cut short. */
static __always_inline int parse(void *data, void *end, struct packet *p)
{
	struct eth *eth = data;
	__builtin_memset(p, 0, sizeof *p);
	if ((void *)(eth + 1) > end)
		return 0;
	p->l3 = eth + 1;
	if (eth->type == htons(ETH_IPV4)) {
		struct ipv4 *ip = p->l3;
		if ((void *)(ip + 1) > end || ip->version_ihl != 0x45 || (ip->frag & htons(0x3fff)))
			return 0;
		__builtin_memcpy(p->src + 12, &ip->src, 4);
		__builtin_memcpy(p->dst + 12, &ip->dst, 4);
		p->proto = ip->proto;
		p->l4 = ip + 1;
	} else if (eth->type == htons(ETH_IPV6)) {
		struct ipv6 *ip = p->l3;
		if ((void *)(ip + 1) > end)
			return 0;
		__builtin_memcpy(p->src, ip->src, 32);
		p->proto = ip->next;
		p->v6 = 1;
		p->l4 = ip + 1;
	} else {
		return 0;
	}
	if (p->proto == PROTO_TCP) {
		struct tcp *tcp = p->l4;
		if ((void *)(tcp + 1) > end)
			return 0;
		p->sport = tcp->src;
		p->dport = tcp->dst;
		p->tcp_flags = tcp->flags;
	} else if (p->proto == PROTO_UDP) {
		struct udp *udp = p->l4;
		if ((void *)(udp + 1) > end)
			return 0;
		p->sport = udp->src;
		p->dport = udp->dst;
	} else {
		p->l4 = 0;
	}
	return 1;
}

/* A checksum after 16 bits of what it covers have changed (RFC 1624, equation 3). */
static __always_inline __u16 checksum_after(__u16 check, __u16 before, __u16 after)
{
	__u32 sum = (__u16)~check + (__u16)~before + after;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

#endif
