/* The hash map of `flow.c` as one would write it for this machine, with what eBPF's maps promise: others may
 * change it meanwhile, so elements have versions, odd while they are in the map. Chains in a slab, the hash keyed and of
 * the same strength as that of our maps (two multiplications). With -DCALLED look-ups are a call; with -DALONE nobody
 * else may change it, as no map of eBPF's can ask. */
#define BUCKETS 65536
#define CHAIN_ENDS 0x80000000
#ifdef ALONE
#define READ(word) (word)
#else
#define READ(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#endif

struct element {
	u32 next, version, hash, zero;
	struct key key;
	struct count count;
};

static u32 buckets[BUCKETS];
static struct element elements[BUCKETS];
static u32 used;
static u64 secret[4] = { 0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9, 0xff51afd7ed558ccd };
static int flows;

INLINE u32 hash_of(const struct key *key)
{
	const u64 *words = (const u64 *)key;
	unsigned __int128 sum = (unsigned __int128)(words[0] + secret[0]) * (words[1] + secret[1]);
	u64 low = sum, high = sum >> 64;
	sum = (unsigned __int128)(low ^ secret[2]) * (high ^ secret[3]);
	return ((u64)sum ^ (u64)(sum >> 64)) + low;
}

#ifdef CALLED
static __attribute__((noinline))
#else
INLINE
#endif
void *lookup(int *map, const struct key *key)
{
	const u64 *words = (const u64 *)key;
	u32 hash = hash_of(key), bucket = hash & (BUCKETS - 1);
again:
	for (u32 at = READ(buckets[bucket]); at; ) {
		/* Another chain's end: what led here was freed and taken again. */
		if (at & CHAIN_ENDS) {
			if (at != (CHAIN_ENDS | bucket))
				goto again;
			return 0;
		}
		struct element *e = &elements[at - 1];
		if (READ(e->hash) == hash) {
			const u64 *theirs = (const u64 *)&e->key;
#ifdef ALONE
			if (theirs[0] == words[0] && theirs[1] == words[1])
				return &e->count;
#else
			u32 version = READ(e->version);
			u64 one = READ(theirs[0]), two = READ(theirs[1]);
			if (version != READ(e->version))
				goto again;
			if (one == words[0] && two == words[1] && version & 1)
				return &e->count;
#endif
		}
		at = READ(e->next);
	}
	return 0;
}

/* Adds a flow that is not there. */
PROGRAM int add(const struct key *key)
{
	if (used == BUCKETS)
		return -1;
	struct element *e = &elements[used++];
	u32 *bucket;
	e->hash = hash_of(key);
	bucket = &buckets[e->hash & (BUCKETS - 1)];
	e->key = *key;
	e->next = *bucket ? *bucket : CHAIN_ENDS | (e->hash & (BUCKETS - 1));
	e->version = 1;
	*bucket = used;
	return 0;
}

/* For engines that call it. */
PROGRAM void *find(int *map, const struct key *key)
{
	return lookup(map, key);
}
