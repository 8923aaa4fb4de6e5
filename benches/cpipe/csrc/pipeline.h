/* A DASH fast path in C: VXLAN in, flow look-up, rewrite, VXLAN out. Numbers are in host order and
 * addresses in wire order unless said otherwise. src/lib.rs repeats these layouts. */
#ifndef DASHWIRE_CPIPE_H
#define DASHWIRE_CPIPE_H

#include <stddef.h>
#include <stdint.h>

#define CPIPE_BURST 32

/* As dash_wire::tables::FlowKey. */
struct cpipe_key {
    uint8_t sip[16];
    uint8_t dip[16];
    uint8_t sport[2];
    uint8_t dport[2];
    uint16_t eni;
    uint8_t proto;
    uint8_t flags; /* family, and direction << 1 */
};

/* What becomes of packets with a key. */
struct cpipe_actions {
    uint8_t sip[4];
    uint8_t dip[4];
    uint32_t vni;
    uint8_t dmac[6];
    uint8_t sport[2];
    uint32_t set_dmac;
};

struct cpipe_flow_stats {
    uint64_t packets;
    uint64_t bytes;
    uint64_t last_seen_ns;
};

struct cpipe_globals {
    uint8_t vip[4];
    uint32_t vm_vni;
    uint8_t vxlan_port[2];
    uint8_t ttl;
    uint8_t pad;
};

/* In this order: received packets, bytes; of the direction; sent packets, bytes; of the direction. */
struct cpipe_eni_stats {
    uint64_t rx_packets, rx_bytes;
    uint64_t direction_rx_packets[2], direction_rx_bytes[2];
    uint64_t tx_packets, tx_bytes;
    uint64_t direction_tx_packets[2], direction_tx_bytes[2];
};

struct cpipe_packet {
    uint8_t *data;
    uint32_t len; /* in: received; out: to be sent, 0 if it is not this path's packet */
    uint32_t pad;
};

struct cpipe;

/* NULL without memory. Room for `flows` keys at a load of at most 7/8. */
struct cpipe *cpipe_new(const struct cpipe_globals *globals, uint32_t flows, uint32_t enis);
void cpipe_free(struct cpipe *p);
/* 0, or -1 when it is full. */
int cpipe_add_eni(struct cpipe *p, const uint8_t mac[6], uint16_t eni);
int cpipe_add_flow(struct cpipe *p, const struct cpipe_key *key, const struct cpipe_actions *actions);
/* At most CPIPE_BURST packets. */
void cpipe_run(struct cpipe *p, struct cpipe_packet *packets, uint32_t n, uint64_t now_ns);
/* 0, or -1 when there is no such flow or ENI. */
int cpipe_flow_stats(const struct cpipe *p, const struct cpipe_key *key, struct cpipe_flow_stats *out);
int cpipe_eni_stats(const struct cpipe *p, uint16_t eni, struct cpipe_eni_stats *out);

#endif
