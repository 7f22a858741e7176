//! Randomness, for ids and jitter; never for anything that is replicated.

/// A source of random numbers.
pub trait Rng: Send + Sync + 'static {
    /// A uniformly distributed number.
    fn next_u64(&self) -> u64;
}

/// The operating system's randomness, through the thread's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRng;

impl Rng for OsRng {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}
