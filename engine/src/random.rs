//! Random bytes: from the operating system, or, in the simulation, from the seed.

use std::io;

/// Fills `bytes`.
#[cfg(not(feature = "sim"))]
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    use std::io::Read;
    std::fs::File::open("/dev/urandom")?.read_exact(bytes)
}

/// Fills `bytes`.
#[cfg(feature = "sim")]
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    crate::sim::random::fill(bytes);
    Ok(())
}

/// A random number that is not 0.
pub fn random_u128() -> io::Result<u128> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes).max(1))
}

/// A random number that is not 0.
pub fn random_u64() -> io::Result<u64> {
    random_u128().map(|number| (number as u64).max(1))
}
