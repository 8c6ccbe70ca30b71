//! Libraries below the engine (hash maps, Raft's election timeouts) ask the C library for random bytes.
//! In this program they get bytes that follow from the seed: the functions below take the place of
//! the C library's when the program is linked.

use std::ffi::{c_int, c_long, c_uint, c_void};

use walrus_engine::sim::random;

/// In place of the C library's function.
///
/// # Safety
/// `buffer` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    if length > 0 {
        // SAFETY: the caller says that the buffer has this length.
        random::fill(unsafe { std::slice::from_raw_parts_mut(buffer.cast(), length) });
    }
    length as isize
}

/// In place of the C library's function.
///
/// # Safety
/// `buffer` must be valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getentropy(buffer: *mut c_void, length: usize) -> c_int {
    // SAFETY: as the caller says.
    unsafe { getrandom(buffer, length, 0) };
    0
}

type Syscall = unsafe extern "C" fn(c_long, ...) -> c_long;

/// In place of the C library's function, for those who ask the kernel for random bytes by number. All
/// other calls go to the C library. (A system call has at most six arguments, which lie in registers
/// whether the function is variadic or not.)
///
/// # Safety
/// As the system call that is asked for.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    first: c_long,
    second: c_long,
    third: c_long,
    fourth: c_long,
    fifth: c_long,
    sixth: c_long,
) -> c_long {
    if number == libc::SYS_getrandom {
        // SAFETY: the first two arguments of this system call are a buffer and its length.
        return unsafe { getrandom(first as *mut c_void, second as usize, third as c_uint) } as c_long;
    }
    // SAFETY: looks up a name; the text ends with a zero.
    let real = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) };
    assert!(!real.is_null(), "every C library has this function");
    // SAFETY: it is that function.
    let real: Syscall = unsafe { std::mem::transmute(real) };
    // SAFETY: the caller's arguments, unchanged.
    unsafe { real(number, first, second, third, fourth, fifth, sixth) }
}
