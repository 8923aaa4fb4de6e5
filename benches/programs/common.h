/* What the programs of this folder share. Each is one source for three builds: eBPF for XDP, eBPF for engines
 * whose context holds whole pointers (-DWIDE), and a function for this machine (-DNATIVE). */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { XDP_DROP = 1, XDP_PASS = 2, XDP_TX = 3 };

#define INLINE static inline __attribute__((always_inline))
#define be16(n) __builtin_bswap16(n)
#define be32(n) __builtin_bswap32(n)

#if defined(NATIVE) || defined(WIDE)
/* The first fields of what programs of ours get at run time. */
struct context {
	u8 *data, *end, *meta;
	u32 ingress, queue, egress, redirect;
	u8 *frame_start, *frame_end;
};
#define START(ctx) ((ctx)->data)
#define END(ctx) ((ctx)->end)
#else
struct context {
	u32 data, end, meta, ingress, queue, egress;
};
#define START(ctx) ((u8 *)(long)(ctx)->data)
#define END(ctx) ((u8 *)(long)(ctx)->end)
#endif

#ifdef NATIVE
#define PROGRAM __attribute__((visibility("default")))
INLINE long adjust_head(struct context *ctx, int by)
{
	u8 *to = ctx->data + by;
	if (to < ctx->frame_start || to > ctx->end - 14)
		return -22;
	ctx->data = ctx->meta = to;
	return 0;
}

/* For engines that call it. */
PROGRAM long move_head(struct context *ctx, int by)
{
	return adjust_head(ctx, by);
}
#else
#define PROGRAM __attribute__((section("xdp"), used))
static long (*adjust_head)(struct context *, int) = (void *)44;
char _license[] __attribute__((section("license"), used)) = "Dual BSD/GPL";
#endif

struct ethernet {
	u8 to[6], from[6];
	u16 type;
};

struct ipv4 {
	u8 version, tos;
	u16 length, id, fragment;
	u8 ttl, protocol;
	u16 check;
	u32 from, to;
};

struct udp {
	u16 from, to, length, check;
};

struct vxlan {
	u32 flags, vni;
};

/* A sum of 16-bit words, folded to 16 bits. */
INLINE u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* A checksum after one word changed (RFC 1624). */
INLINE u16 changed(u16 check, u32 before, u32 after)
{
	return ~fold((u64)(u16)~check + (u32)~before + after);
}

/* Of an IPv4 header without options whose checksum is 0. */
INLINE u16 header_check(const struct ipv4 *ip)
{
	const u32 *words = (const u32 *)ip;
	return ~fold((u64)words[0] + words[1] + words[2] + words[3] + words[4]);
}

INLINE u32 rol(u32 x, u32 by)
{
	return x << by | x >> (32 - by);
}

/* Bob Jenkins' lookup3 over three words. */
INLINE u32 mix3(u32 a, u32 b, u32 c)
{
	c ^= b; c -= rol(b, 14);
	a ^= c; a -= rol(c, 11);
	b ^= a; b -= rol(a, 25);
	c ^= b; c -= rol(b, 16);
	a ^= c; a -= rol(c, 4);
	b ^= a; b -= rol(a, 14);
	c ^= b; c -= rol(b, 24);
	return c;
}
