#define _GNU_SOURCE
#include <stdio.h>

#include "shim.h"

#include <rte_log.h>
#include <rte_prefetch.h>

static FILE *log_stream;
static void (*log_write)(const char *text, size_t len);

static ssize_t write_log(void *cookie, const char *text, size_t len)
{
	(void)cookie;
	log_write(text, len);
	return (ssize_t)len;
}

int dash_log_to(void (*write)(const char *text, size_t len))
{
	cookie_io_functions_t io = { .write = write_log };

	log_write = write;
	log_stream = fopencookie(NULL, "w", io);
	if (log_stream == NULL)
		return -1;
	setvbuf(log_stream, NULL, _IOLBF, BUFSIZ);
	return rte_openlog_stream(log_stream);
}

int dash_eal_init(int argc, char **argv)
{
	FILE *const out = stdout, *const err = stderr;
	FILE *nowhere = fopen("/dev/null", "w");
	int result, code;

	if (nowhere != NULL)
		stdout = nowhere;
	if (log_stream != NULL)
		stderr = log_stream;
	result = rte_eal_init(argc, argv);
	code = rte_errno;
	if (log_stream != NULL)
		fflush(log_stream);
	stdout = out;
	stderr = err;
	if (nowhere != NULL)
		fclose(nowhere);
	rte_errno = code;
	return result;
}

int dash_errno(void)
{
	return rte_errno;
}

unsigned int dash_lcore(void)
{
	return rte_lcore_id();
}

int dash_link(uint16_t port, uint32_t *speed)
{
	struct rte_eth_link link = { 0 };
	int result = rte_eth_link_get_nowait(port, &link);

	if (result < 0)
		return result;
	*speed = link.link_speed;
	return link.link_status == RTE_ETH_LINK_UP;
}

void dash_set_interrupts(struct rte_eth_conf *conf, int link, int removal)
{
	conf->intr_conf.lsc = link != 0;
	conf->intr_conf.rmv = removal != 0;
}

static void describe(struct dash_packet *p, struct rte_mbuf *m)
{
	const uint64_t bad = RTE_MBUF_F_RX_IP_CKSUM_BAD | RTE_MBUF_F_RX_L4_CKSUM_BAD |
		RTE_MBUF_F_RX_OUTER_IP_CKSUM_BAD | RTE_MBUF_F_RX_OUTER_L4_CKSUM_BAD;
	uint64_t flags = m->ol_flags;
	int wrong = 0;

	/* The four are fields of two bits: GOOD | BAD means "none", not "bad". */
	if (unlikely((flags & bad) != 0)) {
		wrong = (flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_BAD ||
			(flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_BAD ||
			(flags & RTE_MBUF_F_RX_OUTER_L4_CKSUM_MASK) == RTE_MBUF_F_RX_OUTER_L4_CKSUM_BAD ||
			(flags & RTE_MBUF_F_RX_OUTER_IP_CKSUM_BAD) != 0;
	}
	p->mbuf = m;
	p->base = m->buf_addr;
	p->size = m->buf_len;
	p->start = m->data_off;
	p->end = (uint32_t)m->data_off + m->data_len;
	p->flags = wrong ? DASH_BAD_CHECKSUM : 0;
	if (unlikely(m->nb_segs != 1 || rte_mbuf_refcnt_read(m) != 1 || !RTE_MBUF_DIRECT(m)))
		p->flags |= DASH_NOT_OWN;
}

uint16_t dash_rx(uint16_t port, uint16_t queue, struct dash_packet *out, uint16_t n)
{
	struct rte_mbuf *m[DASH_BURST];
	uint16_t got = rte_eth_rx_burst(port, queue, m, RTE_MIN(n, (uint16_t)DASH_BURST));

	for (uint16_t i = 0; i < got; i++) {
		rte_prefetch0(rte_pktmbuf_mtod(m[i], void *));
		describe(&out[i], m[i]);
	}
	return got;
}

uint16_t dash_tx(uint16_t port, uint16_t queue, struct rte_mbuf **m, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, m, n);
}

void dash_seal(const struct dash_packet *packets, struct rte_mbuf **m, uint16_t n)
{
	for (uint16_t i = 0; i < n; i++) {
		struct rte_mbuf *one = packets[i].mbuf;

		one->data_off = (uint16_t)packets[i].start;
		one->data_len = (uint16_t)(packets[i].end - packets[i].start);
		one->pkt_len = one->data_len;
		one->ol_flags = 0;
		m[i] = one;
	}
}

int dash_flatten(struct dash_packet *packet, struct rte_mempool *pool)
{
	struct rte_mbuf *copy = rte_pktmbuf_copy(packet->mbuf, pool, 0, UINT32_MAX);

	rte_pktmbuf_free(packet->mbuf);
	packet->mbuf = NULL;
	if (copy == NULL)
		return -1;
	if (copy->nb_segs != 1) {
		rte_pktmbuf_free(copy);
		return -1;
	}
	describe(packet, copy);
	return 0;
}

int dash_alloc(struct dash_packet *packet, struct rte_mempool *pool)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

	if (m == NULL)
		return -1;
	describe(packet, m);
	return 0;
}

void dash_free(struct rte_mbuf *m)
{
	rte_pktmbuf_free(m);
}
