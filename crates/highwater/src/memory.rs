//! What a job frees it soon needs again: memory is not given back to the system in between.
//!
//! Batches are made, handed on and freed, many times a second. The allocator of the GNU C library gives memory at the end of its
//! heap back as soon as 128 kB of it are free, and then has each page made anew, full of zeros: that is a quarter of the time of a job that does little with
//! its rows. So a job's process keeps some of it. Other allocators are left as they are.

/// So much that is free at the end of a heap is kept: about what a worker may have under way.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 32 << 20;

/// What is larger comes from the system and goes back to it: tables that grow, and not batches.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: libc::c_int = 4 << 20;

/// Has the C library keep what is freed, unless its environment says how it is to do that.
pub(crate) fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let names = ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"];
        if names.iter().any(|name| std::env::var_os(name).is_some()) {
            return;
        }
        // SAFETY: it sets two numbers under the allocator's lock, at any time and from any thread. It may refuse to, and then all
        // stays as it was.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        }
    }
}
