//! Records out, delivery reports in.
//!
//! The safe wrapper looks the topic up by name, allocates for every record and polls for the full
//! timeout; a fair measurement of Kafka needs none of that, so records go through librdkafka's own
//! `rd_kafka_produce` on a topic handle, and delivery reports come from its event queue.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::{RDKafkaRespErr, RDKafkaType};

use super::kafka_error;
use super::session::{c_name, client};
use crate::{Ack, DriverError, Producer};

/// A record's opaque is the pointer-sized pair (producer, ticket): 16 bits and 48 bits.
const TICKET_BITS: u32 = 48;

/// Longest wait for the names and leaders of all topics.
const METADATA_DEADLINE: Duration = Duration::from_secs(30);

/// One librdkafka producer; used by one [`KafkaProducer`] or shared.
pub(super) struct Instance {
    client: Client<DefaultClientContext>,
    queue: *mut sys::rd_kafka_queue_t,
    /// Boxed: librdkafka keeps its address.
    bell: Box<Bell>,
}

// SAFETY: librdkafka's handles may be used from any thread; `queue` is only freed in `drop`, which has
// the instance to itself.
unsafe impl Send for Instance {}
// SAFETY: as above; all of librdkafka's functions used here are thread-safe.
unsafe impl Sync for Instance {}

/// Reports that were taken from librdkafka and not yet handed to their producer, and the bell
/// that librdkafka rings when its queue is no longer empty.
struct Bell {
    state: Mutex<BellState>,
    rung: Condvar,
}

struct BellState {
    /// Something happened since the last wait began.
    ringing: u64,
    /// One list a producer.
    inboxes: Vec<Vec<Ack>>,
    /// The error after which librdkafka gives up (idempotence lost its guarantee).
    fatal: Option<String>,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, BellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Called by librdkafka's threads when the queue turns non-empty.
unsafe extern "C" fn ring(_client: *mut sys::rd_kafka_t, bell: *mut c_void) {
    // SAFETY: `bell` is the boxed `Bell` of an `Instance`, which unregisters this callback and
    // destroys the client before it frees the box.
    let bell = unsafe { &*bell.cast::<Bell>() };
    bell.lock().ringing += 1;
    bell.rung.notify_all();
}

impl Instance {
    /// Creates the client. `producers` bounds the ids that may use it.
    pub(super) fn new(config: &ClientConfig, producers: u32) -> Result<Instance, DriverError> {
        let events = sys::RD_KAFKA_EVENT_DR | sys::RD_KAFKA_EVENT_ERROR;
        let client = client(config, RDKafkaType::RD_KAFKA_PRODUCER, events)?;
        let inboxes = vec![Vec::new(); producers as usize];
        let state = BellState { ringing: 0, inboxes, fatal: None };
        let bell = Box::new(Bell { state: Mutex::new(state), rung: Condvar::new() });
        // SAFETY: the client is alive; the returned reference is given back in `drop`.
        let queue = unsafe { sys::rd_kafka_queue_get_main(client.native_ptr()) };
        let instance = Instance { client, queue, bell };
        // One request for all topics, before the clock starts; else each topic asks for its leader at its
        // first record.
        (instance.client.fetch_metadata(None, METADATA_DEADLINE))
            .map_err(|error| kafka_error("asking for the topics", &error))?;
        let opaque = ptr::from_ref::<Bell>(&instance.bell).cast_mut().cast();
        // SAFETY: the bell is boxed and outlives the registration, see `drop`.
        unsafe { sys::rd_kafka_queue_cb_event_enable(instance.queue, Some(ring), opaque) };
        Ok(instance)
    }

    /// Moves all delivery reports that are there into the inboxes; never waits.
    fn drain(&self) {
        loop {
            // SAFETY: the queue is ours; the event is destroyed below.
            let event = unsafe { sys::rd_kafka_queue_poll(self.queue, 0) };
            if event.is_null() {
                return;
            }
            // SAFETY: the event is alive until the call after these.
            match unsafe { sys::rd_kafka_event_type(event) } {
                sys::RD_KAFKA_EVENT_DR => self.take_reports(event),
                sys::RD_KAFKA_EVENT_ERROR => self.take_error(event),
                _ => {}
            }
            // SAFETY: taken from the queue above, not used after this.
            unsafe { sys::rd_kafka_event_destroy(event) };
        }
    }

    fn take_reports(&self, event: *mut sys::rd_kafka_event_t) {
        let mut state = self.bell.lock();
        loop {
            // SAFETY: the event is alive; the message belongs to it.
            let message = unsafe { sys::rd_kafka_event_message_next(event) };
            if message.is_null() {
                return;
            }
            // SAFETY: not null, and alive as long as the event.
            let message = unsafe { &*message };
            let ok = message.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
            let (producer, ticket) = from_opaque(message._private);
            if let Some(inbox) = state.inboxes.get_mut(producer) {
                push_ack(inbox, ticket, ok);
            }
        }
    }

    /// Most errors (a connection lost, say) heal by themselves; only fatal ones are kept.
    fn take_error(&self, event: *mut sys::rd_kafka_event_t) {
        // SAFETY: the event is alive.
        let code = unsafe { sys::rd_kafka_event_error(event) };
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__FATAL {
            // SAFETY: the string belongs to the event and ends in zero.
            let text = unsafe { std::ffi::CStr::from_ptr(sys::rd_kafka_event_error_string(event)) };
            self.bell.lock().fatal = Some(text.to_string_lossy().into_owned());
        }
    }

    /// Appends the reports for `producer` to `acks`; waits until `deadline` for the first.
    fn collect(&self, producer: usize, wait: Duration, acks: &mut Vec<Ack>) -> Result<(), DriverError> {
        let deadline = (!wait.is_zero()).then(|| Instant::now() + wait);
        loop {
            let seen = self.bell.lock().ringing;
            self.drain();
            let mut state = self.bell.lock();
            if let Some(text) = &state.fatal {
                return Err(DriverError::System(format!("librdkafka gave up: {text}")));
            }
            if !state.inboxes[producer].is_empty() {
                acks.append(&mut state.inboxes[producer]);
                return Ok(());
            }
            let Some(left) = deadline.and_then(|at| at.checked_duration_since(Instant::now())) else {
                return Ok(());
            };
            // A ring between the look at `ringing` and here is not lost: the counter moved.
            if state.ringing == seen {
                drop(self.bell.rung.wait_timeout(state, left));
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: unregistering first means that no callback starts any more, and librdkafka
        // holds the queue's lock while it calls, so none is still running. The queue is given back
        // once; the client itself is destroyed after this.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue);
            // What was never acknowledged is not waited for: the run counts acks only.
            let purge = sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT;
            sys::rd_kafka_purge(self.client.native_ptr(), purge);
        }
    }
}

/// One producer of the harness.
pub(super) struct KafkaProducer<'a> {
    instance: Arc<Instance>,
    id: u32,
    names: &'a [String],
    /// One for each topic; null until its first record, since librdkafka's threads look at every handle
    /// that there is, in each of their rounds.
    handles: Vec<*mut sys::rd_kafka_topic_t>,
}

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for KafkaProducer<'_> {}

impl<'a> KafkaProducer<'a> {
    pub(super) fn new(instance: Arc<Instance>, id: u32, names: &'a [String]) -> KafkaProducer<'a> {
        KafkaProducer { instance, id, names, handles: vec![ptr::null_mut(); names.len()] }
    }

    /// Of a topic for which there is none yet.
    #[cold]
    fn open_handle(&mut self, topic: usize) -> Result<(), DriverError> {
        let name = c_name(&self.names[topic])?;
        // SAFETY: client and name are alive; no configuration means the client's own.
        let handle =
            unsafe { sys::rd_kafka_topic_new(self.instance.client.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        if handle.is_null() {
            return Err(DriverError::System(format!("librdkafka gave no handle for topic {}", self.names[topic])));
        }
        self.handles[topic] = handle;
        Ok(())
    }

    /// Longest wait for room in librdkafka's queue before it is tried again.
    const FULL_RETRY: Duration = Duration::from_millis(1);

    /// How long the linger stays off when the run drains.
    const FLUSH_MS: c_int = 2;

    /// librdkafka counts a record until its report is taken, so a full queue needs draining.
    fn make_room(&self) {
        let seen = self.instance.bell.lock().ringing;
        self.instance.drain();
        let state = self.instance.bell.lock();
        if state.ringing == seen {
            drop(self.instance.bell.rung.wait_timeout(state, Self::FULL_RETRY));
        }
    }
}

impl Drop for KafkaProducer<'_> {
    fn drop(&mut self) {
        for &handle in self.handles.iter().filter(|handle| !handle.is_null()) {
            // SAFETY: made by `open_handle`, given back once; the instance is still alive.
            unsafe { sys::rd_kafka_topic_destroy(handle) };
        }
    }
}

impl Producer for KafkaProducer<'_> {
    fn send(&mut self, topic: usize, ticket: u64, record: &[u8]) -> Result<(), DriverError> {
        if self.handles[topic].is_null() {
            self.open_handle(topic)?;
        }
        let opaque = to_opaque(self.id, ticket);
        loop {
            // SAFETY: the handle lives as long as this producer; librdkafka copies the record
            // (`MSG_F_COPY`) before it returns and only reads from it.
            let status = unsafe {
                sys::rd_kafka_produce(
                    self.handles[topic],
                    0,
                    sys::RD_KAFKA_MSG_F_COPY as c_int,
                    record.as_ptr().cast_mut().cast(),
                    record.len(),
                    ptr::null(),
                    0,
                    opaque,
                )
            };
            if status == 0 {
                return Ok(());
            }
            // SAFETY: reads the calling thread's last error, set by the call above.
            let error = RDKafkaErrorCode::from(unsafe { sys::rd_kafka_last_error() });
            if error != RDKafkaErrorCode::QueueFull {
                return Err(kafka_error("producing", &rdkafka::error::KafkaError::MessageProduction(error)));
            }
            self.make_room();
        }
    }

    fn poll(&mut self, wait: Duration, acks: &mut Vec<Ack>) -> Result<(), DriverError> {
        self.instance.collect(self.id as usize, wait, acks)
    }

    /// Ends the linger of everything queued. The caller polls for the reports.
    fn flush(&mut self) -> Result<(), DriverError> {
        // SAFETY: the client is alive. The linger is off while the call lasts; it returns early
        // if nothing is left, and otherwise gives the senders' threads the time to wake up.
        unsafe { sys::rd_kafka_flush(self.instance.client.native_ptr(), Self::FLUSH_MS) };
        Ok(())
    }
}

/// Extends the last range if the ticket follows it.
fn push_ack(inbox: &mut Vec<Ack>, ticket: u64, ok: bool) {
    match inbox.last_mut() {
        Some(last) if last.ok == ok && last.first_ticket + last.count == ticket => last.count += 1,
        _ => inbox.push(Ack { first_ticket: ticket, count: 1, ok }),
    }
}

fn to_opaque(producer: u32, ticket: u64) -> *mut c_void {
    debug_assert!(u64::from(producer) < 1 << (64 - TICKET_BITS) && ticket < 1 << TICKET_BITS);
    ptr::without_provenance_mut((u64::from(producer) << TICKET_BITS | ticket) as usize)
}

fn from_opaque(opaque: *mut c_void) -> (usize, u64) {
    let bits = opaque.addr() as u64;
    ((bits >> TICKET_BITS) as usize, bits & ((1 << TICKET_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_join_into_ranges() {
        let mut inbox = Vec::new();
        for (ticket, ok) in [(0, true), (1, true), (2, false), (3, true), (5, true), (6, true)] {
            push_ack(&mut inbox, ticket, ok);
        }
        let ranges: Vec<_> = inbox.iter().map(|a| (a.first_ticket, a.count, a.ok)).collect();
        assert_eq!(ranges, [(0, 2, true), (2, 1, false), (3, 1, true), (5, 2, true)]);
    }

    #[test]
    fn opaque_keeps_producer_and_ticket() {
        for (producer, ticket) in [(0, 0), (63, 1), (65_535, (1 << TICKET_BITS) - 1)] {
            assert_eq!(from_opaque(to_opaque(producer, ticket)), (producer as usize, ticket));
        }
    }
}
