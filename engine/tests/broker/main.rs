//! The broker from the outside: real TCP on a free port, one scenario a file. Where a scenario
//! needs a process that can be killed, it runs the real binary.

#[path = "../support/small_disk.rs"]
mod small_disk;
mod support;

mod admin;
mod bad_frames;
mod bad_requests;
mod cursors;
mod damage;
mod disk_full;
mod fetch;
mod killed;
mod large_replies;
mod lifecycle;
mod many_topics;
mod pipelining;
mod retention;
mod rollover;
mod slow_clients;
mod status;
