/* DPDK's longest-prefix tables, in loops like those of src/lookups.rs. EAL runs already. */
#include <stdint.h>
#include <stdio.h>

#include <rte_lpm.h>
#include <rte_lpm6.h>

static const char *name(void)
{
	static int n;
	static char text[32];
	snprintf(text, sizeof(text), "bench%d", n++);
	return text;
}

struct rte_lpm *dash_lpm4_new(uint32_t rules, uint32_t tbl8s)
{
	struct rte_lpm_config config = { .max_rules = rules, .number_tbl8s = tbl8s };
	return rte_lpm_create(name(), 0, &config);
}

int dash_lpm4_add(struct rte_lpm *lpm, uint32_t ip, uint8_t depth, uint32_t hop)
{
	return rte_lpm_add(lpm, ip, depth, hop);
}

struct rte_lpm6 *dash_lpm6_new(uint32_t rules, uint32_t tbl8s)
{
	struct rte_lpm6_config config = { .max_rules = rules, .number_tbl8s = tbl8s };
	return rte_lpm6_create(name(), 0, &config);
}

int dash_lpm6_add(struct rte_lpm6 *lpm, const uint8_t *ip, uint8_t depth, uint32_t hop)
{
	return rte_lpm6_add(lpm, ip, depth, hop);
}

void dash_lpm4_free(struct rte_lpm *lpm)
{
	rte_lpm_free(lpm);
}

void dash_lpm6_free(struct rte_lpm6 *lpm)
{
	rte_lpm6_free(lpm);
}

/* Finds n addresses; `zero` is 0 and makes each wait for the one before when `chain` is set. */
uint64_t dash_lpm4_find(struct rte_lpm *const *lpm, const uint32_t *which, const uint32_t *ip,
			size_t n, int chain, uint32_t zero)
{
	uint64_t found = 0;
	uint32_t hop = 0;
	for (size_t i = 0; i < n; i++) {
		uint32_t address = chain ? ip[i] ^ (hop & zero) : ip[i];
		found += rte_lpm_lookup(lpm[which[i]], address, &hop) == 0;
	}
	return found;
}

uint64_t dash_lpm6_find(struct rte_lpm6 *const *lpm, const uint32_t *which, const uint8_t *ip,
			size_t n, int chain, uint32_t zero)
{
	uint64_t found = 0;
	uint32_t hop = 0;
	for (size_t i = 0; i < n; i++) {
		const uint8_t *address = ip + 16 * (chain ? i ^ (hop & zero) : i);
		found += rte_lpm6_lookup(lpm[which[i]], address, &hop) == 0;
	}
	return found;
}
