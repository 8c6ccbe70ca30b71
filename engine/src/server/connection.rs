//! One connection: reads frames, hands writes on (see [`super::appends`]), answers in the order of the requests.
//!
//! `PUT`s, `APPEND`s and `PING`s are taken without waiting for one another. Any other verb is a
//! barrier: it runs once everything before it is settled, and nothing after it is looked at before
//! it is answered. The connection's memory is bounded whatever the client does, and a client that
//! neither sends nor takes what it should is cut off at a deadline.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::appends::Gathered;
use super::input::{Filled, Input};
use super::output::Output;
use super::reply_memory::{ReplyMemory, SMALL_BYTES};
use super::writes::Writes;
use crate::broker::{Answer, Asker, Broker, Origin};
use crate::error::Refusal;
use crate::log::acks::Acks;
use crate::log::rollover;
use crate::net::TcpStream;
use crate::protocol::command::DEFAULT_FETCH_BYTES;
use crate::protocol::frame::{put_frame, put_prefix};
use crate::protocol::{ErrorCode, FrameError, Frames, Request, reply};

/// Pause before a read is tried again for which there was no memory.
const MEMORY_PAUSE: Duration = Duration::from_millis(10);
/// How long a client may take to read its last replies.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Close {
    /// The socket failed.
    Io,
    /// A deadline passed that the client should have met; it is not told.
    Deadline,
    /// The stream cannot be trusted any more; the client is told why.
    Refused(Refusal),
}

impl From<io::Error> for Close {
    fn from(_: io::Error) -> Self {
        Close::Io
    }
}

/// Who has ended it, without a fault.
enum End {
    Client,
    Stop,
}

/// What the connection waits for.
enum Event {
    Readable,
    Stop,
}

/// What comes after the writes at the front of the input.
enum Next<'a> {
    /// No whole frame; so many bytes are missing to one.
    Incomplete {
        missing: usize,
    },
    Request(Request<'a>),
    BadRequest(Refusal),
    BadFrame(Refusal),
}

/// The state of one connection. Its task is the only one that touches it.
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) broker: Arc<Broker>,
    input: Input,
    pub(super) output: Output,
    pub(super) writes: Writes,
    pub(super) acks: Acks,
    pub(super) gathered: Gathered,
    /// Bytes that the unfinished frame at the front of the input lacks.
    missing: usize,
    /// When the unfinished frame began.
    frame_since: Option<Instant>,
    last_request: Instant,
    /// A request is being carried out, so the client need not do anything.
    serving: bool,
    alarm: Pin<Box<Sleep>>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, broker: Arc<Broker>) -> Self {
        let idle = Duration::from_millis(broker.config.idle_timeout_ms);
        Connection {
            stream,
            input: Input::default(),
            output: Output::default(),
            writes: Writes::default(),
            acks: Acks::default(),
            gathered: Gathered::default(),
            missing: 0,
            frame_since: None,
            last_request: Instant::now(),
            serving: false,
            alarm: Box::pin(tokio::time::sleep(idle)),
            broker,
        }
    }

    /// Serves the client until it leaves, misbehaves, or the broker stops.
    pub(super) async fn run(mut self) -> Result<(), Close> {
        self.stream.set_nodelay(true)?;
        match self.serve().await {
            Ok(End::Client) => self.settle_and_send().await,
            Ok(End::Stop) => {
                self.settle_and_send().await?;
                // Who was quiet has read everything already, and need not be waited for.
                if self.last_request.elapsed() < FAREWELL_TIME { self.hang_up().await } else { Ok(()) }
            }
            Err(Close::Refused(refusal)) => Box::pin(self.farewell(refusal)).await,
            Err(close) => Err(close),
        }
    }

    async fn serve(&mut self) -> Result<End, Close> {
        let mut stopping = Box::pin(self.broker.stopping());
        loop {
            match poll_fn(|cx| self.poll_event(cx, stopping.as_mut())).await? {
                Event::Stop => return Ok(End::Stop),
                Event::Readable => match self.input.fill(&self.stream, &self.broker.buffers, self.missing)? {
                    Filled::Data { bytes } => {
                        self.broker.counters.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
                        self.gathered.bytes += bytes;
                        self.handle_input().await?;
                    }
                    Filled::WouldBlock => self.park(),
                    Filled::NoMemory => self.settling(Box::pin(tokio::time::sleep(MEMORY_PAUSE))).await?,
                    Filled::End => return Ok(End::Client),
                },
            }
        }
    }

    /// Sends what can be sent and finds out what to do next.
    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        stopping: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Result<Event, Close>> {
        if self.gathered.wants_more() && self.may_read() && self.stream.poll_read_ready(cx)?.is_ready() {
            return Poll::Ready(Ok(Event::Readable));
        }
        self.gathered = Gathered::default();
        self.poll_replies(cx)?;
        if stopping.poll(cx).is_ready() {
            return Poll::Ready(Ok(Event::Stop));
        }
        let may_read = self.may_read();
        if may_read && self.stream.poll_read_ready(cx)?.is_ready() {
            return Poll::Ready(Ok(Event::Readable));
        }
        if !may_read && self.frame_since.is_some() {
            // The client is not late while it is us who do not read.
            self.frame_since = Some(Instant::now());
        }
        Poll::Pending
    }

    /// Is there room for the replies to more requests?
    fn may_read(&self) -> bool {
        !self.acks.is_full() && !self.output.is_full()
    }

    /// Answers what is settled, sends what the client takes, and looks at the clock.
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        // Pending or ready: in both cases everything possible is done and the task is registered.
        let _ = self.acks.poll_answer(cx, &self.broker, &mut self.output.small);
        if let Poll::Ready(sent) = self.output.poll_send(&self.stream, cx, &self.broker.replies) {
            sent?;
        }
        let sent_bytes = self.output.take_sent();
        if sent_bytes > 0 {
            self.broker.counters.bytes_out.fetch_add(sent_bytes, Ordering::Relaxed);
        }
        self.check_deadline(cx)
    }

    fn check_deadline(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        let Some(deadline) = self.deadline() else { return Ok(()) };
        // Later deadlines leave the alarm alone: it is set anew when it goes off.
        if deadline < self.alarm.deadline() {
            self.alarm.as_mut().reset(deadline);
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                self.broker.counters.deadlines_missed.fetch_add(1, Ordering::Relaxed);
                return Err(self.missed());
            }
            self.alarm.as_mut().reset(deadline);
        }
        Ok(())
    }

    /// The next moment at which the client must have done something.
    fn deadline(&self) -> Option<Instant> {
        let frame = Duration::from_millis(self.broker.config.frame_timeout_ms);
        let idle = Duration::from_millis(self.broker.config.idle_timeout_ms);
        let unsent = self.output.blocked_since().map(|since| since + frame);
        let unfinished = self.frame_since.filter(|_| !self.serving).map(|since| since + frame);
        let quiet = (!self.serving && self.acks.is_empty()).then_some(self.last_request + idle);
        [unsent, unfinished, quiet].into_iter().flatten().min()
    }

    #[cold]
    fn missed(&self) -> Close {
        if self.frame_since.is_some() && self.output.blocked_since().is_none() {
            let text = format!("the frame was not complete within {} ms", self.broker.config.frame_timeout_ms);
            return Close::Refused(Refusal::new(ErrorCode::BadRequest, text));
        }
        Close::Deadline
    }

    /// Waits for something while replies go on being sent.
    pub(super) async fn settling<F: Future + Unpin>(&mut self, mut future: F) -> Result<F::Output, Close> {
        poll_fn(|cx| {
            self.poll_replies(cx)?;
            Pin::new(&mut future).poll(cx).map(Ok)
        })
        .await
    }

    /// Waits until nothing is owed any more.
    async fn settle(&mut self) -> Result<(), Close> {
        if self.acks.is_empty() {
            return Ok(());
        }
        poll_fn(|cx| {
            self.poll_replies(cx)?;
            if self.acks.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }

    /// Waits until everything is answered and the client has taken it.
    async fn settle_and_send(&mut self) -> Result<(), Close> {
        poll_fn(|cx| {
            self.poll_replies(cx)?;
            if self.acks.is_empty() && self.output.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }

    /// Waits until there is room for more replies.
    async fn make_room(&mut self) -> Result<(), Close> {
        if !self.acks.is_full() && !self.output.is_full() {
            return Ok(());
        }
        poll_fn(|cx| {
            self.poll_replies(cx)?;
            if self.acks.is_full() || self.output.is_full() { Poll::Pending } else { Poll::Ready(Ok(())) }
        })
        .await
    }

    /// Gives memory back before a wait for the client.
    fn park(&mut self) {
        self.input.park();
        self.output.park();
        self.writes.park();
        self.acks.park();
    }

    async fn handle_input(&mut self) -> Result<(), Close> {
        // Taken out, so that requests can borrow from it while the rest changes.
        let mut input = std::mem::take(&mut self.input);
        self.serving = true;
        let handled = self.handle_frames(&mut input).await;
        self.serving = false;
        self.input = input;
        let frames = handled?;
        if self.input.bytes().is_empty() {
            self.frame_since = None;
        } else if frames || self.frame_since.is_none() {
            self.frame_since = Some(Instant::now());
        }
        if frames {
            self.last_request = Instant::now();
        }
        Ok(())
    }

    /// Handles every whole frame; says whether there was one.
    async fn handle_frames(&mut self, input: &mut Input) -> Result<bool, Close> {
        let mut any = false;
        loop {
            let bytes = input.bytes();
            let (consumed, next) = self.collect_writes(bytes);
            any |= consumed > 0;
            if !self.writes.is_empty() {
                self.store_writes(bytes).await?;
            }
            match next {
                Next::Incomplete { missing } => {
                    self.missing = missing;
                    input.consume(consumed);
                    return Ok(any);
                }
                Next::Request(request @ Request::Fetch { .. }) => {
                    let body = request.to_string();
                    input.consume(consumed);
                    self.wait_parked(body.as_bytes(), input).await?;
                    continue;
                }
                Next::Request(request @ Request::Get { topic, group }) => {
                    self.settle().await?;
                    if let Some(record) = self.broker.try_get(topic, group) {
                        reply::put_payload(&mut self.output.small, &record);
                    } else {
                        let body = request.to_string();
                        input.consume(consumed);
                        self.wait_parked(body.as_bytes(), input).await?;
                        continue;
                    }
                }
                Next::Request(request) => self.handle_request(request).await?,
                Next::BadRequest(refusal) => self.acks.push_refusal(refusal),
                Next::BadFrame(refusal) => return Err(Close::Refused(refusal)),
            }
            input.consume(consumed);
            self.make_room().await?;
        }
    }

    /// Takes the `PUT`s at the front, up to the first other request.
    fn collect_writes<'a>(&mut self, bytes: &'a [u8]) -> (usize, Next<'a>) {
        let mut frames = Frames::new(bytes, self.broker.config.max_frame_bytes);
        while let Some(frame) = frames.next() {
            let body = match frame {
                Ok(body) => body,
                Err(error) => return (frames.consumed(), Next::BadFrame(bad_frame(&error))),
            };
            match Request::parse(body) {
                Ok(Request::Put { topic, payload }) => {
                    // The payload is the end of the frame.
                    let end = frames.consumed();
                    self.writes.add(&self.broker.topics, topic, end - payload.len()..end);
                }
                Ok(request) => return (frames.consumed(), Next::Request(request)),
                Err(error) => {
                    let refusal = Refusal::new(ErrorCode::BadRequest, error.to_string());
                    return (frames.consumed(), Next::BadRequest(refusal));
                }
            }
        }
        (frames.consumed(), Next::Incomplete { missing: frames.missing() })
    }

    async fn handle_request(&mut self, request: Request<'_>) -> Result<(), Close> {
        match request {
            Request::Ping => {
                self.acks.push_ok();
                Ok(())
            }
            Request::Append { topic, records } => Box::pin(self.append(topic, records)).await,
            _ => self.barrier(request).await,
        }
    }

    /// Carries out a request that may wait long, for records or for memory, and must not hold memory that
    /// others need meanwhile. `body` is what it came as; it is taken from the input already.
    async fn wait_parked(&mut self, body: &[u8], input: &mut Input) -> Result<(), Close> {
        input.park();
        // It was a request before, and is one still.
        if let Ok(request) = Request::parse(body) {
            self.barrier(request).await?;
        }
        self.make_room().await
    }

    /// Any other verb: after everything before it, and before everything after it.
    async fn barrier(&mut self, request: Request<'_>) -> Result<(), Close> {
        self.settle().await?;
        Box::pin(self.execute(request)).await
    }

    async fn execute(&mut self, request: Request<'_>) -> Result<(), Close> {
        let mut memory = ReplyMemory::default();
        let answer = self.answer(request, &mut memory).await?;
        self.put_answer(answer);
        if self.output.is_full() {
            self.output.hold(memory.into_reservation());
            self.settle_and_send().await?;
        }
        Ok(())
    }

    /// Carries a request out. What the reply takes beyond a connection's own share is in `memory`, and was
    /// found there before a cursor moved or another node sent it.
    async fn answer(
        &mut self,
        request: Request<'_>,
        memory: &mut ReplyMemory,
    ) -> Result<Result<Answer, Refusal>, Close> {
        // How large the record of a `GET` is, nobody knows yet.
        let (announced_bytes, waits) = match request {
            Request::Fetch { max_bytes, wait_ms, .. } => (max_bytes.unwrap_or(DEFAULT_FETCH_BYTES), wait_ms.is_some()),
            _ => (0, false),
        };
        let announced_bytes = (announced_bytes as usize).min(self.broker.config.max_frame_bytes);
        // What waits for data has none yet.
        if !waits && let Err(refusal) = self.wait_for_memory(memory, announced_bytes).await? {
            return Ok(Err(refusal));
        }
        loop {
            let broker = Arc::clone(&self.broker);
            let asker = Asker { origin: Origin::Client, room_bytes: memory.room_bytes() };
            let answer = self.settling(Box::pin(broker.execute(request, asker))).await?;
            let bytes = match &answer {
                Ok(Answer::Larger(bytes)) => announced_bytes.max(*bytes),
                // These move nothing, so what was read for them here may be given up, and read again.
                Ok(Answer::Fetched(read)) => read.bytes(),
                Ok(Answer::Json(json)) => json.len(),
                _ => return Ok(answer),
            };
            if !matches!(answer, Ok(Answer::Larger(_))) && memory.grow(&self.broker, bytes).is_ok() {
                return Ok(answer);
            }
            drop(answer);
            if let Err(refusal) = self.wait_for_memory(memory, bytes).await? {
                return Ok(Err(refusal));
            }
        }
    }

    /// Others give memory back as their clients take their replies.
    async fn wait_for_memory(&mut self, memory: &mut ReplyMemory, bytes: usize) -> Result<Result<(), Refusal>, Close> {
        // Whoever waits must hold nothing that others wait for.
        *memory = ReplyMemory::default();
        let deadline = Instant::now() + Duration::from_millis(self.broker.config.write_wait_ms);
        loop {
            let grown = memory.grow(&self.broker, bytes);
            if grown.is_ok() || Instant::now() >= deadline || self.broker.is_stopping() {
                return Ok(grown);
            }
            self.settling(Box::pin(tokio::time::sleep(MEMORY_PAUSE))).await?;
        }
    }

    fn put_answer(&mut self, answer: Result<Answer, Refusal>) {
        let out = &mut self.output.small;
        match answer {
            Ok(Answer::Ok) => reply::put_ok(out),
            Ok(Answer::Empty) => reply::put_empty(out),
            Ok(Answer::Payload(record)) if record.len() > SMALL_BYTES => {
                reply::put_payload_head(out, record.len());
                self.output.push_records(vec![record]);
            }
            Ok(Answer::Payload(record)) => reply::put_payload(out, &record),
            Ok(Answer::Json(json)) => reply::put_json(out, &json),
            Ok(Answer::Raw(body)) if body.len() > SMALL_BYTES => {
                put_prefix(out, body.len());
                self.output.push_records(vec![body]);
            }
            Ok(Answer::Raw(body)) => put_frame(out, &body),
            // Said to other nodes only, or before another try.
            Ok(Answer::Moved | Answer::Larger(_)) => {
                let refusal = rollover::no_leader();
                reply::put_err(out, refusal.code, &refusal.text);
            }
            Ok(Answer::Fetched(read)) => {
                reply::put_fetched_head(out, read.next_offset, read.count, read.bytes());
                self.output.push_records(read.chunks);
            }
            Err(refusal) => reply::put_err(out, refusal.code, &refusal.text),
        }
    }

    /// Tells the client why, after all replies it is owed.
    async fn farewell(&mut self, refusal: Refusal) -> Result<(), Close> {
        self.frame_since = None;
        self.last_request = Instant::now();
        self.acks.push_refusal(refusal);
        self.settle_and_send().await?;
        self.hang_up().await
    }

    /// Lets the client read its last replies: closing a socket with unread data in it would take them away.
    async fn hang_up(&mut self) -> Result<(), Close> {
        tokio::io::AsyncWriteExt::shutdown(&mut self.stream).await?;
        let mut scratch = vec![0; 4096];
        let read_out = async {
            while tokio::io::AsyncReadExt::read(&mut self.stream, &mut scratch).await.is_ok_and(|bytes| bytes > 0) {}
        };
        // Whether it left by itself or had to be cut off makes no difference.
        let _ = tokio::time::timeout(FAREWELL_TIME, read_out).await;
        Ok(())
    }
}

fn bad_frame(error: &FrameError) -> Refusal {
    let code = match error {
        FrameError::Empty => ErrorCode::BadRequest,
        FrameError::TooLarge { .. } => ErrorCode::FrameTooLarge,
    };
    Refusal::new(code, error.to_string())
}
