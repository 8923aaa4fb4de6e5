/* Bursts go through four loops, so that no load waits for memory alone:
 *
 *   1  headers of the burst are prefetched
 *   2  parse, ENI, key, hash; the flow's bucket is prefetched
 *   3  tags of the bucket are compared; the candidate's entry is prefetched
 *   4  key compare, counters, rewrite in place
 *
 * The flow table: buckets of one cache line, eight 16-bit tags and eight indices, two buckets a key
 * (the second from the first and the tag, as in cuckoo tables). An entry is two lines: what a look-up
 * reads, then what it writes. Checks are those of the Rust pipeline for this path; a packet that needs
 * more (options, IPv6, ECN marks, TCP SYN, FIN or RST, no flow) is left to a slow path: len = 0. */
#define _GNU_SOURCE
#include "pipeline.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SSE4_2__)
#include <immintrin.h>
#endif

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum { ETH = 14, OUTER = 50, WAYS = 8, TCP = 6, UDP = 17, ICMP = 1 };
#define NONE UINT32_MAX

struct bucket {
    uint16_t tag[WAYS]; /* 0: free */
    uint32_t index[WAYS];
} __attribute__((aligned(64)));

struct entry {
    struct cpipe_key key;
    struct cpipe_actions actions;
    struct cpipe_flow_stats stats;
} __attribute__((aligned(128)));

struct eni_slot {
    uint8_t mac[6];
    uint16_t eni;
    uint32_t used;
};

struct cpipe {
    struct cpipe_globals globals;
    uint32_t bucket_mask, eni_mask, flows, flow_capacity, enis, eni_capacity;
    struct bucket *buckets;
    struct entry *entries;
    struct eni_slot *eni_slots;
    struct cpipe_eni_stats *eni_stats;
    size_t bucket_bytes, entry_bytes;
};

static inline uint16_t load16(const void *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t load32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t load64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline void store16(void *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void store32(void *p, uint32_t v) { memcpy(p, &v, 4); }
static inline uint16_t be16(uint16_t v) { return __builtin_bswap16(v); }
static inline uint32_t be32(uint32_t v) { return __builtin_bswap32(v); }

static inline uint32_t fold(uint64_t sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)((sum & 0xffff) + (sum >> 16));
}

static inline uint64_t hash_key(const struct cpipe_key *key) {
    const uint8_t *p = (const uint8_t *)key;
#if defined(__SSE4_2__)
    /* Two chains, so that the three cycles of a step overlap. IPv4 addresses are all in the second, so
     * a multiplication mixes both into bucket and tag. */
    uint64_t a = _mm_crc32_u64(0xffffffff, load64(p));
    uint64_t b = _mm_crc32_u64(0x9e3779b9, load64(p + 8));
    a = _mm_crc32_u64(a, load64(p + 16));
    b = _mm_crc32_u64(b, load64(p + 24));
    a = _mm_crc32_u64(a, load64(p + 32));
    b = _mm_crc32_u64(b, load64(p + 32));
    uint64_t h = (a | (b << 32)) * 0x9e3779b97f4a7c15ULL;
    return h ^ (h >> 32);
#else
    uint64_t h = 0x9e3779b97f4a7c15ULL;
    for (int i = 0; i < 40; i += 8) {
        unsigned __int128 m = (unsigned __int128)(h ^ load64(p + i)) * 0xa0761d6478bd642fULL;
        h = (uint64_t)m ^ (uint64_t)(m >> 64);
    }
    return h;
#endif
}

static inline uint16_t tag_of(uint64_t hash) {
    uint16_t tag = (uint16_t)(hash >> 48);
    return tag + (tag == 0);
}
static inline uint32_t first_of(const struct cpipe *p, uint64_t hash) { return (uint32_t)hash & p->bucket_mask; }
static inline uint32_t other_of(const struct cpipe *p, uint32_t bucket, uint16_t tag) {
    return (bucket ^ (tag * 0x5bd1e995u)) & p->bucket_mask;
}

/* Bit i: way i has this tag. */
static inline uint32_t ways(const struct bucket *b, uint16_t tag) {
#if defined(__SSE4_2__)
    __m128i tags = _mm_load_si128((const __m128i *)b->tag);
    __m128i same = _mm_cmpeq_epi16(tags, _mm_set1_epi16((short)tag));
    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(same, _mm_setzero_si128()));
#else
    uint32_t mask = 0;
    for (int i = 0; i < WAYS; i++) mask |= (uint32_t)(b->tag[i] == tag) << i;
    return mask;
#endif
}

static inline int same_key(const struct cpipe_key *a, const struct cpipe_key *b) {
    const uint8_t *x = (const uint8_t *)a, *y = (const uint8_t *)b;
    uint64_t d = (load64(x) ^ load64(y)) | (load64(x + 8) ^ load64(y + 8)) | (load64(x + 16) ^ load64(y + 16)) |
                 (load64(x + 24) ^ load64(y + 24)) | (load64(x + 32) ^ load64(y + 32));
    return d == 0;
}

static struct entry *in_bucket(const struct cpipe *p, uint32_t at, uint16_t tag, const struct cpipe_key *key) {
    const struct bucket *b = &p->buckets[at];
    for (uint32_t m = ways(b, tag); m; m &= m - 1) {
        struct entry *e = &p->entries[b->index[__builtin_ctz(m)]];
        if (same_key(&e->key, key)) return e;
    }
    return NULL;
}

static struct entry *find(const struct cpipe *p, uint64_t hash, const struct cpipe_key *key) {
    uint16_t tag = tag_of(hash);
    uint32_t first = first_of(p, hash);
    struct entry *e = in_bucket(p, first, tag, key);
    return e ? e : in_bucket(p, other_of(p, first, tag), tag, key);
}

static inline uint32_t hash_mac(const uint8_t mac[6]) {
    uint32_t h = load32(mac) ^ ((uint32_t)load16(mac + 4) << 11);
    h *= 0x9e3779b1u;
    return h ^ (h >> 15);
}

static inline uint32_t find_eni(const struct cpipe *p, const uint8_t mac[6]) {
    for (uint32_t i = hash_mac(mac) & p->eni_mask;; i = (i + 1) & p->eni_mask) {
        const struct eni_slot *s = &p->eni_slots[i];
        if (!s->used) return NONE;
        if (load32(s->mac) == load32(mac) && load16(s->mac + 4) == load16(mac + 4)) return s->eni;
    }
}

/* Zeroed, in huge pages where the system gives them. */
static void *pages(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    (void)madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

static uint32_t power_of_two(uint32_t least) {
    uint32_t n = 1;
    while (n < least) n <<= 1;
    return n;
}

struct cpipe *cpipe_new(const struct cpipe_globals *globals, uint32_t flows, uint32_t enis) {
    if (flows == 0 || flows > 1u << 28 || enis == 0 || enis > 1u << 16) return NULL;
    struct cpipe *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    uint32_t buckets = power_of_two((uint32_t)(((uint64_t)flows * 8 / 7 + WAYS - 1) / WAYS));
    p->globals = *globals;
    p->bucket_mask = buckets - 1;
    p->flow_capacity = flows;
    p->eni_capacity = enis;
    p->eni_mask = power_of_two(enis * 2) - 1;
    p->bucket_bytes = (size_t)buckets * sizeof *p->buckets;
    p->entry_bytes = (size_t)flows * sizeof *p->entries;
    p->buckets = pages(p->bucket_bytes);
    p->entries = pages(p->entry_bytes);
    p->eni_slots = calloc(p->eni_mask + 1, sizeof *p->eni_slots);
    p->eni_stats = calloc(enis, sizeof *p->eni_stats);
    if (!p->buckets || !p->entries || !p->eni_slots || !p->eni_stats) {
        cpipe_free(p);
        return NULL;
    }
    return p;
}

void cpipe_free(struct cpipe *p) {
    if (!p) return;
    if (p->buckets) munmap(p->buckets, p->bucket_bytes);
    if (p->entries) munmap(p->entries, p->entry_bytes);
    free(p->eni_slots);
    free(p->eni_stats);
    free(p);
}

int cpipe_add_eni(struct cpipe *p, const uint8_t mac[6], uint16_t eni) {
    if (eni >= p->eni_capacity || p->enis >= p->eni_capacity) return -1;
    uint32_t i = hash_mac(mac) & p->eni_mask;
    while (p->eni_slots[i].used) i = (i + 1) & p->eni_mask;
    memcpy(p->eni_slots[i].mac, mac, 6);
    p->eni_slots[i].eni = eni;
    p->eni_slots[i].used = 1;
    p->enis++;
    return 0;
}

int cpipe_add_flow(struct cpipe *p, const struct cpipe_key *key, const struct cpipe_actions *actions) {
    uint64_t hash = hash_key(key);
    struct entry *e = find(p, hash, key);
    if (e) {
        e->actions = *actions;
        return 0;
    }
    if (p->flows >= p->flow_capacity) return -1;
    uint16_t tag = tag_of(hash);
    uint32_t index = p->flows, at = first_of(p, hash);
    /* Into the emptier bucket; if both are full, someone moves to where else they may be. */
    uint32_t other = other_of(p, at, tag);
    if (__builtin_popcount(ways(&p->buckets[other], 0)) > __builtin_popcount(ways(&p->buckets[at], 0))) at = other;
    uint32_t kicks[256];
    uint8_t kicked[256];
    for (uint32_t kick = 0; kick < 256; kick++) {
        struct bucket *b = &p->buckets[at];
        uint32_t room = ways(b, 0);
        uint32_t way = room ? (uint32_t)__builtin_ctz(room) : (kick * 5 + at) % WAYS;
        uint16_t old_tag = b->tag[way];
        uint32_t old_index = b->index[way];
        b->tag[way] = tag;
        b->index[way] = index;
        if (room) {
            e = &p->entries[p->flows++];
            memset(e, 0, sizeof *e);
            e->key = *key;
            e->actions = *actions;
            return 0;
        }
        kicks[kick] = at;
        kicked[kick] = (uint8_t)way;
        at = other_of(p, at, old_tag);
        tag = old_tag;
        index = old_index;
    }
    /* No room was found: everyone moves back. */
    for (uint32_t kick = 256; kick-- > 0;) {
        struct bucket *b = &p->buckets[kicks[kick]];
        uint16_t placed_tag = b->tag[kicked[kick]];
        uint32_t placed = b->index[kicked[kick]];
        b->tag[kicked[kick]] = tag;
        b->index[kicked[kick]] = index;
        tag = placed_tag;
        index = placed;
    }
    return -1;
}

/* What the second loop leaves for the others. */
struct work {
    struct cpipe_key key;
    uint64_t hash;
    uint32_t candidate;
    uint16_t inner_len;
    uint8_t tcp_flags;
    uint8_t ok;
};

static inline int parse(struct cpipe *p, const struct cpipe_packet *packet, struct work *w) {
    const uint8_t *d = packet->data;
    uint32_t len = packet->len;
    const struct cpipe_globals *g = &p->globals;
    if (unlikely(len < OUTER + ETH + 20)) return 0;
    const uint8_t *ip = d + ETH;
    if (unlikely(load16(d + 12) != be16(0x0800) || ip[0] != 0x45)) return 0;
    uint32_t total = be16(load16(ip + 2));
    if (unlikely(total < 20 + 30 || total + ETH > len)) return 0;
    uint64_t sum = (uint64_t)load32(ip) + load32(ip + 4) + load32(ip + 8) + load32(ip + 12) + load32(ip + 16);
    if (unlikely(fold(sum) != 0xffff)) return 0;
    if (unlikely(load16(ip + 6) & be16(0x3fff))) return 0;
    if (unlikely(load32(ip + 16) != load32(g->vip) || ip[9] != UDP || (ip[1] & 3))) return 0;
    const uint8_t *udp = ip + 20;
    uint32_t udp_len = be16(load16(udp + 4));
    if (unlikely(load16(udp + 2) != load16(g->vxlan_port) || udp_len < 30 || udp_len + 20 > total)) return 0;
    if (unlikely(!(udp[8] & 8))) return 0;
    uint32_t vni = be32(load32(udp + 12)) >> 8;
    const uint8_t *eth = d + OUTER;
    int inbound = vni != g->vm_vni;
    uint32_t eni = find_eni(p, inbound ? eth : eth + 6);
    if (unlikely(eni == NONE)) return 0;
    struct cpipe_eni_stats *stats = &p->eni_stats[eni];
    stats->rx_packets++;
    stats->rx_bytes += len;
    stats->direction_rx_packets[inbound]++;
    stats->direction_rx_bytes[inbound] += len;

    uint32_t left = len - OUTER;
    const uint8_t *in = eth + ETH;
    if (unlikely(load16(eth + 12) != be16(0x0800) || in[0] != 0x45)) return 0;
    uint32_t in_total = be16(load16(in + 2));
    if (unlikely(in_total < 20 || in_total + ETH > left || (load16(in + 6) & be16(0x3fff)))) return 0;
    const uint8_t *l4 = in + 20;
    uint32_t l4_len = in_total - 20;
    uint8_t proto = in[9];
    struct cpipe_key *k = &w->key;
    memset(k->sip, 0, 12);
    memcpy(k->sip + 12, in + 12, 4);
    memset(k->dip, 0, 12);
    memcpy(k->dip + 12, in + 16, 4);
    w->tcp_flags = 0;
    if (proto == UDP) {
        if (unlikely(l4_len < 8)) return 0;
        memcpy(k->sport, l4, 4);
    } else if (proto == TCP) {
        if (unlikely(l4_len < 20)) return 0;
        memcpy(k->sport, l4, 4);
        w->tcp_flags = l4[13];
        if (unlikely(w->tcp_flags & 7)) return 0;
    } else {
        return 0;
    }
    k->eni = (uint16_t)eni;
    k->proto = proto;
    k->flags = (uint8_t)((inbound ? 2 : 1) << 1);
    w->inner_len = (uint16_t)(in_total + ETH);
    w->hash = hash_key(k);
    return 1;
}

static inline uint32_t rewrite(struct cpipe *p, uint8_t *d, const struct work *w, struct entry *e, uint64_t now_ns) {
    const struct cpipe_globals *g = &p->globals;
    const struct cpipe_actions *a = &e->actions;
    e->stats.packets++;
    e->stats.bytes += w->inner_len;
    e->stats.last_seen_ns = now_ns;
    uint32_t out = w->inner_len + OUTER;

    uint8_t *eth = d + OUTER;
    if (a->set_dmac) memcpy(eth, a->dmac, 6);
    uint8_t ecn = eth[ETH + 1] & 3;
    uint8_t macs[12];
    memcpy(macs, d + 6, 6);
    memcpy(macs + 6, d, 6);
    memcpy(d, macs, 12);
    uint8_t *ip = d + ETH;
    uint32_t w0 = 0x45 | (uint32_t)((ip[1] & 0xfc) | ecn) << 8 | (uint32_t)be16((uint16_t)(w->inner_len + 36)) << 16;
    uint32_t w2 = g->ttl | UDP << 8;
    uint64_t sum = (uint64_t)w0 + w2 + load32(a->sip) + load32(a->dip);
    w2 |= (~fold(sum) & 0xffff) << 16;
    store32(ip, w0);
    store32(ip + 4, 0);
    store32(ip + 8, w2);
    memcpy(ip + 12, a->sip, 8);
    uint8_t *udp = ip + 20;
    memcpy(udp, a->sport, 2);
    memcpy(udp + 2, g->vxlan_port, 2);
    store16(udp + 4, be16((uint16_t)(w->inner_len + 16)));
    store16(udp + 6, 0);
    store32(udp + 8, 0x08);
    store32(udp + 12, be32(a->vni << 8));

    struct cpipe_eni_stats *stats = &p->eni_stats[w->key.eni];
    int inbound = w->key.flags >> 2;
    stats->tx_packets++;
    stats->tx_bytes += out;
    stats->direction_tx_packets[inbound]++;
    stats->direction_tx_bytes[inbound] += out;
    return out;
}

void cpipe_run(struct cpipe *p, struct cpipe_packet *packets, uint32_t n, uint64_t now_ns) {
    struct work work[CPIPE_BURST];
    if (n > CPIPE_BURST) n = CPIPE_BURST;
    for (uint32_t i = 0; i < n; i++) {
        __builtin_prefetch(packets[i].data);
        __builtin_prefetch(packets[i].data + 64);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct work *w = &work[i];
        w->ok = (uint8_t)parse(p, &packets[i], w);
        if (likely(w->ok)) __builtin_prefetch(&p->buckets[first_of(p, w->hash)]);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct work *w = &work[i];
        if (unlikely(!w->ok)) continue;
        uint16_t tag = tag_of(w->hash);
        uint32_t at = first_of(p, w->hash);
        uint32_t mask = ways(&p->buckets[at], tag);
        if (!mask) {
            at = other_of(p, at, tag);
            mask = ways(&p->buckets[at], tag);
        }
        w->candidate = mask ? p->buckets[at].index[__builtin_ctz(mask)] : NONE;
        if (likely(w->candidate != NONE)) {
            __builtin_prefetch(&p->entries[w->candidate]);
            __builtin_prefetch((const uint8_t *)&p->entries[w->candidate] + 64, 1);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        struct work *w = &work[i];
        struct entry *e = NULL;
        if (likely(w->ok && w->candidate != NONE)) {
            e = &p->entries[w->candidate];
            /* Another key with the same tag: rare. */
            if (unlikely(!same_key(&e->key, &w->key))) e = find(p, w->hash, &w->key);
        }
        packets[i].len = likely(e != NULL) ? rewrite(p, packets[i].data, w, e, now_ns) : 0;
    }
}

int cpipe_flow_stats(const struct cpipe *p, const struct cpipe_key *key, struct cpipe_flow_stats *out) {
    struct entry *e = find(p, hash_key(key), key);
    if (!e) return -1;
    *out = e->stats;
    return 0;
}

int cpipe_eni_stats(const struct cpipe *p, uint16_t eni, struct cpipe_eni_stats *out) {
    if (eni >= p->eni_capacity) return -1;
    *out = p->eni_stats[eni];
    return 0;
}
