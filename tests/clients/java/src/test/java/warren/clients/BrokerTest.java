package warren.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.ShutdownNotifier;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Deque;
import java.util.ArrayDeque;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Timeout;

/** A connection and a channel for each test, and the removal of what the test leaves in the broker. */
@Timeout(60)
abstract class BrokerTest {
    static final Endpoint ENDPOINT = Endpoint.fromEnvironment();
    static final Duration DEADLINE = Duration.ofSeconds(10);
    static final AMQP.BasicProperties NO_PROPERTIES = new AMQP.BasicProperties();

    Connection connection;
    Channel channel;
    private final List<Connection> connections = new ArrayList<>();
    private final Deque<String> queues = new ArrayDeque<>();
    private final Deque<String> exchanges = new ArrayDeque<>();

    /** Something that may fail as calls of the client do. */
    @FunctionalInterface
    interface Action {
        void run() throws IOException, TimeoutException, InterruptedException;
    }

    @BeforeEach
    void connect() throws Exception {
        connection = newConnection();
        channel = connection.createChannel();
    }

    @AfterEach
    void cleanUp() throws Exception {
        for (Connection each : connections) {
            if (each.isOpen()) {
                each.close();
            }
        }
        if (queues.isEmpty() && exchanges.isEmpty()) {
            return;
        }
        try (Connection cleaning = ENDPOINT.factory().newConnection("clean-up")) {
            Channel cleaner = cleaning.createChannel();
            for (String queue : queues) {
                cleaner.queueDelete(queue);
            }
            for (String exchange : exchanges) {
                cleaner.exchangeDelete(exchange);
            }
        }
    }

    /** A connection that is closed at the end of the test. */
    final Connection newConnection() throws IOException, TimeoutException {
        Connection opened = ENDPOINT.factory().newConnection();
        connections.add(opened);
        return opened;
    }

    /** Whether the broker is the RabbitMQ reference rather than Warren. */
    final boolean isReference() {
        return String.valueOf(connection.getServerProperties().get("platform")).startsWith("Erlang");
    }

    /** Skips the test where Warren is documented to be friendlier than RabbitMQ. */
    final void onlyWarren(String reason) {
        assumeTrue(!isReference(), reason);
    }

    static String uniqueName(String purpose) {
        return "java-" + purpose + "-" + UUID.randomUUID().toString().substring(0, 8);
    }

    /** A durable queue that is deleted at the end of the test. */
    final String sharedQueue(Map<String, Object> arguments) throws IOException {
        String name = uniqueName("queue");
        deleteQueueAtEnd(name);
        return channel.queueDeclare(name, true, false, false, arguments).getQueue();
    }

    /** An exclusive queue of the test's connection. */
    final String exclusiveQueue(Map<String, Object> arguments) throws IOException {
        return channel.queueDeclare(uniqueName("exclusive"), false, true, false, arguments).getQueue();
    }

    /** A durable exchange that is deleted at the end of the test. */
    final String exchange(BuiltinExchangeType type, Map<String, Object> arguments) throws IOException {
        String name = uniqueName(type.getType());
        deleteExchangeAtEnd(name);
        channel.exchangeDeclare(name, type, true, false, arguments);
        return name;
    }

    final void deleteQueueAtEnd(String name) {
        queues.push(name);
    }

    final void deleteExchangeAtEnd(String name) {
        exchanges.push(name);
    }

    final void publish(String exchange, String routingKey, String body) throws IOException {
        publish(exchange, routingKey, NO_PROPERTIES, body);
    }

    final void publish(String exchange, String routingKey, AMQP.BasicProperties properties, String body)
            throws IOException {
        channel.basicPublish(exchange, routingKey, properties, bytes(body));
    }

    /** Publishes and waits until the broker has taken the messages into their queues. */
    final void publishConfirmed(String exchange, String routingKey, String... bodies) throws Exception {
        channel.confirmSelect();
        for (String body : bodies) {
            publish(exchange, routingKey, body);
        }
        channel.waitForConfirmsOrDie(DEADLINE.toMillis());
    }

    /** Takes every ready message of the queue. */
    final List<String> drain(String queue) throws IOException {
        List<String> bodies = new ArrayList<>();
        GetResponse response = channel.basicGet(queue, true);
        while (response != null) {
            bodies.add(text(response));
            response = channel.basicGet(queue, true);
        }
        return bodies;
    }

    /** Takes the next message of the queue, waiting for it if need be. */
    final GetResponse awaitMessage(String queue) throws Exception {
        return await("a message in " + queue, () -> channel.basicGet(queue, true));
    }

    /** Starts a consumer that must acknowledge. */
    static Collector consume(Channel channel, String queue) throws IOException {
        return consume(channel, queue, false, Map.of());
    }

    static Collector consume(Channel channel, String queue, boolean autoAck, Map<String, Object> arguments)
            throws IOException {
        Collector collector = new Collector(channel);
        channel.basicConsume(queue, autoAck, "", false, false, arguments, collector);
        return collector;
    }

    /** Polls until the call answers something, and fails when it does not in time. */
    static <T> T await(String what, Callable<T> call) throws Exception {
        long deadline = System.nanoTime() + DEADLINE.toNanos();
        while (System.nanoTime() < deadline) {
            T value = call.call();
            if (value != null) {
                return value;
            }
            Thread.sleep(10);
        }
        return fail("waited in vain for " + what);
    }

    static void awaitTrue(String what, Callable<Boolean> condition) throws Exception {
        await(what, () -> condition.call() ? true : null);
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(GetResponse response) {
        return new String(response.getBody(), StandardCharsets.UTF_8);
    }

    /** Runs the action and checks that the broker closes the channel, and only the channel, for it. */
    final void assertChannelError(Channel failing, int code, String text, int classId, int methodId, Action action)
            throws Exception {
        ShutdownSignalException signal = shutdownSignal(failing, action);
        AMQP.Channel.Close close = assertInstanceOf(AMQP.Channel.Close.class, signal.getReason());
        assertEquals(text, close.getReplyText());
        assertEquals(code, close.getReplyCode());
        assertEquals(classId, close.getClassId(), "class");
        assertEquals(methodId, close.getMethodId(), "method");
        assertTrue(failing.getConnection().isOpen(), "a channel error closed the connection");
    }

    /** The same on a channel of its own. */
    final void assertChannelError(int code, String text, int classId, int methodId, ChannelAction action)
            throws Exception {
        Channel failing = connection.createChannel();
        assertChannelError(failing, code, text, classId, methodId, () -> action.run(failing));
    }

    /** Runs the action on a connection of its own and checks that the broker closes that connection for it. */
    final void assertConnectionError(int code, String text, int classId, int methodId, ChannelAction action)
            throws Exception {
        Connection failing = newConnection();
        Channel failingChannel = failing.createChannel();
        ShutdownSignalException signal = shutdownSignal(failing, () -> action.run(failingChannel));
        AMQP.Connection.Close close = assertInstanceOf(AMQP.Connection.Close.class, signal.getReason());
        assertEquals(text, close.getReplyText());
        assertEquals(code, close.getReplyCode());
        assertEquals(classId, close.getClassId(), "class");
        assertEquals(methodId, close.getMethodId(), "method");
    }

    @FunctionalInterface
    interface ChannelAction {
        void run(Channel channel) throws IOException, TimeoutException, InterruptedException;
    }

    /** Runs the action and waits for the shutdown it causes; synchronous methods throw as well. */
    static ShutdownSignalException shutdownSignal(ShutdownNotifier notifier, Action action) throws Exception {
        CompletableFuture<ShutdownSignalException> signal = new CompletableFuture<>();
        notifier.addShutdownListener(signal::complete);
        try {
            action.run();
        } catch (AlreadyClosedException closed) {
            // What the listener is told is the reason to look at.
        } catch (IOException failed) {
            if (!(failed.getCause() instanceof ShutdownSignalException)) {
                throw failed;
            }
        }
        try {
            return signal.get(DEADLINE.toMillis(), TimeUnit.MILLISECONDS);
        } catch (TimeoutException | ExecutionException missing) {
            return fail("the broker did not close it");
        }
    }
}
