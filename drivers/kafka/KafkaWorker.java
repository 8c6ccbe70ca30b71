import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import java.util.zip.CRC32C;
import org.HdrHistogram.Histogram;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Loads Kafka through its own Java client, as the harness's worker does through librdkafka: the same
 * records, the same bound on what is in flight, the same protocol in lines of JSON on stdin and
 * stdout (described in the harness's worker.rs). Reading back is the ordinary worker's task.
 *
 * <p>Run: {@code java -cp 'libs/*' KafkaWorker.java}
 */
public final class KafkaWorker {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final long SAMPLE_NS = 500_000_000L;
    /** How long a drained window may take before the rest counts as unacknowledged. */
    private static final long DRAIN_NS = 30_000_000_000L;
    /** How long brokers may take to open new partitions. */
    private static final long OPEN_NS = 60_000_000_000L;
    private static final double[] PERCENTILES = {
        0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.999, 100
    };

    public static void main(String[] args) throws Exception {
        try {
            run(new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)));
            System.exit(0);
        } catch (Exception error) {
            Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
            say(JSON.createObjectNode().put("event", "failed").put("error", "Java client: " + cause));
            System.exit(1);
        }
    }

    private static void run(BufferedReader commands) throws Exception {
        Spec spec = new Spec(JSON.readTree(commands.readLine()));
        spec.createTopics(spec.topics);
        warmUp(spec);
        List<Lane> lanes = new ArrayList<>();
        for (int id = 0; id < spec.producers; id++) {
            lanes.add(new Lane(spec, id));
        }
        say(JSON.createObjectNode().put("event", "ready"));
        if (!"go".equals(commands.readLine())) {
            return;
        }
        say(load(spec, lanes, true));
        // The broker holds everything that was acknowledged: nothing is left to settle here.
        for (String line = commands.readLine(); "settle".equals(line); line = commands.readLine()) {
            say(JSON.createObjectNode().put("event", "settled").put("seconds", 0.0));
        }
    }

    /**
     * The broker was warmed by the harness; so must be this JVM, or a short run would measure its
     * compiler. Small records to a topic of its own: much code, few bytes.
     */
    private static void warmUp(Spec spec) throws Exception {
        if (spec.warmupS <= 0) {
            return;
        }
        String topic = "warmup-" + ProcessHandle.current().pid();
        Spec warm = new Spec(spec, topic);
        warm.createTopics(warm.topics);
        List<Lane> lanes = new ArrayList<>();
        for (int id = 0; id < warm.producers; id++) {
            lanes.add(new Lane(warm, id));
        }
        load(warm, lanes, false);
        try (Admin admin = Admin.create(spec.clientConfig())) {
            admin.deleteTopics(List.of(topic)).all().get();
        }
    }

    /** Lets all lanes run to their end and returns the event {@code drained}. */
    private static ObjectNode load(Spec spec, List<Lane> lanes, boolean samples) throws Exception {
        Clock clock = new Clock(spec);
        for (Lane lane : lanes) {
            lane.start(clock);
        }
        long nextSample = clock.startNs + SAMPLE_NS;
        for (Lane lane : lanes) {
            while (lane.isAlive()) {
                lane.join(TimeUnit.NANOSECONDS.toMillis(Math.max(1_000_000, nextSample - System.nanoTime())));
                if (System.nanoTime() >= nextSample) {
                    if (samples) {
                        say(sample(clock, lanes));
                    }
                    nextSample += SAMPLE_NS;
                }
            }
        }
        for (Lane lane : lanes) {
            lane.close();
            if (lane.failure != null) {
                throw new IllegalStateException(lane.failure);
            }
        }
        return drained(clock, lanes);
    }

    private static ObjectNode sample(Clock clock, List<Lane> lanes) {
        ObjectNode event = JSON.createObjectNode().put("event", "sample");
        event.put("t_ms", (System.nanoTime() - clock.startNs) / 1_000_000);
        event.put("records", lanes.stream().mapToLong(lane -> lane.ackedRecords).sum());
        return event.put("bytes", lanes.stream().mapToLong(lane -> lane.ackedBytes).sum());
    }

    private static ObjectNode drained(Clock clock, List<Lane> lanes) {
        long last = lanes.stream().mapToLong(lane -> lane.lastAckNs).max().orElse(clock.startNs);
        ObjectNode event = JSON.createObjectNode().put("event", "drained");
        event.put("duration_s", (last - clock.startNs) / 1e9);
        event.put("records", lanes.stream().mapToLong(lane -> lane.ackedRecords).sum());
        event.put("bytes", lanes.stream().mapToLong(lane -> lane.ackedBytes).sum());
        event.put("refused", lanes.stream().mapToLong(lane -> lane.refused).sum());
        ArrayNode claims = event.putArray("claims");
        Histogram latencies = newHistogram();
        Histogram lateness = newHistogram();
        for (Lane lane : lanes) {
            claims.add(lane.claim());
            latencies.add(lane.latencies);
            lateness.add(lane.lateness);
        }
        event.set("latency_us", percentiles(latencies));
        event.set("lateness_us", percentiles(lateness));
        return event;
    }

    private static Histogram newHistogram() {
        return new Histogram(3_600_000_000_000L, 3);
    }

    private static ArrayNode percentiles(Histogram histogram) {
        ArrayNode list = JSON.createArrayNode();
        if (histogram.getTotalCount() > 0) {
            for (double percentile : PERCENTILES) {
                list.addArray().add(percentile).add(histogram.getValueAtPercentile(percentile) / 1000.0);
            }
        }
        return list;
    }

    private static synchronized void say(ObjectNode event) throws IOException {
        System.out.println(JSON.writeValueAsString(event));
        System.out.flush();
    }

    /** What the harness asks for. */
    private static final class Spec {
        final String endpoint;
        final List<String> topics = new ArrayList<>();
        final int producers;
        /** Brokers, with ids from 1. */
        final int nodes;
        final long windowBytes;
        final boolean oneInFlight;
        final int bytesMin;
        final int bytesMax;
        final double seconds;
        final long payloadBytes;
        final double ratePerS;
        final double openWarmupS;
        final double warmupS;
        final Map<String, Object> producerConfig = new HashMap<>();
        final Map<String, Object> clientConfig = new HashMap<>();

        Spec(JsonNode spec) {
            JsonNode setup = spec.required("setup");
            JsonNode job = spec.required("job");
            if (!"load".equals(job.required("kind").asText()) || job.path("tail").asBoolean()) {
                throw new IllegalArgumentException("this worker only loads; reading is the harness's own");
            }
            endpoint = setup.required("endpoint").asText();
            setup.required("topics").forEach(name -> topics.add(name.asText()));
            producers = setup.required("producers").asInt();
            nodes = setup.path("nodes").asInt(1);
            oneInFlight = setup.required("one_in_flight").asBoolean();
            windowBytes = oneInFlight ? 0 : setup.required("in_flight_bytes").asLong();
            bytesMin = job.required("record_bytes").required("min").asInt();
            bytesMax = job.required("record_bytes").required("max").asInt();
            seconds = job.path("seconds").asDouble(Double.POSITIVE_INFINITY);
            payloadBytes = job.path("payload_bytes").asLong(Long.MAX_VALUE);
            ratePerS = job.path("rate_per_s").asDouble(0);
            openWarmupS = job.path("warmup_s").asDouble(0);
            JsonNode settings = setup.required("settings");
            warmupS = settings.path("client_warmup_s").asDouble(4);
            configure(settings, setup.required("variant"));
        }

        /** The same client, closed loop, small records to one scratch topic. */
        Spec(Spec other, String topic) {
            endpoint = other.endpoint;
            topics.add(topic);
            producers = other.producers;
            nodes = other.nodes;
            oneInFlight = false;
            windowBytes = 1 << 20;
            bytesMin = 64;
            bytesMax = 128;
            seconds = other.warmupS;
            payloadBytes = Long.MAX_VALUE;
            ratePerS = 0;
            openWarmupS = 0;
            warmupS = 0;
            producerConfig.putAll(other.producerConfig);
            clientConfig.putAll(other.clientConfig);
        }

        private void configure(JsonNode settings, JsonNode variant) {
            clientConfig.put("bootstrap.servers", endpoint);
            flatten("", settings, clientConfig, "client.");
            producerConfig.putAll(clientConfig);
            // As the broker's: records of 1 MiB need more than the default.
            producerConfig.put("max.request.size", 16 << 20);
            flatten("", settings, producerConfig, "producer.");
            boolean vanilla = false;
            boolean idempotent = false;
            for (JsonNode word : variant) {
                vanilla |= word.asText().equals("vanilla");
                idempotent |= word.asText().equals("idempotent");
            }
            if (idempotent) {
                producerConfig.put("enable.idempotence", true);
            }
            if (oneInFlight && !vanilla) {
                // Nothing will ever join a batch: waiting for it would only hurt.
                producerConfig.put("linger.ms", 0);
            }
        }

        /** Nested tables become dotted names; keeps those that start with {@code prefix}. */
        private static void flatten(String path, JsonNode table, Map<String, Object> into, String prefix) {
            table.properties().forEach(field -> {
                String key = path + field.getKey();
                if (field.getValue().isObject()) {
                    flatten(key + ".", field.getValue(), into, prefix);
                } else if (key.startsWith(prefix)) {
                    into.put(key.substring(prefix.length()), field.getValue().asText());
                }
            });
        }

        Map<String, Object> clientConfig() {
            return clientConfig;
        }

        /** On a cluster, leaders go round, with the next brokers for the other two replicas. */
        private NewTopic newTopic(String name, int index) {
            if (nodes == 1) {
                return new NewTopic(name, 1, (short) 1);
            }
            List<Integer> brokers = new ArrayList<>();
            for (int next = 0; next < Math.min(nodes, 3); next++) {
                brokers.add((index + next) % nodes + 1);
            }
            return new NewTopic(name, Map.of(0, brokers));
        }

        void createTopics(List<String> names) throws Exception {
            try (Admin admin = Admin.create(clientConfig())) {
                List<NewTopic> topics = new ArrayList<>();
                names.forEach(name -> topics.add(newTopic(name, topics.size())));
                for (var result : admin.createTopics(topics).values().values()) {
                    try {
                        result.get();
                    } catch (ExecutionException error) {
                        if (!(error.getCause() instanceof TopicExistsException)) {
                            throw error;
                        }
                    }
                }
                // Asks the leaders themselves: a batch sent before they have opened the partition is
                // refused and sent again behind later ones.
                Map<TopicPartition, OffsetSpec> ends = new HashMap<>();
                names.forEach(name -> ends.put(new TopicPartition(name, 0), OffsetSpec.latest()));
                long deadline = System.nanoTime() + OPEN_NS;
                while (!answers(admin, ends, deadline)) {
                    Thread.sleep(20);
                }
            }
        }

        /** Do all leaders know their partitions? Right after a topic was made, one may not yet. */
        private static boolean answers(Admin admin, Map<TopicPartition, OffsetSpec> ends, long deadline)
                throws Exception {
            try {
                admin.listOffsets(ends).all().get();
                return true;
            } catch (ExecutionException error) {
                boolean isEarly = error.getCause() instanceof UnknownTopicOrPartitionException;
                if (!isEarly || System.nanoTime() >= deadline) {
                    throw error;
                }
                return false;
            }
        }
    }

    /** When the load began and when it ends; shared by all lanes. */
    private static final class Clock {
        /** Producers take a fixed volume in portions of this, so that they all end together. */
        private static final long PORTION_BYTES = 256 << 10;

        final long startNs = System.nanoTime();
        final long endNs;
        private final AtomicLong bytesLeft;

        Clock(Spec spec) {
            endNs = Double.isInfinite(spec.seconds) ? Long.MAX_VALUE : startNs + (long) (spec.seconds * 1e9);
            bytesLeft = new AtomicLong(spec.payloadBytes);
        }

        boolean isOver() {
            return endNs != Long.MAX_VALUE && System.nanoTime() >= endNs;
        }

        /** Takes a portion of the volume; 0 when it is used up. */
        long takePortion() {
            long before = bytesLeft.getAndUpdate(left -> Math.max(0, left - PORTION_BYTES));
            return Math.min(before, PORTION_BYTES);
        }
    }

    /** One producer: its thread makes and sends records, the client's own thread reports acks. */
    private static final class Lane {
        /** Closed loop with a window: one record in so many is timed. */
        private static final int SAMPLE_STRIDE = 64;
        private static final int SAMPLES = 8192;
        /** Open loop: bound on what the client may hold unacknowledged. */
        private static final long OPEN_LOOP_BYTES_MAX = 64 << 20;

        private final Spec spec;
        private final int id;
        private final KafkaProducer<byte[], byte[]> producer;
        private final Pool pool;
        private final Header[] headers;
        private final String[] names;
        private final int stride;
        private final long[] sentAtNs = new long[SAMPLES];
        private final AtomicLong inFlightBytes = new AtomicLong();
        private final AtomicLong inFlightRecords = new AtomicLong();
        private final BitSet acked = new BitSet();
        private Clock clock;
        private Thread thread;
        private long nextTicket;
        /** The sender waits until no more than this is in flight; -1: it does not wait. */
        private volatile long wakeAtBytes = -1;

        final Histogram latencies = newHistogram();
        final Histogram lateness = newHistogram();
        volatile long ackedRecords;
        volatile long ackedBytes;
        volatile long refused;
        volatile long lastAckNs;
        volatile String failure;

        Lane(Spec spec, int id) {
            this.spec = spec;
            this.id = id;
            stride = spec.oneInFlight ? 1 : SAMPLE_STRIDE;
            ByteArraySerializer bytes = new ByteArraySerializer();
            producer = new KafkaProducer<>(spec.producerConfig, bytes, bytes);
            pool = new Pool(id, spec.bytesMin, spec.bytesMax);
            int topics = spec.topics.size();
            int mine = id >= topics ? 1 : (topics - id + spec.producers - 1) / spec.producers;
            headers = new Header[mine];
            names = new String[mine];
            for (int slot = 0; slot < mine; slot++) {
                names[slot] = spec.topics.get(id % topics + slot * spec.producers);
                headers[slot] = new Header(id, names[slot]);
                producer.partitionsFor(names[slot]); // Metadata is there before the clock starts.
            }
        }

        void start(Clock clock) {
            this.clock = clock;
            lastAckNs = clock.startNs;
            thread = new Thread(this::work, "producer-" + id);
            thread.start();
        }

        boolean isAlive() {
            return thread.isAlive();
        }

        void join(long millis) throws InterruptedException {
            thread.join(millis);
        }

        void close() {
            producer.close(java.time.Duration.ZERO);
        }

        private void work() {
            try {
                if (spec.ratePerS > 0) {
                    runOpen();
                } else {
                    runClosed();
                }
                drain();
            } catch (RuntimeException error) {
                failure = error.toString();
            }
        }

        /** The next record goes out as soon as the window has room. */
        private void runClosed() {
            long portion = 0;
            for (;;) {
                int bytes = pool.recordBytes(nextTicket);
                awaitRoom(bytes);
                if (portion <= 0 && (portion = clock.takePortion()) == 0) {
                    return;
                }
                portion -= bytes;
                if (nextTicket % stride == 0) {
                    sentAtNs[(int) (nextTicket / stride % SAMPLES)] = System.nanoTime();
                }
                send(bytes);
                if ((stride == 1 || nextTicket % SAMPLE_STRIDE == 0) && clock.isOver()) {
                    return;
                }
            }
        }

        /** Waits until the record fits into the window; one record always fits into an empty one. */
        private void awaitRoom(int bytes) {
            long limit = Math.max(0, spec.windowBytes - bytes);
            if (inFlightBytes.get() <= limit) {
                return;
            }
            // Woken at half of the window: a thread switch for each ack would cost more than it gives.
            long wakeAt = Math.min(limit, spec.windowBytes / 2);
            wakeAtBytes = wakeAt;
            while (inFlightBytes.get() > wakeAt && !clock.isOver()) {
                LockSupport.parkNanos(this, 100_000_000L);
            }
            wakeAtBytes = -1;
            while (inFlightBytes.get() > limit && !clock.isOver()) {
                LockSupport.parkNanos(this, 1_000_000L);
            }
        }

        /** Every record goes out at its time, or as soon after it as the client takes it. */
        private void runOpen() {
            long warmupNs = (long) (spec.openWarmupS * 1e9);
            while (!clock.isOver()) {
                long dueNs = dueAfterNs(nextTicket);
                long lateNs = System.nanoTime() - clock.startNs - dueNs;
                if (lateNs < 0) {
                    LockSupport.parkNanos(-lateNs);
                } else if (inFlightBytes.get() >= OPEN_LOOP_BYTES_MAX) {
                    LockSupport.parkNanos(1_000_000L);
                } else {
                    if (dueNs >= warmupNs) {
                        lateness.recordValue(lateNs);
                    }
                    send(pool.recordBytes(nextTicket));
                }
            }
        }

        private long dueAfterNs(long ticket) {
            return (long) ((ticket * (double) spec.producers + id) / spec.ratePerS * 1e9);
        }

        private void send(int bytes) {
            long ticket = nextTicket++;
            int slot = (int) (ticket % headers.length);
            // The client copies the bytes into its batch before `send` returns.
            byte[] record = pool.record(ticket, ticket / headers.length, headers[slot]);
            inFlightBytes.addAndGet(bytes);
            inFlightRecords.incrementAndGet();
            producer.send(new ProducerRecord<>(names[slot], 0, null, record),
                    (metadata, error) -> settle(ticket, bytes, error == null));
        }

        /** Called by the client's own thread, the only one that touches these numbers. */
        private void settle(long ticket, int bytes, boolean ok) {
            long now = System.nanoTime();
            if (ok) {
                acked.set((int) ticket);
                ackedRecords = ackedRecords + 1;
                ackedBytes = ackedBytes + bytes;
                time(ticket, now);
            } else {
                refused = refused + 1;
            }
            lastAckNs = now;
            inFlightRecords.decrementAndGet();
            long left = inFlightBytes.addAndGet(-bytes);
            if (left <= wakeAtBytes) {
                wakeAtBytes = -1;
                LockSupport.unpark(thread);
            }
        }

        private void time(long ticket, long now) {
            if (spec.ratePerS > 0) {
                long dueNs = dueAfterNs(ticket);
                if (dueNs >= spec.openWarmupS * 1e9) {
                    latencies.recordValue(Math.max(0, now - clock.startNs - dueNs));
                }
            } else if (ticket % stride == 0) {
                latencies.recordValue(Math.max(0, now - sentAtNs[(int) (ticket / stride % SAMPLES)]));
            }
        }

        private void drain() {
            long deadline = System.nanoTime() + DRAIN_NS;
            producer.flush();
            while (inFlightRecords.get() > 0 && System.nanoTime() < deadline) {
                LockSupport.parkNanos(1_000_000L);
            }
        }

        /** What has to be proved: how many were sent, and the ranges that were acknowledged. */
        ObjectNode claim() {
            ObjectNode claim = JSON.createObjectNode().put("producer", id).put("sent", nextTicket);
            ArrayNode ranges = claim.putArray("acked");
            for (int start = acked.nextSetBit(0); start >= 0;) {
                int end = acked.nextClearBit(start);
                ranges.addArray().add(start).add(end);
                start = acked.nextSetBit(end);
            }
            return claim;
        }
    }

    /** Writes producer, sequence and check into a record; layout in the harness's record.rs. */
    private static final class Header {
        static final int BYTES = 16;

        private final int producer;
        private final byte[] scratch;
        private final ByteBuffer tail;
        private final CRC32C crc = new CRC32C();

        Header(int producer, String topic) {
            this.producer = producer;
            byte[] name = topic.getBytes(StandardCharsets.UTF_8);
            scratch = java.util.Arrays.copyOf(name, name.length + BYTES);
            tail = ByteBuffer.wrap(scratch, name.length, BYTES).slice().order(ByteOrder.LITTLE_ENDIAN);
        }

        void write(ByteBuffer record, long sequence, int bodyCrc) {
            tail.putInt(0, producer).putLong(4, sequence).putInt(12, bodyCrc);
            crc.reset();
            crc.update(scratch);
            record.putInt(0, producer).putLong(4, sequence).putInt(12, (int) crc.getValue());
        }
    }

    /** Prepared records of one producer: bodies that do not compress, sizes spread evenly. */
    private static final class Pool {
        private static final int BYTES_MAX = 8 << 20;
        private static final int RECORDS = 1024;

        private final byte[][] records;
        private final ByteBuffer[] views;
        private final int[] bodyCrcs;

        Pool(int producer, int bytesMin, int bytesMax) {
            java.util.Random random = new java.util.Random(producer + 1L);
            int count = Math.max(4, Math.min(RECORDS, BYTES_MAX / bytesMax));
            long span = bytesMax - bytesMin + 1L;
            List<byte[]> made = new ArrayList<>();
            for (int index = 0; index < count; index++) {
                // Strata instead of independent draws: every pool has the same mean.
                byte[] record = new byte[bytesMin + (int) ((index * 2L + 1) * span / (count * 2L))];
                random.nextBytes(record);
                made.add(record);
            }
            java.util.Collections.shuffle(made, random);
            records = made.toArray(byte[][]::new);
            views = new ByteBuffer[count];
            bodyCrcs = new int[count];
            for (int index = 0; index < count; index++) {
                views[index] = ByteBuffer.wrap(records[index]).order(ByteOrder.LITTLE_ENDIAN);
                CRC32C crc = new CRC32C();
                crc.update(records[index], Header.BYTES, records[index].length - Header.BYTES);
                bodyCrcs[index] = (int) crc.getValue();
            }
        }

        int recordBytes(long ticket) {
            return records[(int) (ticket % records.length)].length;
        }

        byte[] record(long ticket, long sequence, Header header) {
            int index = (int) (ticket % records.length);
            header.write(views[index], sequence, bodyCrcs[index]);
            return records[index];
        }
    }
}
