package warren.clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AuthenticationFailureException;
import com.rabbitmq.client.BlockedListener;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.ShutdownSignalException;
import com.rabbitmq.client.impl.CredentialsProvider;
import com.rabbitmq.client.impl.CredentialsRefreshService;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/** Opening, configuring and closing connections. */
class ConnectionTest extends BrokerTest {

    @Test
    void theServerTellsItsCapabilities() {
        Map<String, Object> properties = connection.getServerProperties();
        assertEquals("RabbitMQ", properties.get("product").toString());
        Map<?, ?> capabilities = assertInstanceOf(Map.class, properties.get("capabilities"));
        for (String capability : List.of("publisher_confirms", "exchange_exchange_bindings", "basic.nack",
                "consumer_cancel_notify", "connection.blocked", "consumer_priorities",
                "authentication_failure_close", "per_consumer_qos", "direct_reply_to")) {
            assertEquals(true, capabilities.get(capability), capability);
        }
    }

    @Test
    void tuning() throws Exception {
        assertEquals(2047, connection.getChannelMax());
        assertEquals(131_072, connection.getFrameMax());
        assertEquals(60, connection.getHeartbeat());
        ConnectionFactory factory = ENDPOINT.factory();
        factory.setRequestedChannelMax(3);
        factory.setRequestedFrameMax(8192);
        factory.setRequestedHeartbeat(30);
        try (Connection tuned = factory.newConnection()) {
            assertEquals(3, tuned.getChannelMax());
            assertEquals(8192, tuned.getFrameMax());
            assertEquals(30, tuned.getHeartbeat());
            Channel third = null;
            for (int count = 0; count < 3; count++) {
                third = tuned.createChannel();
            }
            assertTrue(tuned.openChannel().isEmpty());
            String queue = third.queueDeclare().getQueue();
            byte[] body = new byte[100_000];
            third.basicPublish("", queue, NO_PROPERTIES, body);
            Channel getting = third;
            assertEquals(body.length, await("the message", () -> getting.basicGet(queue, true)).getBody().length);
        }
    }

    /** With Netty the client is strict about heartbeats, and nothing else comes on an idle connection. */
    @Test
    void anIdleConnectionOfNettyStaysOpen() throws Exception {
        ConnectionFactory factory = ENDPOINT.factory();
        factory.setRequestedHeartbeat(2);
        factory.netty();
        try (Connection idle = factory.newConnection()) {
            Channel channel = idle.createChannel();
            Thread.sleep(9_000);
            assertTrue(idle.isOpen());
            channel.queueDeclare();
        }
    }

    @Test
    void wrongCredentials() {
        ConnectionFactory wrongPassword = ENDPOINT.factory();
        wrongPassword.setPassword("wrong");
        AuthenticationFailureException failure =
                assertThrows(AuthenticationFailureException.class, wrongPassword::newConnection);
        assertEquals("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the"
                + " broker logfile.", failure.getMessage());
        ConnectionFactory wrongUser = ENDPOINT.factory();
        wrongUser.setUsername("nobody");
        assertThrows(AuthenticationFailureException.class, wrongUser::newConnection);
    }

    @Test
    void unknownVirtualHost() {
        ConnectionFactory factory = ENDPOINT.factory();
        factory.setVirtualHost("nowhere");
        IOException failure = assertThrows(IOException.class, factory::newConnection);
        ShutdownSignalException signal = assertInstanceOf(ShutdownSignalException.class, failure.getCause());
        AMQP.Connection.Close close = assertInstanceOf(AMQP.Connection.Close.class, signal.getReason());
        assertEquals(530, close.getReplyCode());
        assertEquals("NOT_ALLOWED - vhost nowhere not found", close.getReplyText());
        assertEquals(10, close.getClassId());
        assertEquals(40, close.getMethodId());
    }

    @Test
    void blockedListeners() throws Exception {
        BlockedListener listener = connection.addBlockedListener(
                reason -> { throw new AssertionError("blocked: " + reason); },
                () -> { throw new AssertionError("unblocked"); });
        String queue = exclusiveQueue(Map.of());
        publishConfirmed("", queue, "not blocked");
        assertTrue(connection.removeBlockedListener(listener));
        assertFalse(connection.removeBlockedListener(listener));
    }

    /** The client sends a new secret when its refresh service asks it to, and then waits for the broker's answer. */
    @Test
    void updatedSecrets() throws Exception {
        CompletableFuture<Callable<Boolean>> refresh = new CompletableFuture<>();
        ConnectionFactory factory = ENDPOINT.factory();
        factory.setCredentialsProvider(new ExpiringCredentials());
        factory.setCredentialsRefreshService(new CredentialsRefreshService() {
            @Override
            public String register(CredentialsProvider credentials, Callable<Boolean> sendNewSecret) {
                refresh.complete(sendNewSecret);
                return "registration";
            }

            @Override
            public void unregister(CredentialsProvider credentials, String registration) {
                // Nothing is scheduled.
            }

            @Override
            public boolean isApproachingExpiration(Duration timeBeforeExpiration) {
                return false;
            }
        });
        try (Connection refreshed = factory.newConnection()) {
            Channel open = refreshed.createChannel();
            String queue = open.queueDeclare().getQueue();
            Collector collector = consume(open, queue, true, Map.of());
            assertTrue(refresh.get(10, TimeUnit.SECONDS).call(), "the broker did not take the new secret");
            open.basicPublish("", queue, NO_PROPERTIES, bytes("still here"));
            assertEquals(List.of("still here"), collector.bodies(1));
            assertFalse(collector.cancelled.isDone());
        }
    }

    /** The endpoint's credentials, said to be valid for an hour: credentials without an end are never refreshed. */
    private static final class ExpiringCredentials implements CredentialsProvider {
        @Override
        public String getUsername() {
            return ENDPOINT.user();
        }

        @Override
        public String getPassword() {
            return ENDPOINT.password();
        }

        @Override
        public Duration getTimeBeforeExpiration() {
            return Duration.ofHours(1);
        }
    }

    @Test
    void idleConnectionsStayWithHeartbeats() throws Exception {
        ConnectionFactory factory = ENDPOINT.factory();
        factory.setRequestedHeartbeat(1);
        try (Connection beating = factory.newConnection()) {
            assertEquals(1, beating.getHeartbeat());
            Channel idle = beating.createChannel();
            // Longer than either side waits for the other's heartbeats.
            Thread.sleep(3500);
            assertTrue(beating.isOpen());
            idle.exchangeDeclarePassive("amq.direct");
        }
    }

    @Test
    void closingGivesBackWhatWasHeld() throws Exception {
        String queue = sharedQueue(Map.of());
        publishConfirmed("", queue, "held");
        Connection closing = newConnection();
        closing.createChannel().basicGet(queue, false);
        assertEquals(0, channel.messageCount(queue));
        closing.close(200, "done");
        var response = awaitMessage(queue);
        assertTrue(response.getEnvelope().isRedeliver());
    }

    @Test
    void channelsOpenAndClose() throws Exception {
        for (int round = 0; round < 50; round++) {
            Channel opened = connection.createChannel();
            opened.basicQos(round);
            opened.close();
        }
        Channel numbered = connection.createChannel(2047);
        assertEquals(2047, numbered.getChannelNumber());
        numbered.exchangeDeclarePassive("amq.fanout");
    }

    @Test
    void fewConnectionsAfterAnother() throws Exception {
        for (int round = 0; round < 20; round++) {
            try (Connection brief = ENDPOINT.factory().newConnection("brief " + round)) {
                assertEquals("brief " + round, brief.getClientProvidedName());
                brief.createChannel().exchangeDeclarePassive("amq.direct");
            }
        }
    }
}
