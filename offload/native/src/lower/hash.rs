//! Look-ups in hash maps whose memory is known: [`dash_wire::abi::HashLayout`].

use super::*;
use crate::analysis;
use crate::calls::parts;
use dash_wire::abi::hash_map::{
    self, BUCKETS, ELEMENTS, END, HASH, KEY, KEY_WORDS, NEXT, SECRETS, VERSION,
};

impl Lowering<'_> {
    /// Searches the map's chain of the key. What is led astray, by an element that is freed or taken meanwhile, asks
    /// the map. Returns whether it ended the block.
    pub(super) fn hash_lookup(
        &mut self,
        place: &Place<'_>,
        i: usize,
        map: u32,
        key: Option<analysis::Place>,
    ) -> Result<bool, NativeError> {
        let step = place.unit.region.steps[i];
        let depth = usize::from(step.depth);
        let Some(def) = self.object.maps.get(map as usize) else {
            return Err(place.unit.region.error(i, Reason::UnknownMap(map)));
        };
        let (key_size, value_size) = (def.key_size as usize, def.value_size as usize);
        let mask = i64::from(hash_map::buckets(def.max_entries)) - 1;
        let words = self.key_words(place, depth, key, def.key_size);
        let handle = self.get(depth, Reg::R1);
        let hash = self.hash(handle, &words);

        let (chain, element, same, ended, asked) = (
            self.b.create_block(),
            self.b.create_block(),
            self.b.create_block(),
            self.b.create_block(),
            self.b.create_block(),
        );
        let (hit, miss) = (self.b.create_block(), self.b.create_block());
        let result = self.b.append_block_param(hit, types::I64);
        let link = self.b.append_block_param(chain, types::I32);
        self.b.set_cold_block(asked);
        self.b.set_cold_block(ended);

        let flags = self.flags.table;
        let buckets = self.b.ins().load(types::I64, flags, handle, BUCKETS);
        let elements = self.b.ins().load(types::I64, flags, handle, ELEMENTS);
        let bucket = self.b.ins().band_imm_u(hash, mask);
        let at = self.b.ins().uextend(types::I64, bucket);
        let at = self.b.ins().ishl_imm_u(at, 2);
        let at = self.b.ins().iadd(buckets, at);
        let first = self.shared(types::I32, at, 0);
        self.b.ins().jump(chain, &[BlockArg::Value(first)]);

        // 0 and links with the mark end the chain: less one, both are the greatest numbers.
        self.b.switch_to_block(chain);
        let index = self.b.ins().iadd_imm_s(link, -1);
        let last = i64::from(END - 1);
        let ends = self
            .b
            .ins()
            .icmp_imm_u(IntCC::UnsignedGreaterThanOrEqual, index, last);
        self.b.ins().brif(ends, ended, &[], element, &[]);

        self.b.switch_to_block(element);
        let size = hash_map::element(key_size, value_size) as i64;
        let at = self.b.ins().uextend(types::I64, index);
        let at = self.b.ins().imul_imm_u(at, size);
        let at = self.b.ins().iadd(elements, at);
        let theirs = self.shared(types::I32, at, HASH);
        let alike = self.b.ins().icmp(IntCC::Equal, theirs, hash);
        let onward = self.b.create_block();
        self.b.ins().brif(alike, same, &[], onward, &[]);

        self.b.switch_to_block(onward);
        let next = self.shared(types::I32, at, NEXT);
        self.b.ins().jump(chain, &[BlockArg::Value(next)]);

        // Each word is read whole, after the version and before it is read again.
        self.b.switch_to_block(same);
        let version = self.shared(types::I32, at, VERSION);
        for (n, word) in words.iter().enumerate() {
            let theirs = self.shared(types::I64, at, KEY + n * 8);
            let equal = self.b.ins().icmp(IntCC::Equal, theirs, *word);
            let next = self.b.create_block();
            self.b.ins().brif(equal, next, &[], asked, &[]);
            self.b.switch_to_block(next);
        }
        let again = self.shared(types::I32, at, VERSION);
        let kept = self.b.ins().icmp(IntCC::Equal, version, again);
        let live = self.b.create_block();
        self.b.ins().brif(kept, live, &[], asked, &[]);
        self.b.switch_to_block(live);
        let odd = self.b.ins().band_imm_u(version, 1);
        let value = self
            .b
            .ins()
            .iadd_imm_u(at, hash_map::value(key_size) as i64);
        self.b
            .ins()
            .brif(odd, hit, &[BlockArg::Value(value)], asked, &[]);

        // Only the mark of this very chain, or no chain, is its end.
        self.b.switch_to_block(ended);
        let mark = self.b.ins().bor_imm_u(bucket, i64::from(END));
        let own = self.b.ins().icmp(IntCC::Equal, link, mark);
        let none = self.b.ins().icmp_imm_u(IntCC::Equal, link, 0);
        let over = self.b.ins().bor(own, none);
        self.b.ins().brif(over, miss, &[], asked, &[]);

        self.b.switch_to_block(asked);
        let slot = self.key_slot(def.key_size.next_multiple_of(8));
        let flags = self.flags.key;
        let pointer = self.b.ins().stack_addr(types::I64, slot, 0);
        for (n, word) in words.iter().enumerate() {
            self.b.ins().store(flags, *word, pointer, n as i32 * 8);
        }
        let found = self.lookup_in(handle, pointer);
        self.b
            .ins()
            .brif(found, hit, &[BlockArg::Value(found)], miss, &[]);

        self.either(place, i, (hit, result), miss)
    }

    /// The key's words, zeros behind it.
    fn key_words(
        &mut self,
        place: &Place<'_>,
        depth: usize,
        key: Option<analysis::Place>,
        size: u32,
    ) -> Vec<Value> {
        let mut words: Vec<Value> = Vec::new();
        for (off, bytes) in parts(size) {
            let part = match key {
                Some(at) => {
                    let at = analysis::Place {
                        off: at.off + off as i16,
                        ..at
                    };
                    self.load_stack(place, at, bytes)
                }
                None => {
                    let base = self.get(depth, Reg::R2);
                    let flags = self.flags.heap;
                    let size = super::memory::size_of_bytes(bytes);
                    self.load_memory(flags, base, off as i32, size, false)
                }
            };
            match off % 8 {
                0 => words.push(part),
                within => {
                    let part = self.b.ins().ishl_imm_u(part, i64::from(within) * 8);
                    if let Some(word) = words.last_mut() {
                        *word = self.b.ins().bor(*word, part);
                    }
                }
            }
        }
        words
    }

    /// The lower 32 bits of the key's hash: see [`hash_map::SECRET`].
    fn hash(&mut self, handle: Value, words: &[Value]) -> Value {
        let flags = self.flags.table;
        let secret = |this: &mut Self, n: usize| {
            let at = SECRETS + n as i32 * 8;
            this.b.ins().load(types::I64, flags, handle, at)
        };
        let mut sum = None;
        for (pair, words) in words.chunks(2).enumerate() {
            let keyed: [Value; 2] = std::array::from_fn(|n| {
                let k = secret(self, pair * 2 + n);
                match words.get(n) {
                    Some(word) => self.b.ins().iadd(*word, k),
                    None => k,
                }
            });
            let product = self.wide_product(keyed);
            sum = Some(match sum {
                None => product,
                Some(sum) => {
                    let [a, b] = [sum, product].map(|(low, high)| self.b.ins().iconcat(low, high));
                    let both = self.b.ins().iadd(a, b);
                    self.b.ins().isplit(both)
                }
            });
        }
        let (low, high) = sum.unwrap_or_else(|| {
            let zero = self.iconst(0);
            (zero, zero)
        });
        let f = [secret(self, KEY_WORDS), secret(self, KEY_WORDS + 1)];
        let a = self.b.ins().bxor(low, f[0]);
        let b = self.b.ins().bxor(high, f[1]);
        let (x, y) = self.wide_product([a, b]);
        let folded = self.b.ins().bxor(x, y);
        let hash = self.b.ins().iadd(folded, low);
        self.b.ins().ireduce(types::I32, hash)
    }

    /// The halves of a product, the lower first: one instruction on x86-64.
    fn wide_product(&mut self, factors: [Value; 2]) -> (Value, Value) {
        let [a, b] = factors.map(|n| self.b.ins().uextend(types::I128, n));
        let product = self.b.ins().imul(a, b);
        self.b.ins().isplit(product)
    }

    /// Reads a word of the map that others may change, before anything that comes later.
    fn shared(&mut self, ty: types::Type, base: Value, off: usize) -> Value {
        let at = match off {
            0 => base,
            _ => self.b.ins().iadd_imm_u(base, off as i64),
        };
        let flags = self.flags.heap.with_aligned();
        self.b.ins().atomic_load(ty, flags, at)
    }
}
