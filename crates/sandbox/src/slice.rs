//! How long a thread wants to run at a time.

use std::{io, time::Duration};

/// Asks that this thread run for no longer than `slice` at a time (100 µs to 100 ms) and, in return, at once when it is woken, where a
/// thread with a longer slice runs: one that waits for others and only passes bytes on does not wait for what they do after that.
///
/// Its niceness stays. Linux before 6.12 takes the wish and ignores it.
///
/// # Errors
/// The kernel's.
pub fn slice_set(slice: Duration) -> io::Result<()> {
    // SAFETY: all zeros are valid fields; it is read by the kernel alone.
    let mut wish: libc::sched_attr = unsafe { std::mem::zeroed() };
    wish.size = u32::try_from(size_of::<libc::sched_attr>()).expect("a small structure");
    wish.sched_policy = libc::SCHED_OTHER as u32;
    wish.sched_nice = rustix::process::getpriority_process(None)?;
    wish.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the structure lives through the call and says its own size; 0 is the calling thread.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn niceness_stays() {
        let before = rustix::process::getpriority_process(None).unwrap();
        slice_set(Duration::from_micros(100)).unwrap();
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), before);
    }
}
