//! Packet memory shared with the kernel (the UMEM of AF_XDP sockets), cut into chunks.
//!
//! Whoever holds a [`Chunk`] or a lent [`Frame`] owns the bytes of one chunk; the kernel owns those in
//! its rings. One UMEM serves all sockets and threads of a target, so that a frame may come in on one
//! socket and leave by any other without a copy.
//!
//! Free chunks lie in a stock of the thread ([`Umem::keep_stock`]) that needs no atomics, and behind
//! it in a queue of batches that all threads share: one read-modify-write moves a batch. Threads
//! without a stock put single chunks into a second queue.

use std::cell::RefCell;
use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI64, Ordering};

use crossbeam_queue::ArrayQueue;
use nic_target::frame::HEADROOM;
use nic_target::{Frame, Lender, Lent};

/// Bytes of a chunk: a page, which is the most the kernel takes without huge pages.
pub const CHUNK: usize = 4096;

/// Longest received packet that fits one chunk, behind the headroom that the kernel leaves
/// (`XDP_PACKET_HEADROOM`).
pub const CAPACITY: usize = CHUNK - HEADROOM;

/// Chunks that move between a thread's stock and the others at once.
const BATCH: usize = 32;

/// Who takes back the frames of every UMEM.
pub static LENDER: Lender = Lender {
    name: "AF_XDP",
    release,
};

/// What a handle of a lent frame points at: one for each chunk, at the chunk's place in `slots`.
struct Slot {
    umem: NonNull<Shared>,
}

struct Shared {
    base: NonNull<u8>,
    slots: Box<[Slot]>,
    /// Free chunks of threads with a stock.
    batches: ArrayQueue<[u32; BATCH]>,
    /// Free chunks of others. Each queue has room for every chunk, so neither is ever full.
    singles: ArrayQueue<u32>,
    /// Most chunks that a thread's stock keeps.
    keep: usize,
    /// [`HOLDER`] for each `Umem`, and 1 for each lent frame that no stock counts: see [`put_down`].
    count: AtomicI64,
}

/// More than there are chunks. Stocks count frames they lent on their own (`Stock::lent`), so while
/// one exists the sum of frames here may be negative, but a holder outweighs it: the count reaches 0
/// only without holders, when all stocks have been added, and without frames.
const HOLDER: i64 = 1 << 32;

// SAFETY: `base` is memory that chunks' owners use, each its own part; the queues and the count are
// made for many threads; `slots` is written before anybody shares it.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping of `Umem::new`, of this length; no chunk is in use any more (`put_down`).
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.slots.len() * CHUNK) };
    }
}

impl Shared {
    fn put_one(&self, index: u32) {
        // There is room for every chunk.
        let _ = self.singles.push(index);
    }
}

/// Takes `n` off the count, and frees everything at 0.
///
/// # Safety
/// The caller owns `n` of the count, and does not use `shared` after.
unsafe fn put_down(shared: NonNull<Shared>, n: i64) {
    // SAFETY: alive, as the caller owns a part of the count. Release and acquire: whoever frees sees
    // everything that others did before they let go.
    let before = unsafe { shared.as_ref() }
        .count
        .fetch_sub(n, Ordering::AcqRel);
    if before == n {
        // SAFETY: `Umem::new` leaked this box; the count is 0, so this is the last user.
        drop(unsafe { Box::from_raw(shared.as_ptr()) });
    }
}

/// Takes a chunk back from a dropped frame, on any thread.
///
/// # Safety
/// `handle` is that of a frame lent by [`Local::lend`] which nobody uses any more.
unsafe fn release(handle: NonNull<()>) {
    // SAFETY: handles point at slots, of a UMEM that the frame keeps alive through the count.
    let shared = unsafe { handle.cast::<Slot>().as_ref() }.umem;
    // SAFETY: as above.
    let place = unsafe { shared.as_ref() };
    let Some(index) = place.index(handle.cast()) else {
        return;
    };
    // Not when the thread is ending, or in the middle of using its stock.
    let kept = STOCK.try_with(|stock| {
        let Ok(mut stock) = stock.try_borrow_mut() else {
            return false;
        };
        match stock.as_mut().filter(|s| s.umem.shared == shared) {
            Some(stock) => {
                stock.give(index);
                stock.lent -= 1;
                true
            }
            None => false,
        }
    });
    if kept != Ok(true) {
        place.put_one(index);
        // SAFETY: the frame's part of the count, and the last use here.
        unsafe { put_down(shared, 1) };
    }
}

impl Shared {
    /// Which chunk a slot is of, if it is one of ours.
    fn index(&self, slot: NonNull<Slot>) -> Option<u32> {
        let at = (slot.as_ptr() as usize).checked_sub(self.slots.as_ptr() as usize)?;
        let index = at / size_of::<Slot>();
        // Fewer than 2^32 chunks (`Umem::new`).
        (index < self.slots.len()).then_some(index as u32)
    }
}

thread_local! {
    static STOCK: RefCell<Option<Stock>> = const { RefCell::new(None) };
}

/// Free chunks of one thread.
struct Stock {
    umem: Umem,
    free: Vec<u32>,
    /// Frames this thread lent, less those that came back to it.
    lent: i64,
}

impl Stock {
    fn give(&mut self, index: u32) {
        if self.free.len() >= self.umem.place().keep {
            self.spill();
        }
        self.free.push(index);
    }

    /// Gives a batch, or what there is, to all.
    fn spill(&mut self) {
        let place = self.umem.place();
        let rest = self.free.len().saturating_sub(BATCH);
        match <[u32; BATCH]>::try_from(&self.free[rest..]) {
            Ok(batch) => {
                let _ = place.batches.push(batch);
            }
            Err(_) => self.free[rest..].iter().for_each(|&i| place.put_one(i)),
        }
        self.free.truncate(rest);
    }

    fn take(&mut self) -> Option<u32> {
        if self.free.is_empty() {
            let place = self.umem.place();
            match place.batches.pop() {
                Some(batch) => self.free.extend(batch),
                None => self
                    .free
                    .extend(std::iter::from_fn(|| place.singles.pop()).take(BATCH)),
            }
        }
        self.free.pop()
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        while !self.free.is_empty() {
            self.spill();
        }
        // From here the count has the frames. `umem` is a holder until after.
        self.umem
            .place()
            .count
            .fetch_add(self.lent, Ordering::AcqRel);
    }
}

/// A handle of the memory; it lives until the last handle and the last lent frame are gone.
pub struct Umem {
    shared: NonNull<Shared>,
}

// SAFETY: a counted reference to what is `Send` and `Sync`.
unsafe impl Send for Umem {}
// SAFETY: as above.
unsafe impl Sync for Umem {}

impl Umem {
    /// Maps memory of `chunks` chunks, all free. At least one.
    pub fn new(chunks: u32) -> io::Result<Self> {
        let chunks = chunks.max(1) as usize;
        let len = chunks * CHUNK;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: our own mapping, of this length; advice changes no contents, and is only advice.
        unsafe { libc::madvise(base, len, libc::MADV_HUGEPAGE) };
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let shared = Box::new(Shared {
            base,
            slots: Box::default(),
            batches: ArrayQueue::new(chunks.div_ceil(BATCH)),
            singles: ArrayQueue::new(chunks),
            keep: (chunks / 8).clamp(BATCH, 8 * BATCH),
            count: AtomicI64::new(HOLDER),
        });
        for index in 0..chunks as u32 {
            shared.put_one(index);
        }
        let mut shared = NonNull::from(Box::leak(shared));
        let slots = (0..chunks).map(|_| Slot { umem: shared }).collect();
        // SAFETY: just leaked; nobody else knows the address yet.
        unsafe { shared.as_mut() }.slots = slots;
        Ok(Self { shared })
    }

    fn place(&self) -> &Shared {
        // SAFETY: alive while a handle is: each has its part of the count.
        unsafe { self.shared.as_ref() }
    }

    /// Chunks there are.
    pub fn chunks(&self) -> usize {
        self.place().slots.len()
    }

    /// Free chunks that this thread can take: of its stock and of the common queues.
    pub fn free(&self) -> usize {
        let place = self.place();
        let own = STOCK.try_with(|stock| match stock.try_borrow().as_deref() {
            Ok(Some(stock)) if stock.umem.shared == self.shared => stock.free.len(),
            _ => 0,
        });
        own.unwrap_or_default() + place.singles.len() + place.batches.len() * BATCH
    }

    /// True when a frame is a chunk of this memory.
    pub fn has(&self, frame: &Frame) -> bool {
        frame
            .lent_by(&LENDER)
            .is_some_and(|handle| self.place().index(handle.cast()).is_some())
    }

    /// Address and length of the memory, to register it.
    pub(super) fn region(&self) -> (u64, u64) {
        let place = self.place();
        (
            place.base.as_ptr() as u64,
            (place.slots.len() * CHUNK) as u64,
        )
    }

    /// Gives the calling thread a stock of free chunks of this UMEM, until the thread ends or asks for
    /// another UMEM's.
    pub fn keep_stock(&self) {
        STOCK.with_borrow_mut(|stock| {
            if stock.as_ref().is_some_and(|s| s.umem.shared == self.shared) {
                return;
            }
            *stock = Some(Stock {
                umem: self.clone(),
                free: Vec::with_capacity(self.place().keep + BATCH),
                lent: 0,
            });
        });
    }

    /// Takes, gives and lends chunks. Costs no atomics on a thread that keeps a stock.
    pub fn local<'u, R>(&'u self, work: impl FnOnce(&mut Local<'u, '_>) -> R) -> R {
        let mut work = Some(work);
        // Without the stock where it is in use further up, or the thread is ending.
        let done = STOCK.try_with(|stock| {
            let mut stock = stock.try_borrow_mut().ok()?;
            let stock = stock.as_mut().filter(|s| s.umem.shared == self.shared);
            Some(work.take()?(&mut Local { umem: self, stock }))
        });
        match (done, work) {
            (Ok(Some(result)), _) => result,
            (_, Some(work)) => work(&mut Local {
                umem: self,
                stock: None,
            }),
            (_, None) => unreachable!("taken only where its result is kept"),
        }
    }

    /// The chunk of an address in the memory that the kernel gave back, and the offset in it.
    ///
    /// # Safety
    /// The caller owns the chunk from now on.
    pub(super) unsafe fn chunk_at(&self, address: u64) -> Option<(Chunk<'_>, usize)> {
        let index = usize::try_from(address / CHUNK as u64).ok()?;
        let slot = NonNull::from(self.place().slots.get(index)?);
        let chunk = Chunk {
            slot,
            umem: PhantomData,
        };
        Some((chunk, address as usize % CHUNK))
    }

    /// Address of a chunk in the memory; `None` for another UMEM's.
    pub(super) fn address_of(&self, chunk: &Chunk<'_>) -> Option<u64> {
        self.place()
            .index(chunk.slot)
            .map(|index| u64::from(index) * CHUNK as u64)
    }
}

impl Clone for Umem {
    fn clone(&self) -> Self {
        self.place().count.fetch_add(HOLDER, Ordering::Relaxed);
        Self {
            shared: self.shared,
        }
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: this handle's part of the count, and its last use.
        unsafe { put_down(self.shared, HOLDER) };
    }
}

impl std::fmt::Debug for Umem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Umem")
            .field("chunks", &self.chunks())
            .finish_non_exhaustive()
    }
}

/// One chunk: whoever has this owns its bytes. To be given back, lent or handed to the kernel; a chunk
/// that is merely dropped is lost to its UMEM.
#[must_use]
#[derive(Debug)]
pub struct Chunk<'u> {
    slot: NonNull<Slot>,
    umem: PhantomData<&'u Umem>,
}

impl Chunk<'_> {
    /// Its [`CHUNK`] bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.raw_bytes().1
    }

    fn raw_bytes(&mut self) -> (NonNull<u8>, &mut [u8]) {
        // SAFETY: the UMEM outlives `'u`, and with it slots and memory.
        let place = unsafe { self.slot.as_ref().umem.as_ref() };
        // Slots are only made into chunks by their own UMEM.
        let index = place.index(self.slot).unwrap_or_default() as usize;
        // SAFETY: inside the mapping, which has `CHUNK` bytes for each slot.
        let base = unsafe { place.base.add(index * CHUNK) };
        // SAFETY: `CHUNK` mapped bytes that the chunk's owner alone uses, borrowed as long as `self`.
        (base, unsafe {
            std::slice::from_raw_parts_mut(base.as_ptr(), CHUNK)
        })
    }
}

/// A UMEM's free chunks, as one thread reaches them.
pub struct Local<'u, 's> {
    umem: &'u Umem,
    stock: Option<&'s mut Stock>,
}

impl<'u> Local<'u, '_> {
    /// A free chunk, if there is one.
    pub fn take(&mut self) -> Option<Chunk<'u>> {
        let place = self.umem.place();
        let index = match &mut self.stock {
            Some(stock) => stock.take(),
            None => place.singles.pop().or_else(|| {
                let [first, rest @ ..] = place.batches.pop()?;
                rest.iter().for_each(|&index| place.put_one(index));
                Some(first)
            }),
        }?;
        Some(Chunk {
            slot: NonNull::from(place.slots.get(index as usize)?),
            umem: PhantomData,
        })
    }

    /// Gives a chunk back.
    pub fn give(&mut self, chunk: Chunk<'u>) {
        let Some(index) = self.umem.place().index(chunk.slot) else {
            return;
        };
        match &mut self.stock {
            Some(stock) => stock.give(index),
            None => self.umem.place().put_one(index),
        }
    }

    /// Makes a chunk a frame whose packet is at `start..start + len`; the chunk, when that is not in it
    /// or the chunk is another UMEM's.
    pub fn lend(
        &mut self,
        mut chunk: Chunk<'u>,
        start: usize,
        len: usize,
    ) -> Result<Frame, Chunk<'u>> {
        let fits = start.checked_add(len).is_some_and(|end| end <= CHUNK);
        if !fits || self.umem.address_of(&chunk).is_none() {
            return Err(chunk);
        }
        match &mut self.stock {
            Some(stock) => stock.lent += 1,
            None => {
                self.umem.place().count.fetch_add(1, Ordering::Relaxed);
            }
        }
        let lent = Lent {
            lender: &LENDER,
            handle: chunk.slot.cast(),
        };
        let base = chunk.raw_bytes().0;
        // SAFETY: `base` is at `CHUNK` bytes, mapped zeroed and so initialised, which only the chunk's
        // owner uses: the frame from now on, for `chunk` ends here. The frame's part of the count
        // keeps them mapped. `start + len` is inside, as checked.
        Ok(unsafe { Frame::lend(base, CHUNK as u32, start as u32, (start + len) as u32, lent) })
    }

    /// The chunk under a frame of this UMEM, and its packet's start and length in it. Otherwise the
    /// frame, as it was.
    pub fn reclaim(&mut self, frame: Frame) -> Result<(Chunk<'u>, usize, usize), Frame> {
        if !self.umem.has(&frame) {
            return Err(frame);
        }
        let (handle, start, end) = frame.into_lent(&LENDER)?;
        match &mut self.stock {
            Some(stock) => stock.lent -= 1,
            // Not below 1: `self.umem` is a holder.
            None => {
                self.umem.place().count.fetch_sub(1, Ordering::AcqRel);
            }
        }
        let chunk = Chunk {
            slot: handle.cast(),
            umem: PhantomData,
        };
        Ok((chunk, start as usize, (end - start) as usize))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn lend(umem: &Umem) -> Option<Frame> {
        umem.local(|local| {
            let chunk = local.take()?;
            Some(local.lend(chunk, HEADROOM, 64).expect("fits"))
        })
    }

    #[test]
    fn frames_are_chunks_and_come_back_from_any_thread() {
        let umem = Umem::new(256).expect("memory");
        for with_stock in [false, true] {
            if with_stock {
                umem.keep_stock();
            }
            let mut frames = std::iter::from_fn(|| lend(&umem)).collect::<Vec<_>>();
            assert_eq!((frames.len(), umem.free()), (256, 0));
            for (i, frame) in frames.iter_mut().enumerate() {
                frame.data_mut().fill(i as u8);
            }
            for (i, frame) in frames.iter().enumerate() {
                assert_eq!(frame.data(), [i as u8; 64]);
            }
            let there = frames.split_off(100);
            thread::spawn(move || drop(there)).join().expect("dropped");
            assert_eq!(umem.free(), 156);
            drop(frames);
            assert_eq!(umem.free(), 256);
        }
    }

    #[test]
    fn memory_lives_as_long_as_any_of_its_frames() {
        // Would be a fault of the test's process, not a failed assertion, if it did not.
        let (give, take) = mpsc::channel::<Frame>();
        let owner = thread::spawn(move || {
            let umem = Umem::new(64).expect("memory");
            umem.keep_stock();
            for i in 0..64 {
                let mut frame = lend(&umem).expect("a chunk");
                frame.data_mut().fill(i);
                give.send(frame).expect("somebody listens");
            }
        });
        owner.join().expect("ended, and its stock with it");
        let frames = take.into_iter().collect::<Vec<_>>();
        for (i, frame) in frames.iter().enumerate() {
            assert_eq!(frame.data(), [i as u8; 64]);
        }
        let half = frames
            .into_iter()
            .enumerate()
            .partition::<Vec<_>, _>(|(i, _)| i % 2 == 0);
        let other = thread::spawn(move || drop(half.0));
        drop(half.1);
        other.join().expect("dropped");
    }

    #[test]
    fn another_memorys_frames_and_bounds_outside_are_refused() {
        let (ours, theirs) = (Umem::new(2).expect("memory"), Umem::new(2).expect("memory"));
        let frame = lend(&theirs).expect("a chunk");
        let frame = ours
            .local(|local| local.reclaim(frame))
            .expect_err("not ours");
        drop(frame);
        assert_eq!((ours.free(), theirs.free()), (2, 2));
        let frame = ours.local(|local| local.reclaim(Frame::new()));
        assert!(frame.is_err());
        ours.local(|local| {
            let chunk = local.take().expect("a chunk");
            let chunk = local.lend(chunk, CHUNK - 1, 2).expect_err("too long");
            let chunk = local.lend(chunk, usize::MAX, 2).expect_err("overflows");
            let frame = local.lend(chunk, CHUNK - 1, 1).expect("fits");
            let (chunk, start, len) = local.reclaim(frame).expect("ours");
            assert_eq!((start, len), (CHUNK - 1, 1));
            local.give(chunk);
        });
        assert_eq!(ours.free(), 2);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Lend,
        Drop(prop::sample::Index),
        DropElsewhere(prop::sample::Index),
        Reclaim(prop::sample::Index),
        KeepStock,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Lend),
            2 => any::<prop::sample::Index>().prop_map(Step::Drop),
            1 => any::<prop::sample::Index>().prop_map(Step::DropElsewhere),
            1 => any::<prop::sample::Index>().prop_map(Step::Reclaim),
            1 => Just(Step::KeepStock),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Against the dumbest account of free chunks: a number.
        #[test]
        fn no_chunk_is_lost_or_twice_in_use(chunks in 1u32..200, steps in prop::collection::vec(step(), 0..300)) {
            let umem = Umem::new(chunks).expect("memory");
            let mut out: Vec<Frame> = Vec::new();
            for step in steps {
                match step {
                    Step::Lend => match lend(&umem) {
                        Some(frame) => out.push(frame),
                        None => prop_assert_eq!(out.len(), chunks as usize),
                    },
                    Step::KeepStock => umem.keep_stock(),
                    Step::Drop(at) if !out.is_empty() => drop(out.swap_remove(at.index(out.len()))),
                    Step::DropElsewhere(at) if !out.is_empty() => {
                        let frame = out.swap_remove(at.index(out.len()));
                        thread::spawn(move || drop(frame)).join().expect("dropped");
                    }
                    Step::Reclaim(at) if !out.is_empty() => {
                        let frame = out.swap_remove(at.index(out.len()));
                        umem.local(|local| {
                            let (chunk, ..) = local.reclaim(frame).expect("ours");
                            local.give(chunk);
                        });
                    }
                    _ => {}
                }
                prop_assert_eq!(umem.free() + out.len(), chunks as usize);
                let mut places = out.iter().map(|f| f.data().as_ptr()).collect::<Vec<_>>();
                places.sort_unstable();
                places.dedup();
                prop_assert_eq!(places.len(), out.len());
            }
        }
    }
}
