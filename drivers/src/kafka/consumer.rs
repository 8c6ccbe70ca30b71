//! Records back, in order: one partition, no group, CRC checked by librdkafka.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::types::{RDKafkaRespErr, RDKafkaType};

use super::ADMIN_DEADLINE;
use super::session::{c_name, client};
use crate::{Consumer, DriverError};

/// Reads the only partition of one topic.
pub(super) struct KafkaConsumer {
    /// Keeps the native client alive: it is destroyed after `drop` gave the handle back.
    _client: Client<DefaultClientContext>,
    topic: *mut sys::rd_kafka_topic_t,
}

// SAFETY: librdkafka's handles may be used from any thread, and this one has a single owner.
unsafe impl Send for KafkaConsumer {}

const PARTITION: i32 = 0;

impl KafkaConsumer {
    /// Starts to read at the topic's start, or at the end that it has now.
    pub(super) fn new(config: &ClientConfig, topic: &str, at_end: bool) -> Result<KafkaConsumer, DriverError> {
        let client = client(config, RDKafkaType::RD_KAFKA_CONSUMER, 0)?;
        let (low, high) = watermarks(&client, topic)?;
        let name = c_name(topic)?;
        // SAFETY: client and name are alive; no configuration means the client's own.
        let handle = unsafe { sys::rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        if handle.is_null() {
            return Err(DriverError::System(format!("librdkafka gave no handle for topic {topic}")));
        }
        let consumer = KafkaConsumer { _client: client, topic: handle };
        let offset = if at_end { high } else { low };
        // SAFETY: the handle is alive; `drop` stops what is started here.
        if unsafe { sys::rd_kafka_consume_start(handle, PARTITION, offset) } != 0 {
            return Err(DriverError::System(format!("librdkafka does not start to read topic {topic}")));
        }
        Ok(consumer)
    }
}

/// First and next offset of the partition, asked of its leader. One that has just been created, or
/// whose broker was just started, is waited for.
pub(super) fn watermarks(client: &Client<DefaultClientContext>, topic: &str) -> Result<(i64, i64), DriverError> {
    let deadline = Instant::now() + ADMIN_DEADLINE;
    loop {
        match client.fetch_watermarks(topic, PARTITION, Duration::from_secs(5)) {
            Ok(offsets) => return Ok(offsets),
            Err(error) if Instant::now() >= deadline => {
                return Err(super::kafka_error(&format!("asking for the offsets of {topic}"), &error));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// What the callback needs: where records go, and how it reports back.
struct Sink<'a> {
    records: usize,
    error: Option<String>,
    accept: &'a mut dyn FnMut(&[u8]),
}

/// Called by librdkafka, on the thread that fetches, once for each message.
unsafe extern "C" fn take(message: *mut sys::rd_kafka_message_t, sink: *mut c_void) {
    // SAFETY: librdkafka passes a live message and the opaque of `fetch`, which waits for us.
    let (message, sink) = unsafe { (&*message, &mut *sink.cast::<Sink<'_>>()) };
    if message.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        let record = if message.payload.is_null() {
            &[]
        } else {
            // SAFETY: not null, `len` bytes, alive and unchanged until this callback returns.
            unsafe { std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len) }
        };
        (sink.accept)(record);
        sink.records += 1;
    } else if !heals(message.err) {
        // SAFETY: a static string of librdkafka.
        let text = unsafe { CStr::from_ptr(sys::rd_kafka_err2str(message.err)) };
        sink.error.get_or_insert_with(|| text.to_string_lossy().into_owned());
    }
}

/// The end of the partition is no error, and librdkafka reconnects by itself.
fn heals(error: RDKafkaRespErr) -> bool {
    matches!(
        error,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR__RESOLVE
    )
}

impl Consumer for KafkaConsumer {
    fn fetch(&mut self, wait: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<usize, DriverError> {
        let mut sink = Sink { records: 0, error: None, accept: sink };
        let wait_ms = wait.as_micros().div_ceil(1000).min(c_int::MAX as u128) as c_int;
        // SAFETY: `take` gets the address of `sink` and uses it only during this call.
        unsafe {
            let opaque = ptr::from_mut(&mut sink).cast();
            sys::rd_kafka_consume_callback(self.topic, PARTITION, wait_ms, Some(take), opaque);
        }
        match sink.error {
            Some(text) => Err(DriverError::System(format!("reading from Kafka: {text}"))),
            None => Ok(sink.records),
        }
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, stopped and given back once; the client is destroyed after.
        unsafe {
            sys::rd_kafka_consume_stop(self.topic, PARTITION);
            sys::rd_kafka_topic_destroy(self.topic);
        }
    }
}
