//! The metadata of several nodes in one process: real TCP on free ports, real directories.

mod support;

mod group;
mod identity;
mod leases;
mod log;
