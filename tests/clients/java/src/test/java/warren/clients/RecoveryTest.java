package warren.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.Recoverable;
import com.rabbitmq.client.RecoverableConnection;
import com.rabbitmq.client.RecoveryListener;
import com.rabbitmq.client.ShutdownSignalException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Automatic recovery of connections, topology and consumers over restarts of a broker. */
@Timeout(90)
@EnabledIfEnvironmentVariable(named = "TEST_WARREN_BIN", matches = ".+",
        disabledReason = "restarts a broker of its own, which a given AMQP_URL does not allow")
class RecoveryTest {
    private static final int RECOVERY_INTERVAL_MILLISECONDS = 100;

    private final Semaphore recoveries = new Semaphore(0);
    private WarrenProcess broker;
    private Connection connection;
    private Channel channel;

    @BeforeEach
    void start() throws Exception {
        broker = new WarrenProcess();
        connection = recoveringFactory().newConnection("recovering");
        ((RecoverableConnection) connection).addRecoveryListener(new RecoveryListener() {
            @Override
            public void handleRecovery(Recoverable recoverable) {
                recoveries.release();
            }

            @Override
            public void handleRecoveryStarted(Recoverable recoverable) {
                // Only the end of a recovery matters.
            }
        });
        channel = connection.createChannel();
    }

    @AfterEach
    void stop() throws Exception {
        connection.abort();
        broker.close();
    }

    @Test
    void topologyAndConsumersComeBackAfterARestart() throws Exception {
        channel.exchangeDeclare("events", BuiltinExchangeType.TOPIC, true);
        channel.exchangeDeclare("inner", BuiltinExchangeType.FANOUT, true);
        channel.exchangeBind("inner", "events", "deep.#");
        channel.queueDeclare("work", true, false, false, Map.of("x-max-priority", 3));
        channel.queueBind("work", "events", "work.*");
        channel.queueDeclare("nested", true, false, false, null);
        channel.queueBind("nested", "inner", "");
        channel.basicQos(5);
        Collector work = BrokerTest.consume(channel, "work", true, Map.of());
        Collector nested = BrokerTest.consume(connection.createChannel(), "nested", true, Map.of());
        String tag = work.consumeOk.get(10, TimeUnit.SECONDS);
        publish("events", "work.one", "before");
        assertEquals(List.of("before"), work.bodies(1));

        for (int round = 0; round < 2; round++) {
            broker.restart();
            awaitRecovery();
            publish("events", "work.two", "after " + round);
            publish("events", "deep.er.down", "nested " + round);
            publish("events", "elsewhere", "lost");
            assertEquals(List.of("after " + round), work.bodies(1));
            assertEquals(List.of("nested " + round), nested.bodies(1));
            assertEquals(1, channel.consumerCount("work"));
        }
        assertEquals(tag, work.getConsumerTag());
        channel.basicCancel(tag);
        assertEquals(0, channel.consumerCount("work"));
    }

    @Test
    void serverNamedQueuesComeBackUnderNewNames() throws Exception {
        CompletableFuture<List<String>> renamed = new CompletableFuture<>();
        var recovering = assertInstanceOf(
                com.rabbitmq.client.impl.recovery.AutorecoveringConnection.class, connection);
        recovering.addQueueRecoveryListener((oldName, newName) -> renamed.complete(List.of(oldName, newName)));
        String queue = channel.queueDeclare().getQueue();
        channel.queueBind(queue, "amq.fanout", "");
        Collector collector = BrokerTest.consume(channel, queue, true, Map.of());

        broker.restart();
        awaitRecovery();
        List<String> names = renamed.get(10, TimeUnit.SECONDS);
        assertEquals(queue, names.get(0));
        assertNotEquals(queue, names.get(1));
        publish("amq.fanout", "", "found");
        assertEquals(List.of("found"), collector.bodies(1));
        publish("", names.get(1), "by name");
        assertEquals(List.of("by name"), collector.bodies(1));
    }

    @Test
    void confirmsAndAcknowledgementsWorkAfterARestart() throws Exception {
        channel.queueDeclare("work", true, false, false, null);
        channel.confirmSelect();
        channel.basicQos(1);
        Collector collector = BrokerTest.consume(channel, "work");
        for (int message = 0; message < 3; message++) {
            publish("", "work", "before");
            channel.waitForConfirmsOrDie(10_000);
            if (message < 2) {
                channel.basicAck(collector.next().getEnvelope().getDeliveryTag(), false);
            }
        }
        long stale = collector.next().getEnvelope().getDeliveryTag();
        broker.restart();
        awaitRecovery();
        // The client knows that the delivery is of the lost channel, and drops the acknowledgement.
        channel.basicAck(stale, false);
        for (int message = 0; message < 3; message++) {
            publish("", "work", "after " + message);
            channel.waitForConfirmsOrDie(10_000);
        }
        for (int message = 0; message < 3; message++) {
            var delivery = collector.next();
            assertEquals("after " + message, Collector.text(delivery));
            channel.basicAck(delivery.getEnvelope().getDeliveryTag(), false);
        }
        assertEquals(0, channel.messageCount("work"));
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void whatIsDurableSurvives(boolean crashes) throws Exception {
        channel.exchangeDeclare("kept", BuiltinExchangeType.DIRECT, true);
        channel.queueDeclare("kept", true, false, false, null);
        channel.queueBind("kept", "kept", "key");
        channel.confirmSelect();
        for (int message = 0; message < 3; message++) {
            channel.basicPublish("kept", "key", MessageProperties.PERSISTENT_BASIC,
                    BrokerTest.bytes("persistent " + message));
            publish("kept", "key", "transient " + message);
        }
        channel.waitForConfirmsOrDie(10_000);
        // A connection that recovers nothing, so that all there is comes from the broker.
        connection.abort();
        if (crashes) {
            broker.kill();
            broker.start();
        } else {
            broker.restart();
        }
        try (Connection plain = broker.endpoint().factory().newConnection()) {
            Channel fresh = plain.createChannel();
            fresh.confirmSelect();
            fresh.basicPublish("kept", "key", MessageProperties.PERSISTENT_BASIC, BrokerTest.bytes("routed again"));
            fresh.waitForConfirmsOrDie(10_000);
            assertEquals(4, fresh.queueDeclarePassive("kept").getMessageCount());
            for (String expected : List.of("persistent 0", "persistent 1", "persistent 2", "routed again")) {
                var message = fresh.basicGet("kept", true);
                assertEquals(expected, new String(message.getBody(), StandardCharsets.UTF_8));
                assertFalse(message.getEnvelope().isRedeliver());
            }
        }
    }

    @Test
    void recoveryAfterACrash() throws Exception {
        channel.queueDeclare("work", true, false, false, null);
        Collector collector = BrokerTest.consume(channel, "work", true, Map.of());
        broker.kill();
        broker.start();
        awaitRecovery();
        publish("", "work", "after the crash");
        assertEquals(List.of("after the crash"), collector.bodies(1));
    }

    @Test
    void aStoppingBrokerSaysSo() throws Exception {
        ConnectionFactory factory = broker.endpoint().factory();
        Connection plain = factory.newConnection();
        Channel plainChannel = plain.createChannel();
        plainChannel.queueDeclare("held", true, false, false, null);
        BrokerTest.consume(plainChannel, "held");
        ShutdownSignalException signal = BrokerTest.shutdownSignal(plain, () -> {
            try {
                broker.stop();
            } catch (Exception failed) {
                throw new AssertionError(failed);
            }
        });
        AMQP.Connection.Close close = assertInstanceOf(AMQP.Connection.Close.class, signal.getReason());
        assertEquals(320, close.getReplyCode());
        assertEquals("CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'",
                close.getReplyText());
        assertFalse(plain.isOpen());
        assertThrows(AlreadyClosedException.class, () -> plainChannel.basicPublish("", "held", null, new byte[1]));
        broker.start();
        awaitRecovery();
        assertTrue(channel.isOpen());
    }

    private ConnectionFactory recoveringFactory() {
        ConnectionFactory factory = broker.endpoint().factory();
        factory.setAutomaticRecoveryEnabled(true);
        factory.setTopologyRecoveryEnabled(true);
        factory.setNetworkRecoveryInterval(RECOVERY_INTERVAL_MILLISECONDS);
        return factory;
    }

    private void awaitRecovery() throws InterruptedException {
        assertTrue(recoveries.tryAcquire(20, TimeUnit.SECONDS), "the connection did not recover");
    }

    private void publish(String exchange, String routingKey, String body) throws Exception {
        channel.basicPublish(exchange, routingKey, BrokerTest.NO_PROPERTIES, BrokerTest.bytes(body));
    }
}
