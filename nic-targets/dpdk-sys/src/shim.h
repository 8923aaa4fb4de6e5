/* What DPDK's headers define inline, as functions that can be linked, a burst at a time. */
#ifndef DASHWIRE_DPDK_SHIM_H
#define DASHWIRE_DPDK_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

/* Most packets of one call. */
#define DASH_BURST 64

/* Bytes in front of a received packet: fixed when DPDK was built. */
#define DASH_HEADROOM RTE_PKTMBUF_HEADROOM

/* Most queues of a port: fixed when DPDK was built. */
#define DASH_MAX_QUEUES RTE_MAX_QUEUES_PER_PORT

/* The device found a checksum wrong. */
#define DASH_BAD_CHECKSUM 1u
/* Several segments, or memory shared with another mbuf: not to be written as it is. */
#define DASH_NOT_OWN 2u

/* An mbuf and the bounds of its packet: bytes `start..end` of the `size` bytes at `base`. */
struct dash_packet {
	struct rte_mbuf *mbuf;
	uint8_t *base;
	uint32_t size;
	uint32_t start;
	uint32_t end;
	uint32_t flags;
};

static const uint64_t DASH_RX_CHECKSUMS = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM |
	RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_OUTER_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_OUTER_UDP_CKSUM;
static const uint64_t DASH_TX_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
static const uint64_t DASH_RSS_TUPLES = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
static const uint64_t DASH_RSS_INNERMOST = RTE_ETH_RSS_LEVEL_INNERMOST;
static const uint32_t DASH_MQ_RSS = RTE_ETH_MQ_RX_RSS;
static const uint32_t DASH_MQ_NONE = RTE_ETH_MQ_RX_NONE;
static const uint32_t DASH_FLAG_LSC = RTE_ETH_DEV_INTR_LSC;
static const uint32_t DASH_FLAG_RMV = RTE_ETH_DEV_INTR_RMV;
static const uint32_t DASH_LCORE_NONE = LCORE_ID_ANY;
static const uint16_t DASH_MAX_PORTS = RTE_MAX_ETHPORTS;

/* Sends DPDK's log to `write`, called with whole or partial lines by any thread; 0 or -1. */
int dash_log_to(void (*write)(const char *text, size_t len));

/* rte_eal_init() with what it prints (its usage on stdout, getopt's word on stderr) kept off the
 * terminal: stderr goes to the log, stdout nowhere. */
int dash_eal_init(int argc, char **argv);

/* rte_errno of this thread. */
int dash_errno(void);

/* The lcore of this thread, or DASH_LCORE_NONE. */
unsigned int dash_lcore(void);

/* 1 up, 0 down, negative: not known. Mbit/s, or 0 or UINT32_MAX when there is no such number. */
int dash_link(uint16_t port, uint32_t *speed);

/* Bit-fields, which bindings spell differently from version to version. */
void dash_set_interrupts(struct rte_eth_conf *conf, int link, int removal);

/* Receives at most DASH_BURST packets and starts to fetch their bytes. */
uint16_t dash_rx(uint16_t port, uint16_t queue, struct dash_packet *out, uint16_t n);

/* Sends the first of `m`; gives their number. */
uint16_t dash_tx(uint16_t port, uint16_t queue, struct rte_mbuf **m, uint16_t n);

/* Writes bounds back into mbufs of one segment, and leaves no offload flag. */
void dash_seal(const struct dash_packet *packets, struct rte_mbuf **m, uint16_t n);

/* Replaces the packet's mbuf by a copy of one segment from `pool`; 0, or -1 and no mbuf at all. */
int dash_flatten(struct dash_packet *packet, struct rte_mempool *pool);

/* An empty packet from `pool`; 0 or -1. */
int dash_alloc(struct dash_packet *packet, struct rte_mempool *pool);

/* Gives an mbuf back to its pool. */
void dash_free(struct rte_mbuf *m);

#endif
