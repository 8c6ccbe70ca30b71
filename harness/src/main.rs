//! `harness`: runs one workload on several systems, proves what was stored, and draws it.

pub mod csv;

fn main() {}
