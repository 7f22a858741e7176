//! An engine from a library that may panic over what it finds in its files: that is damage like any other, and the store
//! is rebuilt. An engine that has panicked is not used again; its files stay open until the process ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use holdfast_env::panics::caught;

use super::{Batch, Engine, Pair};
use crate::error::StoreError;

/// What is called through here cannot end the process.
pub(crate) struct Guarded {
    /// Taken by the drop alone.
    engine: Option<Arc<dyn Engine>>,
    has_panicked: AtomicBool,
}

/// Opens an engine, and guards it.
pub(crate) fn open<E: Engine>(open: impl FnOnce() -> Result<E, StoreError>) -> Result<Guarded, StoreError> {
    Ok(Guarded::new(Arc::new(caught(open).map_err(panicked)??)))
}

fn panicked(message: impl AsRef<str>) -> StoreError {
    StoreError::damaged(format!("the engine cannot use its files: {}", message.as_ref()))
}

impl Guarded {
    /// Guards an engine.
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine: Some(engine), has_panicked: AtomicBool::new(false) }
    }

    fn call<T>(&self, call: impl FnOnce(&dyn Engine) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.has_panicked.load(Ordering::Acquire) {
            return Err(panicked("it has panicked before"));
        }
        let engine = self.engine.as_ref().expect("it is taken by the drop alone");
        caught(|| call(&**engine)).unwrap_or_else(|message| {
            self.has_panicked.store(true, Ordering::Release);
            Err(panicked(message))
        })
    }
}

impl Engine for Guarded {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.call(|engine| engine.get(key))
    }

    fn get_le(&self, key: &[u8]) -> Result<Option<Pair>, StoreError> {
        self.call(|engine| engine.get_le(key))
    }

    fn scan(&self, from: &[u8], pairs_max: usize, bytes_max: usize) -> Result<Vec<Pair>, StoreError> {
        self.call(|engine| engine.scan(from, pairs_max, bytes_max))
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.call(|engine| engine.apply(batch))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.call(Engine::flush)
    }

    fn disk_bytes(&self) -> u64 {
        // A figure: what is wrong is told by the next call that matters.
        self.call(|engine| Ok(engine.disk_bytes())).unwrap_or_default()
    }

    fn pack_bytes(&self) -> usize {
        self.engine.as_ref().expect("it is taken by the drop alone").pack_bytes()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let engine = self.engine.take();
        if self.has_panicked.load(Ordering::Acquire) {
            // What it left is not fit to be closed.
            return std::mem::forget(engine);
        }
        if let Err(message) = caught(|| drop(engine)) {
            tracing::error!(message, "closing the stable store");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Panics;

    impl Engine for Panics {
        fn get(&self, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
            panic!("page {}", 7)
        }
        fn get_le(&self, _: &[u8]) -> Result<Option<Pair>, StoreError> {
            Ok(None)
        }
        fn scan(&self, _: &[u8], _: usize, _: usize) -> Result<Vec<Pair>, StoreError> {
            Ok(Vec::new())
        }
        fn apply(&self, _: Batch) -> Result<(), StoreError> {
            Ok(())
        }
        fn flush(&self) -> Result<(), StoreError> {
            Ok(())
        }
        fn disk_bytes(&self) -> u64 {
            1
        }
    }

    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("it must not be closed")
        }
    }

    #[test]
    fn a_panic_is_damage_and_the_engine_is_not_used_again() {
        let guarded = Guarded::new(Arc::new(Panics));
        assert!(guarded.get_le(b"k").unwrap().is_none());
        let told = guarded.get(b"k").unwrap_err();
        assert!(matches!(&told, StoreError::Damaged(why) if why.contains("page 7")), "{told}");
        assert!(matches!(guarded.flush(), Err(StoreError::Damaged(_))));
        assert_eq!(guarded.disk_bytes(), 0);
    }

    #[test]
    fn a_panic_at_the_start_is_damage() {
        let opened = open(|| -> Result<Panics, StoreError> { panic!("no root") });
        assert!(matches!(opened.map(|_| ()), Err(StoreError::Damaged(why)) if why.contains("no root")));
    }

    #[test]
    fn one_at_the_end_is_reported() {
        drop(Guarded::new(Arc::new(Panics)));
    }
}
