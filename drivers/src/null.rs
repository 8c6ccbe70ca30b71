//! The generator into nothing: what the harness itself costs.

use std::time::Duration;

use crate::{Ack, Consumer, Deployment, DriverError, Producer, Server, Session, Setup, System, Tools};

/// Acknowledges every record at once and keeps none.
#[derive(Debug, Default)]
pub struct Null;

impl System for Null {
    fn name(&self) -> &'static str {
        "null"
    }

    fn deployment(&self) -> Deployment {
        Deployment::Embedded
    }

    fn version(&self, _tools: &Tools) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn check(&self, _tools: &Tools) -> Result<(), DriverError> {
        Ok(())
    }

    fn start(&self, _setup: &Setup) -> Result<Option<Box<dyn Server>>, DriverError> {
        Ok(None)
    }

    fn open(&self, _setup: &Setup) -> Result<Box<dyn Session>, DriverError> {
        Ok(Box::new(NullSession))
    }
}

struct NullSession;

impl Session for NullSession {
    fn create_topics(&self) -> Result<(), DriverError> {
        Ok(())
    }

    fn producer(&self, _id: u32) -> Result<Box<dyn Producer + '_>, DriverError> {
        Ok(Box::new(NullProducer::default()))
    }

    fn consumer(&self, _topic: usize, _at_end: bool) -> Result<Box<dyn Consumer + '_>, DriverError> {
        Err(DriverError::Unavailable {
            cause: "null keeps no records".into(),
            remedy: "leave it out of runs that read".into(),
        })
    }
}

#[derive(Default)]
struct NullProducer {
    acked_tickets: u64,
    next_ticket: u64,
}

impl Producer for NullProducer {
    fn send(&mut self, _topic: usize, ticket: u64, record: &[u8]) -> Result<(), DriverError> {
        // Without this the compiler may drop the generator's work together with the record.
        std::hint::black_box(record);
        self.next_ticket = ticket + 1;
        Ok(())
    }

    fn poll(&mut self, _wait: Duration, acks: &mut Vec<Ack>) -> Result<(), DriverError> {
        let count = self.next_ticket - self.acked_tickets;
        if count > 0 {
            acks.push(Ack { first_ticket: self.acked_tickets, count, ok: true });
            self.acked_tickets = self.next_ticket;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DriverError> {
        Ok(())
    }
}
